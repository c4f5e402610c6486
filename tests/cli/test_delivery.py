"""`repro report` and `repro lint` as commands, and the newest release tried with a script that really runs."""

import contextlib
import json
import sys
import zipfile
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from corpus.faults import BY_NAME
from support.hosting import repro as run_repro
from support.injected_run import FAULT, MODULE, NEWEST, OUTPUT, change, run_folder

from repro.cli.share import lint, report
from repro.core.errors import BuildError, ReproError, UsageError
from repro.core.records import Cell, Outcome, Recipe
from repro.environments import registry
from repro.environments.store import Standing
from repro.sharing import latest as latest_module
from repro.sharing import lint as lint_module
from repro.sharing.forms.folder import open_run
from repro.sharing.forms.forms import forms
from repro.sharing.latest import try_latest

SOUND = "import sys\n\nprint('expected 1.0, seen 1.0')\nsys.exit(0)\n"
CANNOT = "import sys\n\nsys.exit(125)\n"
FLAKY = "import random\nimport sys\n\nsys.exit(random.SystemRandom().randrange(2**30))\n"


@pytest.fixture(autouse=True)
def newest_releases(monkeypatch):
    """A registry that has the run's releases and nothing newer, and never pip."""
    monkeypatch.setattr(lint_module, "newest", lambda package: NEWEST[package])
    monkeypatch.setattr(latest_module, "newest", lambda package: NEWEST[package])
    monkeypatch.setattr(registry, "requirements", lambda *_: ())


