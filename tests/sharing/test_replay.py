"""Whether a fault is there again: what counts as the same, what is run, and that nothing is before somebody agreed."""

import hashlib
import io
import json
import shutil
import sys

import pytest
from support.hosting import BISECT, NAN_FORWARD, ORIGIN, answers, fake_python, model_folder

from repro.cli import main
from repro.cli.replay import harmless, replay
from repro.core.answer import ScriptRecord, answer_from
from repro.core.encoding import decode, encode
from repro.engine.kit import pack
from repro.report.privacy.machine import Private
from repro.run.bundle.write import bundle
from repro.sharing.replay import same_fault
from repro.sharing.replay.same_fault import Finding, Match, of_run, of_script, overall

FAULT = "import sys\nprint('torch 2.13.0+cpu, expected 68384.0, seen inf')\nsys.exit(1)\n"
OUTPUT = "torch 2.13.0+cpu, expected 68384.0, seen inf\n"
ENVIRONMENT = {
    "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "platform": "Linux-6.1-x86_64", "threads": 2,
    "distributions": {"numpy": "2.4.6"},
}  # fmt: skip


def record(text=FAULT, name="reproducer.py", **more):
    """A script's part of verdict.json."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {
        "path": name, "needs": ["torch"], "verified": True, "runs": 3, "level": "operator", "sha256": sha256,
        "checkpoint": None, "output": OUTPUT, "exit_statuses": [1, 1, 1], **more,
    }  # fmt: skip


def document(**more):
    """The content of a verdict.json that is bad, as JSON data."""
    case = {"model": "org/none", "dtype": "float16", "prompts": []}
    return {
        "schema": 2, "verdict": "bad", "reason": "float16 overflow", "kind": "nonfinite", "tool": "0.1.0",
        "command": "repro org/none --dtype float16", "model": {"id": "org/none", "revision": None}, "case": case,
        "cell": {"executable": None, "device": "cpu", "dtype": "float16", "attn": "sdpa"}, "environment": ENVIRONMENT,
        "origin": None, "steps": [{"step": "bisect", "verdict": "bad"}], "kit_sha256": pack().sha256,
        "reproducer": record(), **more,
    }  # fmt: skip


def bundled(folder, script=FAULT, files=None, **more):
    """A bundle with one script and what ``more`` puts into its verdict.json. Returns the path of the archive."""
    folder.mkdir(exist_ok=True)
    content = document(**{"reproducer": record(script), **more})
    (folder / "verdict.json").write_text(encode(content))
    (folder / "evidence.jsonl").write_text("{}\n")
    for name, text in {"reproducer.py": script, **(files or {})}.items():
        (folder / name).write_text(text)
    return bundle(folder, answer_from(content), Private()).path


class Terminal(io.StringIO):
    """A stdin that somebody sits at."""

    def isatty(self):
        return True


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """``repro replay`` in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.setitem(main.repro.commands, "replay", replay)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "hub"))
    for name, value in answers(tmp_path, environment={"payload": ENVIRONMENT}).items():
        monkeypatch.setenv(name, value)

    def run(*args, stdin=None):
        monkeypatch.setattr(sys, "stdin", Terminal(stdin) if stdin is not None else io.StringIO())
        capsys.readouterr()
        status = main.main(["replay", *map(str, args)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def python(tmp_path):
    """An interpreter that speaks the wire where it is given the kit, and runs scripts as Python does."""
    fake = fake_python(tmp_path)
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in *probes.pyz*) exec {fake} "$@";; *) exec {sys.executable} "$@";; esac\n')
    path.chmod(0o755)
    return path


def replayed(ask, path, python, *args):
    """(exit status, content of replay.json) of a replay that nobody is asked about."""
    status, stdout, _ = ask(path, "--python", python, "--yes", "--json", "--out", "out", *args)
    return status, json.loads(stdout)


# What is the same.


