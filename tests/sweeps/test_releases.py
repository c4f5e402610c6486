"""The search for a version, from its options to verdict.json; and the real world with fake interpreters."""

import contextlib

import pytest
from support.hosting import NAN_FORWARD, OPTIONS, Told, answers, fake_python, model_folder, repro

from repro.cli.options import request_from
from repro.core.answer import read
from repro.core.encoding import decode
from repro.core.errors import BuildError, FetchError, Stopped, UsageError
from repro.core.payloads import Trace
from repro.core.records import Cell, Kind, Outcome
from repro.core.sweep_answers import ReleaseRun
from repro.engine.evidence import Evidence
from repro.sweeps.releases import run, world
from repro.sweeps.releases.world import RealWorld

ASKED = {"package": "torch", "pins": (), "py": "3.11", "runs": 1, "bad_from": 1, "walk_all": False}
RELEASES = {"torch": ("2.3.1", "2.4.0", "2.4.1", "2.5.0", "2.5.1"), "transformers": ("4.57.3",)}
TRACE = {
    "columns": [
        "module", "call_index", "op", "occurrence", "source", "dtype", "shape", "min", "max", "nan", "inf", "digest",
    ],
    "classes": {},
}  # fmt: skip


def row(op, source, nan=0, digest="0"):
    return ["", -1, op, 0, source, "float32", [2], None, None, nan, 0, digest]


class Injected:
    """A world in which torch before ``FIX`` is bad."""

    FIX = "2.5.0"

    def __init__(self, request, python, extra, folder, store, announcer):
        self.extra, self.folder = extra, folder
        self.children = self
        self.built_some = False

    def stop(self):
        """Nothing runs."""

    def hold(self, pins):
        self.held = dict(pins)

    def releases(self, package):
        return RELEASES[package]

    def requirements(self, package, version):
        return ()

    def probe(self, pins, label):
        old = [int(part) for part in pins["torch"].split(".")] < [int(part) for part in self.FIX.split(".")]
        found = {"verdict": Outcome.BAD, "reason": "NaN", "kind": Kind.NONFINITE} if old else {"verdict": Outcome.GOOD}
        return ReleaseRun(**{"reason": "finite", "command": f"ask {pins['torch']}", **found})

    def trace(self, pins, label):
        fixed = pins["torch"] == self.FIX
        rows = [row("aten.mm.default", "a.py:1"), row("aten._softmax.default", "a.py:2", 0 if fixed else 2, str(fixed))]
        return decode(Trace, {**TRACE, "rows": rows, "root": label})


@pytest.fixture
def script(tmp_path):
    """A script that never names the other package."""
    path = tmp_path / "asks.py"
    path.write_text("import torch\n")
    return path


def searched(script, tmp_path, monkeypatch, injected=Injected, out="out", trace=True, **asked):
    monkeypatch.setattr(run, "RealWorld", injected)
    request = request_from("forward", {**OPTIONS, "model": str(script)})
    question = run.question(**{**ASKED, "good": "2.5.1", "bad": "2.3.1", **asked}, case=request.case)
    told = Told()
    return run.run(run.Search(request, question, out and tmp_path / out, trace), Store(None), told).answer, told.lines


def test_the_answer_is_the_injected_boundary(script, tmp_path, monkeypatch):
    answer, _ = searched(script, tmp_path, monkeypatch)
    found = answer.versions
    assert (answer.verdict, found.last_good, found.first_bad) == (Outcome.BAD, "2.5.0", "2.4.1")
    assert (found.direction, found.skipped, found.environments, found.releases) == ("fix", (), 4, 5)
    assert {probe.version: probe.command for probe in found.probes}["2.4.1"] == "ask 2.4.1"
    assert [(side.last_good, side.first_bad, side.moved) for side in found.boundaries] == [("2.5.0", "2.4.1", "torch")]
    assert read(tmp_path / "out" / "verdict.json") == answer