def run(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


# --- report ------------------------------------------------------------------------------------------------------


def test_the_report_of_the_owner_is_made_and_its_path_and_url_are_printed(tmp_path):
    said = run(report, run_folder(tmp_path))
    path, url, *_ = said.output.splitlines()
    assert said.exit_code == 0
    assert path == str(tmp_path / "report-transformers.md")
    assert (tmp_path / "report-transformers.md").is_file()
    assert url.startswith("https://github.com/huggingface/transformers/issues/new?template=bug-report.yml&title=")
    assert "tick: My own modified scripts" in said.output


def test_verdict_json_stands_for_its_folder(tmp_path):
    assert run(report, run_folder(tmp_path) / "verdict.json").exit_code == 0
    assert (tmp_path / "report-transformers.md").is_file()


def test_a_report_too_long_for_a_url_is_given_field_by_field_and_said_so(tmp_path):
    said = run(report, run_folder(tmp_path, script=FAULT + "x = 1\n" * 3000))
    assert "too long for a URL: paste each file of" in said.output
    names = sorted(path.name for path in (tmp_path / "report-transformers").iterdir())
    assert names[:2] == ["00-title.md", "01-System-Info.md"]
    assert "05-Reproduction.md" in names


def test_blocks_of_another_time_do_not_stay(tmp_path):
    run(report, run_folder(tmp_path, script=FAULT + "x = 1\n" * 3000))
    run(report, run_folder(tmp_path))
    assert not (tmp_path / "report-transformers").exists()


def test_the_report_as_json(tmp_path):
    said = json.loads(run(report, run_folder(tmp_path), "--for", "pytorch", "--json").output)
    assert said["project"] == "pytorch"
    assert said["report"] == str(tmp_path / "report-pytorch.md")
    assert said["url"].startswith("https://github.com/pytorch/pytorch/issues/new?title=")
    assert said["blocks"] is None


def test_without_an_owner_no_form_is_filled_unless_it_is_asked_for(tmp_path):
    run_folder(tmp_path, owner=None)
    said = run(report, tmp_path)
    assert isinstance(said.exception, ReproError)
    assert said.exception.exit_status == 125
    assert list(tmp_path.glob("report-*")) == []
    assert run(report, tmp_path, "--for", "transformers").exit_code == 0


def test_nothing_private_of_the_run_is_in_its_report(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    run_folder(tmp_path, reproducer={"output": "read /home/somebody/secret/model\n"})
    change(tmp_path, headline="NaN in /home/somebody/models/x with hf_" + "a" * 34)
    run(report, tmp_path)
    said = (tmp_path / "report-transformers.md").read_text(encoding="utf-8")
    assert "somebody" not in said
    assert "hf_aaa" not in said


# --- lint --------------------------------------------------------------------------------------------------------


def test_a_report_that_is_fit_to_be_posted_ends_with_0(tmp_path):
    run_folder(tmp_path, module=MODULE)
    (tmp_path / "words.md").write_text("I was trying it out.", encoding="utf-8")
    run(report, tmp_path)
    said = run(lint, tmp_path)
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[-1] == "passed"


def test_a_report_that_would_come_back_ends_with_1(tmp_path):
    run(report, run_folder(tmp_path, script=None))
    said = run(lint, tmp_path)
    assert said.exit_code == 1
    assert said.output.splitlines()[0].startswith("refused: script: ")
    assert said.output.splitlines()[-1] == "refused"


def test_problems_as_json(tmp_path):
    run(report, run_folder(tmp_path, script=None))
    said = run(lint, tmp_path, "--json")
    found = json.loads(said.output)
    assert said.exit_code == 1
    assert found["verdict"] == "bad"
    assert {problem["kind"] for problem in found["problems"]} == {"refused"}


@pytest.mark.parametrize("command", [report, lint])
def test_a_folder_that_is_no_run_is_wrong_usage(tmp_path, command):
    said = run(command, tmp_path)
    assert isinstance(said.exception, UsageError)
    assert said.exception.exit_status == 2


# --- the newest release ------------------------------------------------------------------------------------------


class Store:
    """Environments: those that stand, with this very interpreter in each; others cannot be built."""

    def __init__(self, *pins):
        self.recipes = [Recipe("built", "3.11", "cpu", "a test", item) for item in pins]
        self.asked = []

    def standing(self):
        return tuple(Standing(recipe, None, 0, 0) for recipe in self.recipes)

    def built(self, recipe):
        return Cell(sys.executable)

    def build(self, recipe, progress, say):
        self.asked.append(recipe)
        raise BuildError("no wheel for this machine")


ANNOUNCER = SimpleNamespace(line=lambda text: None, task=lambda name: contextlib.nullcontext())


def tried(folder, store, project="pytorch", newest="2.99.0", monkeypatch=None, **options):
    """The answer of a script in the newest release, and the report after that."""
    monkeypatch.setattr(latest_module, "newest", lambda package: newest)
    found = open_run(run_folder(folder, **options))
    answer = try_latest(found, forms()[project], store, ANNOUNCER)
    run(report, folder, "--for", project)
    return answer, (folder / f"report-{project}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "verdict", "words"),
    [
        (FAULT, "bad", "The newest release, 2.99.0, is bad: "),
        (SOUND, "good", "The newest release, 2.99.0, is good: "),
        (CANNOT, "skip", "The newest release, 2.99.0, could not be tested: "),
        (FLAKY, "skip", "3 runs did not agree"),
    ],
)
def test_the_script_is_run_in_the_newest_release_and_the_report_says_how(tmp_path, monkeypatch, script, verdict, words):
    answer, said = tried(tmp_path, Store({"torch": "2.99.0"}), monkeypatch=monkeypatch, script=script)
    assert answer.verdict.value == verdict
    assert words in said
    assert "No nightly build was tried." in said
    assert said.count("2.99.0, ") == 1


def test_what_was_tried_is_kept_with_what_the_script_printed(tmp_path, monkeypatch):
    tried(tmp_path, Store({"torch": "2.99.0"}), monkeypatch=monkeypatch)
    kept = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert (kept["package"], kept["version"], kept["verdict"]) == ("torch", "2.99.0", "bad")
    assert kept["output"] == OUTPUT.strip()
    assert kept["exit_statuses"] == [1, 1, 1]


def test_an_environment_that_cannot_be_built_is_a_skip(tmp_path, monkeypatch):
    store = Store({"torch": "2.13.0"})
    answer, said = tried(tmp_path, store, monkeypatch=monkeypatch)
    assert (answer.verdict, answer.reason) == (Outcome.SKIP, "it does not install: no wheel for this machine")
    assert [dict(recipe.pins) for recipe in store.asked] == [{"torch": "2.99.0"}]
    assert "The newest release, 2.99.0, could not be tested: it does not install" in said


def test_transformers_is_tried_with_the_script_that_uses_it_and_the_runs_torch(tmp_path, monkeypatch):
    store = Store()
    options = {"monkeypatch": monkeypatch, "module": MODULE, "newest": "9.0.0"}
    answer, _ = tried(tmp_path, store, "transformers", **options)
    assert answer.script == "reproducer_module.py"
    assert [dict(recipe.pins) for recipe in store.asked] == [{"transformers": "9.0.0", "torch": "2.13.0"}]


def test_a_torch_that_the_newest_transformers_refuses_is_replaced_by_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "requirements", lambda *_: ("torch>=4",))
    store = Store()
    tried(tmp_path, store, "transformers", monkeypatch=monkeypatch, module=MODULE, newest="9.0.0")
    assert [dict(recipe.pins) for recipe in store.asked] == [{"transformers": "9.0.0", "torch": "9.0.0"}]


def test_a_run_in_the_newest_release_is_the_answer_itself(tmp_path, monkeypatch):
    store = Store()
    answer, said = tried(tmp_path, store, newest="2.13.0", monkeypatch=monkeypatch)
    assert (answer.verdict, answer.reason) == (Outcome.BAD, "the run itself used it")
    assert store.asked == []
    assert "The newest release, 2.13.0, is bad: the run itself used it." in said


@pytest.mark.parametrize("reproducer", [{"needs": ["transformers"]}, {"verified": False}])
def test_without_a_verified_script_of_the_package_it_cannot_be_tried(tmp_path, monkeypatch, reproducer):
    with pytest.raises(UsageError, match=r"no verified script of .* uses torch"):
        tried(tmp_path, Store({"torch": "2.99.0"}), monkeypatch=monkeypatch, reproducer=reproducer)


def test_answers_about_two_packages_are_both_kept(tmp_path, monkeypatch):
    for project, package in (("pytorch", "torch"), ("transformers", "transformers")):
        monkeypatch.setattr(latest_module, "newest", lambda package: "2.99.0")
        found = open_run(run_folder(tmp_path, module=MODULE))
        try_latest(
            found, forms()[project], Store({"torch": "2.99.0"}, {package: "2.99.0", "torch": "2.13.0"}), ANNOUNCER
        )
    for project in ("pytorch", "transformers"):
        run(report, tmp_path, "--for", project)
        assert "The newest release, 2.99.0, is bad" in (tmp_path / f"report-{project}.md").read_text(encoding="utf-8")


def test_an_answer_about_another_script_is_not_repeated(tmp_path, monkeypatch):
    tried(tmp_path, Store({"torch": "2.99.0"}), monkeypatch=monkeypatch)
    run(report, run_folder(tmp_path, script=SOUND), "--for", "pytorch")
    assert "2.99.0" not in (tmp_path / "report-pytorch.md").read_text(encoding="utf-8")


# --- a search over releases --------------------------------------------------------------------------------------


VERSIONS = {"package": "torch", "direction": "regression", "last_good": "2.4.1", "first_bad": "2.5.0"}


def test_a_search_is_kept_and_stands_in_each_later_report_until_another_one_is_given(tmp_path):
    bad, path = run_folder(tmp_path / "bad"), tmp_path / "bad" / "report-pytorch.md"
    found = run_folder(tmp_path / "found", script=None, versions=VERSIONS)
    other = run_folder(tmp_path / "other", script=None, versions={**VERSIONS, "first_bad": "2.6.0"})
    run(report, bad, "--for", "pytorch", "--search", found)
    for options, said in (([], "bad in 2.5.0."), (["--search", other], "bad in 2.6.0."), ([], "bad in 2.6.0.")):
        assert run(report, bad, "--for", "pytorch", *options).exit_code == 0
        assert f"**Regression:** good in torch 2.4.1, {said}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"versions": None}, "is no search over releases"), ({"case": {"model": "other"}}, "is a search with other")],
)
def test_what_is_no_search_of_this_run_is_refused_and_nothing_kept(tmp_path, changed, words):
    found = run_folder(tmp_path / "found", script=None, **{"versions": VERSIONS, **changed})
    with pytest.raises(UsageError, match=words):
        CliRunner().invoke(report, [str(run_folder(tmp_path / "bad")), "--search", str(found)],
                           catch_exceptions=False, standalone_mode=False)  # fmt: skip
    assert not (tmp_path / "bad" / "search.json").exists()