@pytest.mark.parametrize(
    ("statuses", "output", "answer"),
    [
        ((1, 1, 1), OUTPUT, Match.SAME),
        ((1, 1, 1), "torch 2.9.1, expected 68384.25, seen inf", Match.SAME),
        ((1, 1, 1), "torch 2.13.0+cpu, expected 68384.0, seen nan", Match.OTHER),
        ((1, 1, 1), "torch 2.13.0+cpu, expected 68384.0, seen -inf", Match.OTHER),
        ((1, 1, 1), "", Match.OTHER),
        ((1, 0, 1), OUTPUT, Match.SAME),
        ((0, 0, 0), "seen 68384.0", Match.GONE),
        ((70,), "", Match.UNKNOWN),
        ((125, 125, 125), "not implemented for 'Half'", Match.UNKNOWN),
        ((-11, -11, -11), "", Match.UNKNOWN),
        ((1, 1, None), OUTPUT, Match.UNKNOWN),
        ((2, 2, 2), "", Match.UNKNOWN),
        ((), "", Match.UNKNOWN),
    ],
)
def test_a_script_answers_by_its_status_and_by_what_it_prints(statuses, output, answer):
    assert of_script("reproducer.py", decode(ScriptRecord, record()), statuses, output, "why").answer is answer


def test_a_script_that_never_showed_the_fault_cannot_say_that_it_is_gone():
    never = decode(ScriptRecord, record(verified=False))
    assert of_script("reproducer.py", never, (0, 0, 0), "", "why").answer is Match.UNKNOWN


def test_figures_may_differ_and_names_and_words_may_not():
    same = same_fault.lines("model.layers.7 in float16: 55008.0 + 1.3e+04 is inf at (0, 163)")
    assert same_fault.lines("model.layers.7 in float16: 55007.5 + 1.4e-04 is inf at (3, 1)") == same
    for other in ("model.layers.8 in float16", "model.layers.7 in float32"):
        assert same_fault.lines(other) != same_fault.lines("model.layers.7 in float16")


def run_of(**more):
    return answer_from(document(origin=ORIGIN, **more) if "origin" not in more else document(**more))


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, Match.SAME),
        ({"origin": {**ORIGIN, "token_index": 3, "source": "modeling_gemma3.py:500"}}, Match.SAME),
        ({"origin": {**ORIGIN, "op": "aten.bmm.default"}}, Match.OTHER),
        ({"origin": {**ORIGIN, "mechanism": "invalid"}}, Match.OTHER),
        ({"origin": {**ORIGIN, "module": "model.layers.8"}}, Match.OTHER),
        ({"origin": None}, Match.UNKNOWN),
        ({"kind": "weights"}, Match.OTHER),
        ({"verdict": "good"}, Match.GONE),
        ({"verdict": "skip", "kind": None}, Match.UNKNOWN),
    ],
)
def test_a_run_is_the_same_fault_by_operator_mechanism_and_module(change, answer):
    assert of_run("repro", run_of(), run_of(**change)).answer is answer


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [(["a.weight"], ["a.weight"], Match.SAME), (["a.weight"], ["b.weight"], Match.OTHER), ([], [], Match.UNKNOWN)],
)
def test_bad_weights_are_the_same_where_the_tensors_are(before, after, answer):
    runs = [
        run_of(kind="weights", origin=None, weights={"findings": [{"tensor": name} for name in names]})
        for names in (before, after)
    ]
    assert of_run("repro", *runs).answer is answer


def test_a_remark_is_no_finding():
    remark = {"file": "a", "problem": "odd", "severity": "note"}
    bad = {"file": "b", "problem": "cut", "severity": "bad"}
    before, after = ({"findings": items} for items in ([bad], [bad, remark]))
    assert of_run("r", run_of(origin=None, files=before), run_of(origin=None, files=after)).answer is Match.SAME


def test_a_script_as_the_case_is_the_same_where_it_gives_the_same_reason():
    before, same, other = (
        run_of(origin=None, script={"verdict": "bad"}, reason=text) for text in ("row 2 is nan", "row 3 is nan", "inf")
    )
    assert of_run("r", before, same).answer is Match.SAME
    assert of_run("r", before, other).answer is Match.OTHER


def test_the_part_nearest_to_the_users_model_answers_for_all():
    """A release that keeps a model's numbers small leaves float16's addition as it is."""
    gone = Finding(what="the model", answer=Match.GONE, reason="good")
    same = Finding(what="reproducer.py", answer=Match.SAME, reason="inf")
    unknown = Finding(what="x", answer=Match.UNKNOWN, reason="no torch")
    assert overall([unknown, gone, same]).answer is Match.GONE
    assert "but reproducer.py says: same fault" in overall([unknown, gone, same]).reason
    assert overall([unknown]).answer is Match.UNKNOWN
    assert overall([]).answer is Match.UNKNOWN


# Nothing before somebody agreed.

CREATES = "import pathlib, sys\npathlib.Path({path!r}).write_text('ran')\nsys.exit(1)\n"