def test_what_changed_names_the_operator_and_both_lines(script, tmp_path, monkeypatch):
    found = searched(script, tmp_path, monkeypatch)[0].versions.changes
    first = found.first
    assert (first.op, first.kind, first.what) == ("aten._softmax.default", "different", ("finite",))
    assert (first.good_source, first.bad_source) == ("a.py:2", "a.py:2")
    assert "softmax.default" in found.sentence
    assert "softmax.default" in (tmp_path / "out" / "report.md").read_text()


def test_a_search_for_other_numbers_says_so_in_its_command_and_its_notes(tmp_path, monkeypatch):
    model = model_folder(tmp_path)
    answer, _ = searched(model, tmp_path, monkeypatch, divergent=True)
    assert answer.command.startswith(f"repro versions {model} --package torch --good 2.5.1 --bad 2.3.1")
    assert answer.command.split(" --fault ")[1].split()[0] == "divergent"
    assert "was held against torch 2.5.1, transformers 4.57.3" in answer.versions.notes[0]
    assert (answer.versions.last_good, answer.versions.first_bad) == ("2.5.0", "2.4.1")
    with pytest.raises(UsageError, match="another question"):
        searched(model, tmp_path, monkeypatch)


def test_without_traces_nothing_is_said_of_operators(script, tmp_path, monkeypatch):
    assert searched(script, tmp_path, monkeypatch, trace=False)[0].versions.changes is None


def test_a_side_that_cannot_be_traced_is_said(script, tmp_path, monkeypatch):
    class Silent(Injected):
        def trace(self, pins, label):
            return "it does not install"

    changes = searched(script, tmp_path, monkeypatch, Silent)[0].versions.changes
    assert changes.sentence == "The operators could not be compared: torch-2.5.0: it does not install"
    assert changes.first is None


def test_two_good_ends_are_no_boundary(script, tmp_path, monkeypatch):
    class Good(Injected):
        FIX = "1.0"

    answer, _ = searched(script, tmp_path, monkeypatch, Good)
    assert (answer.verdict, answer.versions.last_good) == (Outcome.GOOD, None)
    assert "--all" in answer.reason


def test_a_script_that_names_transformers_is_asked_with_it(script, tmp_path, monkeypatch):
    script.write_text("import transformers\n")
    found = searched(script, tmp_path, monkeypatch)[0].versions
    assert {probe.pins.get("transformers") for probe in found.probes} == {"4.57.3"}


def test_a_script_that_does_not_name_it_is_asked_without(script, tmp_path, monkeypatch):
    found = searched(script, tmp_path, monkeypatch)[0].versions
    assert all(set(probe.pins) == {"torch"} for probe in found.probes)


@pytest.mark.parametrize(("bad", "held"), [("2.3.1", {}), ("2.2.0", {"numpy": "1.26.4"})])
def test_numpy_is_held_where_a_release_knows_no_newer_one(script, tmp_path, monkeypatch, bad, held):
    monkeypatch.setitem(RELEASES, "torch", ("2.2.0", *RELEASES["torch"]))
    assert searched(script, tmp_path, monkeypatch, bad=bad)[0].versions.with_ == held


def test_a_folder_of_another_search_is_refused_and_the_same_one_goes_on(script, tmp_path, monkeypatch):
    first, _ = searched(script, tmp_path, monkeypatch)
    assert searched(script, tmp_path, monkeypatch)[0] == first
    with pytest.raises(UsageError, match="another question"):
        searched(script, tmp_path, monkeypatch, good="2.5.0")


def test_ctrl_c_says_how_to_go_on(script, tmp_path, monkeypatch):
    class Interrupted(Injected):
        def probe(self, pins, label):
            raise KeyboardInterrupt

    again = "repro versions .*--package torch --good 2.5.1 --bad 2.3.1 --py 3.11 --out"
    with pytest.raises(Stopped, match=again) as caught:
        searched(script, tmp_path, monkeypatch, Interrupted)
    assert caught.value.exit_status == 130


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pins": ("numpy>=1",)}, "expected NAME==VERSION"),
        ({"pins": ("numpy==",)}, "expected NAME==VERSION"),
        ({"py": "2.7"}, "--py 2.7: expected a version such as 3.11"),
        ({"good": "2.9.9"}, "2.9.9"),
        ({"runs": 2, "bad_from": 3}, "3 of 2 runs"),
    ],
)
def test_a_question_without_an_answer_is_refused(script, tmp_path, monkeypatch, asked, message):
    with pytest.raises(UsageError, match=message):
        searched(script, tmp_path, monkeypatch, **asked)