def test_a_search_of_what_the_folder_held_before_is_not_used(tmp_path):
    bad = run_folder(tmp_path / "bad")
    run(report, bad, "--for", "pytorch", "--search", run_folder(tmp_path / "found", script=None, versions=VERSIONS))
    run(report, run_folder(bad, case={"model": "other"}), "--for", "pytorch")
    assert "2.4.1" not in (bad / "report-pytorch.md").read_text(encoding="utf-8")


# --- a real run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """An injected model, run by the command itself."""
    folder = tmp_path_factory.mktemp("real")
    BY_NAME["llama-residual-overflow"].build(folder / "model")
    done = run_repro(folder / "model", "--dtype", "float16", "--out", folder / "run", cwd=folder)
    assert done.returncode == 1, done.stderr
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("project", sorted(forms()))
def test_a_real_run_gives_a_report_in_which_every_required_field_is_filled(real, project, monkeypatch):
    monkeypatch.setattr(lint_module, "newest", lambda package: "0")
    (real / "words.md").write_text("I ran it in half precision.", encoding="utf-8")
    assert run(report, real, "--for", project).exit_code == 0
    problems = json.loads(run(lint, real, "--for", project, "--json").output)["problems"]
    # Its environment has whatever releases this test runs in, none of which is the newest of this registry. The
    # caller asks for float16 of a file of float32: no project's fault, and no script for PyTorch: what the operator is
    # given is near the limit of float16, and the right result is beyond it.
    refused = [problem["what"] for problem in problems if problem["kind"] == "refused"]
    of_pytorch = forms()[project].package == "torch" and forms()[project].rules is not None
    assert refused == [*(["script", "script"] if of_pytorch else []), "latest release", "owner"]


def test_the_bundle_of_a_real_run_has_the_report_too(real):
    run(report, real, "--for", "pytorch")
    with zipfile.ZipFile(real / "bundle.zip") as bundle:
        assert bundle.read("report-pytorch.md") == (real / "report-pytorch.md").read_bytes()


def test_the_report_of_a_real_run_has_the_facts_of_this_environment(real):
    import torch

    run(report, real, "--for", "pytorch")
    said = (real / "report-pytorch.md").read_text(encoding="utf-8")
    assert f"PyTorch version: {torch.__version__}\n" in said
    assert f"Is debug build: {torch.version.debug}\n" in said
    assert "aten.add.Tensor" in said
    assert str(real) not in said