def strangers(tmp_path):
    """A bundle whose script leaves a trace when it is run. Returns (archive, trace)."""
    trace = tmp_path / "it-ran"
    return bundled(tmp_path / "run", CREATES.format(path=str(trace))), trace


def test_a_strangers_script_is_not_run_where_there_is_nobody_to_ask(ask, tmp_path, python):
    path, trace = strangers(tmp_path)
    status, _, stderr = ask(path, "--python", python)
    assert (status, trace.exists()) == (2, False)
    assert "there is no terminal" in stderr
    assert "--yes" in stderr


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_a_strangers_script_is_not_run_where_the_answer_is_no(ask, tmp_path, python, answer):
    path, trace = strangers(tmp_path)
    status, _, stderr = ask(path, "--python", python, stdin=answer)
    assert (status, trace.exists()) == (125, False)
    assert "nothing was run. The files are in" in stderr


@pytest.mark.parametrize("agreed", [["--yes"], []])
def test_it_is_run_where_somebody_agreed(ask, tmp_path, python, agreed):
    path, trace = strangers(tmp_path)
    ask(path, "--python", python, *agreed, stdin="y\n")
    assert trace.exists()


def test_a_bundle_that_was_tampered_with_is_not_run_even_with_yes(ask, tmp_path, python):
    path, trace = strangers(tmp_path)
    content = path.read_bytes()
    place = content.find(b"PK\x01\x02") - 20
    path.write_bytes(content[:place] + b"x" + content[place + 1 :])
    status, _, stderr = ask(path, "--python", python, "--yes")
    assert (status, trace.exists()) == (125, False)
    assert "refused" in stderr


def test_what_would_be_run_is_shown_whole_before_the_question(ask, tmp_path, python):
    path, _ = strangers(tmp_path)
    _, _, stderr = ask(path, "--python", python, stdin="n\n")
    shown = stderr.partition("Run this?")[0]
    assert "  | pathlib.Path(" in shown
    assert f"With {python} this would be run, with all your own permissions" in shown
    assert "made with: repro org/none --dtype float16" in shown
    assert "3 files, each as its manifest says" in shown


def test_a_script_too_long_to_be_read_there_is_named_with_its_place(ask, tmp_path, python):
    path = bundled(tmp_path / "run", FAULT + "# a line\n" * 300)
    _, _, stderr = ask(path, "--python", python, "--out", "out")
    assert "# a line" not in stderr
    assert "out/bundle/reproducer.py (303 lines" in stderr
    assert (tmp_path / "out" / "bundle" / "reproducer.py").is_file()


@pytest.mark.parametrize("hidden", ["\x1b[2K\x1b[1A", "\r", "\u202e", "\x00", "\u2028", "\x9b"])
def test_a_script_cannot_hide_a_line_from_who_reads_it(ask, tmp_path, python, hidden):
    path = bundled(tmp_path / "run", f"import sys  # {hidden}\nsys.exit(1)\n")
    _, _, stderr = ask(path, "--python", python)
    assert hidden not in stderr
    assert hidden.encode("unicode_escape").decode() in stderr


def test_a_tab_and_a_letter_of_any_language_stay():
    assert harmless("\tgrüße 你好") == "\tgrüße 你好"


# The kit.


def test_the_bundles_kit_is_never_run(ask, tmp_path, python):
    """A zipapp that would leave a trace, under the name of the kit."""
    trace = tmp_path / "kit-ran"
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "probes.pyz").write_text(f"#!/bin/sh\ntouch {trace}\n")
    path = bundled(folder, kit_sha256="0" * 64)
    _, stdout, stderr = ask(path, "--python", python, "--yes", "--json", "--out", "out")
    assert not trace.exists()
    assert "The bundle was made with another (000000000000...), which is not run" in stderr
    assert ENVIRONMENT.items() <= json.loads(stdout)["environment"].items()
    assert hashlib.sha256((tmp_path / "out" / "run" / "probes.pyz").read_bytes()).hexdigest() == pack().sha256


def test_a_kit_of_the_same_bytes_is_said_to_be_the_bundles_own(ask, tmp_path, python):
    _, _, stderr = ask(bundled(tmp_path / "run"), "--python", python)
    assert "the probe kit of this installation, which is the bundle's own" in stderr


# Round trips.