def test_a_script_is_not_held_against_itself(script, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"asks\.py is a script: it answers by its own exit status"):
        searched(script, tmp_path, monkeypatch, divergent=True)


@pytest.mark.parametrize("command", ["run", "matrix", "diff"])
def test_a_command_without_another_release_refuses_to_look_for_other_numbers(command, tmp_path):
    ran = repro(command, "model", "--fault", "divergent", cwd=tmp_path)
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "`repro versions` does, and `repro diff MODEL --against WHAT`" in ran.stderr


def test_a_question_without_an_answer_leaves_no_folder(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        searched(script, tmp_path, monkeypatch, out=None, good="2.9.9")
    assert list((tmp_path / "repro-runs").iterdir()) == []


def test_what_was_recorded_stays_where_the_registry_fails_on_the_way(script, tmp_path, monkeypatch):
    class Failing(Injected):
        def probe(self, pins, label):
            (self.folder / "probes").mkdir()
            raise FetchError("the registry is gone")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(FetchError):
        searched(script, tmp_path, monkeypatch, Failing, out=None)
    assert len(list((tmp_path / "repro-runs").glob("*/probes"))) == 1


# The real world


class Store:
    """Every environment stands, but those whose id holds ``broken``."""

    def __init__(self, python, broken="nothing"):
        self.python, self.broken, self.asked = python, broken, []

    def build(self, recipe, progress=None):
        raise AssertionError(f"{recipe.id} stands")

    def built(self, recipe):
        self.asked.append(recipe)
        if self.broken in recipe.id:
            raise BuildError("no wheel")
        return Cell(str(self.python))


class Task(Told):
    """An announcer with tasks that nobody watches."""

    def task(self, name):
        return contextlib.nullcontext(lambda done, total, unit: None)


@pytest.fixture
def real(tmp_path, monkeypatch):
    def make(broken="nothing", model=None, options=None, command="forward", **steps):
        for name, value in answers(tmp_path, **steps).items():
            monkeypatch.setenv(name, value)
        model = model or str(model_folder(tmp_path))
        request = request_from(command, {**OPTIONS, "model": model, **(options or {})})
        store = Store(fake_python(tmp_path), broken)
        made = RealWorld(request, "3.11", {"numpy": "1.26.4"}, tmp_path / "out", store, Task())
        return made, store

    return make


PINS = {"torch": "2.4.1", "transformers": "4.57.3"}


def test_a_run_has_its_verdict_kind_and_folder(real, tmp_path):
    made, store = real(forward=NAN_FORWARD)
    ran = made.probe(PINS, "torch-2.4.1")
    assert (ran.verdict, ran.kind, ran.folder) == (Outcome.BAD, Kind.NONFINITE, "probes/torch-2.4.1")
    assert (tmp_path / "out" / "probes" / "torch-2.4.1" / "verdict.json").exists()
    assert dict(store.asked[0].pins) == {"numpy": "1.26.4", **PINS}


def test_the_command_of_a_run_needs_uv_and_the_searchs_folder_alone(real, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, _ = real(options={"dtype": "float16", "prompts": ("a b",)})
    command = made.probe(PINS, "x").command
    assert command.startswith("uv run --no-project --python 3.11 --with numpy==1.26.4 --with torch==2.4.1")
    assert command.endswith("--dtype float16 --prompt 'a b'")
    assert "python out/probes/x/probes.pyz forward" in command


def test_the_command_of_a_run_asks_the_kit_for_the_phase_of_a_factorys_module(real, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("")
    asked = {"model": "", "factory": "net.py:make", "train_step": 3}
    made, _ = real(options=asked, train={"verdict": "bad", "reason": "the loss is NaN"})
    ran = made.probe(PINS, "x")
    assert (ran.verdict, ran.reason) == (Outcome.BAD, "the loss is NaN")
    assert ran.command.endswith(f"probes/x/probes.pyz train --factory {tmp_path / 'net.py'}:make --train-step 3")


def test_a_release_that_does_not_install_is_a_skip_that_is_not_asked_again(real):
    made, _ = real(broken="torch-2.4.1")
    ran = made.probe(PINS, "x")
    assert (ran.verdict, ran.reason, ran.folder) == (Outcome.SKIP, "it does not install: no wheel", None)


REFERENCE = {"torch": "2.1.0", "transformers": "4.57.3"}
DIFF = {"verdict": "good", "reason": "976 places agree", "payload": {"way": "there"}}


def test_the_reference_is_recorded_once_and_each_release_is_held_against_it(real, tmp_path):
    made, store = real(command="diff", diff=DIFF, options={"dtype": "float32"})
    made.hold(REFERENCE)
    ran = made.probe(PINS, "torch-2.4.1")
    again = made.probe({**PINS, "torch": "2.4.0"}, "torch-2.4.0")
    assert (ran.verdict, ran.reason, again.verdict) == (Outcome.GOOD, "976 places agree", Outcome.GOOD)
    assert [recipe.pins["torch"] for recipe in store.asked] == ["2.1.0", "2.4.1", "2.4.0"]
    asked = [Evidence(tmp_path / "out" / name).header.case.against for name in ("reference", "probes/torch-2.4.1")]
    place = tmp_path / "out" / "reference-trace"
    assert asked == [f"record:{place}", f"held:{place}"]
    assert ran.command.startswith(f"repro diff {tmp_path / 'model'} --against held:{place} ")


def test_a_reference_that_does_not_install_is_told_apart_from_the_release(real):
    made, _ = real(broken="torch-2.1.0", command="diff", diff=DIFF)
    made.hold(REFERENCE)
    ran = made.probe(PINS, "x")
    assert (ran.verdict, ran.folder) == (Outcome.SKIP, None)
    assert ran.reason == "what it is held against does not install: no wheel"
    assert "torch==2.1.0" in ran.command


def test_a_reference_that_is_not_good_decides_nothing(real):
    made, store = real(command="diff", diff={**DIFF, "verdict": "bad", "reason": "it is not there"})
    made.hold(REFERENCE)
    ran = made.probe(PINS, "x")
    assert (ran.verdict, ran.kind, len(store.asked)) == (Outcome.SKIP, None, 1)
    assert ran.reason == "what it is held against was not recorded: it is not there"


def test_a_probe_that_is_killed_is_a_skip(real):
    made, _ = real(forward={"before": ["SIGKILL"]})
    ran = made.probe(PINS, "x")
    assert (ran.verdict, ran.kind) == (Outcome.SKIP, Kind.CRASH)


def test_a_host_that_dies_is_a_skip(real, monkeypatch):
    monkeypatch.setattr("repro.run.child.MAIN", "raise SystemExit(3)")
    ran = real()[0].probe(PINS, "x")
    assert (ran.verdict, ran.reason) == (Outcome.SKIP, "the run ended with exit status 3")


def test_a_trace_is_the_payload_of_its_step(real):
    payload = {**TRACE, "rows": [row("aten.mm.default", "a.py:1")], "root": "m"}
    made, _ = real(trace={"verdict": "good", "payload": payload})
    found = made.trace(PINS, "x")
    assert (found.columns, found.rows[0][2], found.root) == (tuple(TRACE["columns"]), "aten.mm.default", "m")


def test_a_trace_that_is_not_had_is_a_sentence(real):
    made, _ = real(trace={"verdict": "skip", "reason": "no such step", "payload": None})
    assert "no such step" in made.trace(PINS, "x")
    assert real(broken="torch")[0].trace(PINS, "x") == "no wheel"


def test_releases_and_requirements_are_asked_for_the_environments_python(real, monkeypatch):
    heard = []
    monkeypatch.setattr(world.registry, "releases", lambda *given: heard.append(given) or ("1",))
    monkeypatch.setattr(world.registry, "requirements", lambda *given: heard.append(given) or ("a",))
    made, _ = real()
    assert (made.releases("torch"), made.requirements("torch", "1")) == (("1",), ("a",))
    assert heard == [("torch", "3.11"), ("torch", "1", "3.11")]