def test_the_same_fault_ends_with_1(ask, tmp_path, python):
    status, found = replayed(ask, bundled(tmp_path / "run"), python)
    assert (status, found["answer"], found["verdict"]) == (1, "same", "bad")
    assert found["parts"][0]["exit_statuses"] == [1, 1, 1]
    assert json.loads((tmp_path / "out" / "replay.json").read_text()) == found


def test_a_fault_that_is_gone_ends_with_0(ask, tmp_path, python):
    status, found = replayed(ask, bundled(tmp_path / "run", "print('seen 68384.0')\n"), python)
    assert (status, found["answer"]) == (0, "gone")


def test_another_fault_ends_with_125(ask, tmp_path, python):
    """It may hide whether the one that was looked for is still there."""
    status, found = replayed(ask, bundled(tmp_path / "run", FAULT.replace("inf", "nan")), python)
    assert (status, found["answer"], found["verdict"]) == (125, "other", "skip")


def test_a_script_that_cannot_be_asked_ends_with_125(ask, tmp_path, python):
    status, found = replayed(ask, bundled(tmp_path / "run", "import nothing_of_that_name\n"), python)
    assert (status, found["answer"]) == (125, "unknown")
    assert "No module named" in found["reason"]


def test_a_script_that_takes_too_long_could_not_tell(ask, tmp_path, python):
    status, found = replayed(ask, bundled(tmp_path / "run", "import time\ntime.sleep(60)\n"), python, "--timeout", 1)
    assert (status, found["answer"]) == (125, "unknown")
    assert found["parts"][0]["exit_statuses"] == [None]


def test_a_folder_that_was_unpacked_is_replayed_too(ask, tmp_path, python):
    shutil.unpack_archive(bundled(tmp_path / "run"), tmp_path / "unpacked")
    assert replayed(ask, tmp_path / "unpacked", python)[0] == 1


def test_a_run_folder_is_replayed_too(ask, tmp_path, python):
    bundled(tmp_path / "run")
    assert replayed(ask, tmp_path / "run", python)[0] == 1


def test_a_script_that_is_not_the_verified_one_is_not_run(ask, tmp_path, python):
    path = bundled(tmp_path / "run", reproducer=record("another text"))
    status, found = replayed(ask, path, python)
    assert (status, found["parts"]) == (125, [])
    assert any("verified" in note for note in found["not_run"])


def test_a_masked_script_is_known_by_the_hash_of_its_original(ask, tmp_path, python):
    folder, text = tmp_path / "run", FAULT.replace("import sys", "import sys  # /home/alice/x")
    bundled(folder, text)
    path = bundle(folder, answer_from(document(reproducer=record(text))), Private(home="/home/alice")).path
    status, found = replayed(ask, path, python)
    assert (status, found["answer"]) == (1, "same")
    assert "alice" not in (tmp_path / "out" / "bundle" / "reproducer.py").read_text()


def test_further_scripts_are_run_the_nearest_to_the_model_first(ask, tmp_path, python):
    mended = "print('seen 68384.0')\n"
    module = record(mended, "reproducer_module.py", level="module")
    path = bundled(tmp_path / "run", files={"reproducer_module.py": mended}, reproducer=record(others=[module]))
    status, found = replayed(ask, path, python)
    assert [part["what"] for part in found["parts"]] == ["reproducer_module.py", "reproducer.py"]
    assert (status, found["answer"]) == (0, "gone")


def test_the_script_of_a_cell_is_found_by_its_hash(ask, tmp_path, python):
    folder = tmp_path / "run"
    (folder / "torch-2.4.1").mkdir(parents=True)
    (folder / "torch-2.5.1").mkdir()
    (folder / "torch-2.4.1" / "reproducer.py").write_text("print('another')\n")
    (folder / "torch-2.5.1" / "reproducer.py").write_text(FAULT)
    cells = [{"id": name, "folder": name, "verdict": "bad", "reason": "r"} for name in ("torch-2.4.1", "torch-2.5.1")]
    path = bundled(folder, "print('of nobody')\n", cells=cells, reproducer=record())
    status, found = replayed(ask, path, python)
    assert (status, found["parts"][0]["what"]) == (1, "torch-2.5.1/reproducer.py")


def test_a_script_that_needs_the_model_says_so_where_it_is_not_here(ask, tmp_path, python):
    path = bundled(tmp_path / "run", reproducer=record(level="model", usage=["my-model"]))
    status, found = replayed(ask, path, python)
    assert status == 125
    assert "reproducer.py needs the model, which is not here. Give its place with --model." in found["not_run"]


def test_a_model_is_not_run_without_the_file_of_its_inputs(ask, tmp_path, python):
    asked = {"model": "my-model", "inputs": str(tmp_path / "in.npz")}
    path = bundled(tmp_path / "run", case=asked)
    _, found = replayed(ask, path, python, "--model", model_folder(tmp_path))
    assert any("in.npz, is not here, and other inputs would ask another question" in note for note in found["not_run"])


def test_a_script_is_given_the_model_where_it_is_here(ask, tmp_path, python):
    text = FAULT.replace("import sys", "import sys\nassert sys.argv[1].endswith('/model')")
    path = bundled(tmp_path / "run", text, reproducer=record(text, level="model", usage=["my-model"]))
    _, found = replayed(ask, path, python, "--model", model_folder(tmp_path))
    assert found["parts"][1]["answer"] == "same fault"


def test_a_script_that_was_not_kept_is_not_missed(ask, tmp_path, python):
    failed = {**record(), "path": None, "verified": False}
    status, found = replayed(ask, bundled(tmp_path / "run", reproducer=record(others=[failed])), python)
    assert (status, len(found["parts"])) == (1, 1)
    assert not any("verified" in note for note in found["not_run"])


# What differs.


def test_what_differs_in_the_environment_is_said(ask, tmp_path, python):
    there = {**ENVIRONMENT, "torch": "2.4.1", "distributions": {"numpy": "1.26.4"}, "threads": 8}
    path = bundled(tmp_path / "run", environment=there)
    _, found = replayed(ask, path, python)
    assert found["differences"] == [
        {"name": "torch", "there": "2.4.1", "here": "2.13.0"},
        {"name": "threads", "there": 8, "here": 2},
        {"name": "numpy", "there": "1.26.4", "here": "2.4.6"},
    ]
    _, stdout, _ = ask(path, "--python", python, "--yes")
    assert "Differences (there -> here): torch 2.4.1 -> 2.13.0, numpy 1.26.4 -> 2.4.6, and 1 more\n" in stdout


def test_of_many_differences_that_are_no_versions_the_first_are_named(ask, tmp_path, python):
    there = {**ENVIRONMENT, "distributions": {**ENVIRONMENT["distributions"], **{f"p{n}": "1" for n in range(5)}}}
    _, stdout, _ = ask(bundled(tmp_path / "run", environment=there), "--python", python, "--yes")
    assert "(there -> here): p0 1 -> none, p1 1 -> none, p2 1 -> none, and 2 more\n" in stdout


def test_nothing_that_differs_is_said_too(ask, tmp_path, python):
    _, stdout, _ = ask(bundled(tmp_path / "run"), "--python", python, "--yes")
    assert "No recorded difference" in stdout


def test_an_environment_that_was_not_recorded_is_not_compared(ask, tmp_path, python):
    _, found = replayed(ask, bundled(tmp_path / "run", environment=None), python)
    assert found["differences"] is None


# The model itself.


def local(tmp_path, **more):
    """A bundle of a model that lies here, with an origin."""
    model = model_folder(tmp_path)
    case = {"model": str(model), "dtype": "float16", "prompts": ["a"]}
    origin = {"model": {"id": str(model), "revision": None}, "origin": ORIGIN, "reproducer": None}
    return bundled(tmp_path / "run", **{"case": case, **origin, **more})


BAD = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "reason": "b", "payload": BISECT}}


@pytest.fixture
def model_answers(tmp_path, monkeypatch, ask):
    """Sets what the kit answers about the model."""

    def answer(**steps):
        for name, value in answers(tmp_path, environment={"payload": ENVIRONMENT}, **steps).items():
            monkeypatch.setenv(name, value)

    return answer


def test_a_model_that_is_here_is_run_again(ask, tmp_path, python, model_answers):
    model_answers(**BAD)
    local(tmp_path)
    status, found = replayed(ask, tmp_path / "run", python)
    assert (status, found["answer"]) == (1, "same")
    assert found["parts"][0]["what"].startswith("repro bisect ")
    assert "operator aten.add.Tensor; mechanism overflow; module model.layers.7" in found["reason"]


def test_a_model_with_its_fault_elsewhere_has_another_fault(ask, tmp_path, python, model_answers):
    moved = {**BISECT, "origin": {**ORIGIN, "op": "aten.bmm.default"}}
    model_answers(**{**BAD, "bisect": {"verdict": "bad", "reason": "b", "payload": moved}})
    local(tmp_path)
    status, found = replayed(ask, tmp_path / "run", python)
    assert (status, found["answer"]) == (125, "other")
    assert "the operator was aten.add.Tensor and is aten.bmm.default" in found["reason"]


def test_a_model_that_is_sound_here_is_gone(ask, tmp_path, python, model_answers):
    model_answers()
    local(tmp_path)
    assert replayed(ask, tmp_path / "run", python)[0] == 0


def test_a_model_of_another_machine_is_asked_for(ask, tmp_path, python, model_answers):
    """In a bundle its path is masked, so nobody's is taken for it."""
    model_answers(**BAD)
    path = local(tmp_path)
    status, found = replayed(ask, path, python)
    assert (status, found["parts"]) == (125, [])
    assert any("Give its place with --model." in note for note in found["not_run"])
    shutil.rmtree(tmp_path / "out")
    assert replayed(ask, path, python, "--model", tmp_path / "model")[0] == 1


def test_a_model_of_the_hub_is_run_where_its_cache_has_it(ask, tmp_path, python, model_answers):
    model_answers(**BAD)
    path = bundled(tmp_path / "run", origin=ORIGIN, reproducer=None)
    assert replayed(ask, path, python)[1]["parts"] == []
    shutil.rmtree(tmp_path / "out")
    snapshot = tmp_path / "hub" / "models--org--none" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert replayed(ask, path, python)[1]["parts"][0]["what"].startswith("repro bisect org/none --dtype float16")


def test_a_folder_with_the_name_of_the_hubs_model_is_not_taken_for_it(ask, tmp_path, python):
    (tmp_path / "hub" / "models--org--none" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "hub" / "models--org--none" / "snapshots" / "abc" / "config.json").write_text("{}")
    (tmp_path / "org" / "none").mkdir(parents=True)
    (tmp_path / "org" / "none" / "config.json").write_text("{}")
    _, found = replayed(ask, bundled(tmp_path / "run", reproducer=None), python)
    assert any("has the name org/none" in note for note in found["not_run"])


def test_a_model_with_code_of_its_own_is_not_run(ask, tmp_path, python):
    case = {"model": str(model_folder(tmp_path)), "prompts": [], "trust_remote_code": True}
    bundled(tmp_path / "run", case=case)
    _, found = replayed(ask, tmp_path / "run", python)
    assert any("its own code" in note for note in found["not_run"])


@pytest.mark.parametrize(("prompt", "parts"), [("(withheld)", 0), ("(token ids 2, 7)", 0), ("the the the", 1)])
def test_a_model_whose_prompts_are_withheld_is_run_with_a_synthetic_one_only(
    ask, tmp_path, python, model_answers, prompt, parts
):
    model_answers(**BAD)
    case = {"model": str(model_folder(tmp_path)), "prompts": [prompt]}
    local(tmp_path, case=case, private_prompts=True)
    _, found = replayed(ask, tmp_path / "run", python)
    assert len(found["parts"]) == parts
    assert any("its prompts are withheld" in note for note in found["not_run"]) == (not parts)


def test_a_script_that_a_verdict_names_by_its_path_is_not_run(ask, tmp_path, python):
    trace = tmp_path / "it-ran"
    (tmp_path / "x.py").write_text(f"open({str(trace)!r}, 'w')")
    bundled(tmp_path / "run", case={"model": str(tmp_path / "x.py"), "prompts": []})
    replayed(ask, tmp_path / "run", python)
    assert not trace.exists()


# What cannot be replayed.


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"verdict": "good"}, "there is no fault to look for"),
        ({"case": {"model": "m", "dtype": "float8; rm -rf"}}, "asks for dtype"),
    ],
)
def test_a_verdict_that_asks_for_nothing_known_is_refused(ask, tmp_path, python, more, words):
    status, _, stderr = ask(bundled(tmp_path / "run", **more), "--python", python, "--yes")
    assert status == 125
    assert words in stderr


def test_a_folder_that_holds_something_is_not_written_to(ask, tmp_path, python):
    path = bundled(tmp_path / "run")
    status, _, stderr = ask(path, "--python", python, "--yes", "--out", "run")
    assert status == 2
    assert "is not empty" in stderr


@pytest.mark.parametrize("args", [["nothing.zip"], ["run", "--python", "no-such-python"]])
def test_wrong_usage_ends_with_2(ask, tmp_path, args):
    bundled(tmp_path / "run")
    assert ask(*args, "--yes")[0] == 2
