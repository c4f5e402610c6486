"""What lint refuses: each defect injected in a run that passes without it."""

import json
import re
import zipfile

import pytest
from support.hosting import BISECT, observation
from support.injected_run import FAULT, MODULE, NEWEST, change, run_folder, verdict

from repro.core.answer import ScriptRecord
from repro.core.encoding import replace, to_json
from repro.core.errors import FetchError
from repro.core.records import Outcome
from repro.core.sweep_answers import Differences
from repro.report.privacy.machine import Private
from repro.sharing import lint as lint_module
from repro.sharing.forms.fill import PLACEHOLDER
from repro.sharing.forms.folder import file, open_run
from repro.sharing.forms.forms import form_of, forms
from repro.sharing.lint import lint
from repro.sharing.lint import verdict as verdict_of
from repro.sharing.rules import of_body, of_script

FORMS = sorted(forms())
PRIVATE = Private(home="/home/somebody", user="somebody", host="their-laptop")
TOKEN = "hf_" + "a" * 34


@pytest.fixture(autouse=True)
def newest(monkeypatch):
    """The registry's newest releases are those that the run has."""
    monkeypatch.setattr(lint_module, "newest", lambda package: NEWEST[package])


def filed(folder, project, **options):
    """A run that names the project, with its report, the reporter's own words in it, and a script with what the
    project works on.
    """
    options = {"owner": forms()[project].owner or project, **options}
    if project == "transformers":
        options = {"module": MODULE, **options}
    rules = forms()[project].rules
    if rules and rules.normal_range:
        options = {"answer": result(4.5), **options}
    run = open_run(run_folder(folder / "run", **options))
    (run.folder / "words.md").write_text("I was trying it out.", encoding="utf-8")
    file(run, forms()[project], PRIVATE)
    return run


def result(value):
    """The answer of the run, whose operator has this right result in float16."""
    origin = {**BISECT["origin"], "reference_value": value}
    return verdict(observation("bisect", "bad", payload={**BISECT, "origin": origin}))


def look(run, project=None):
    """The problems, with verdict.json as it is now."""
    return lint(open_run(run.folder), (forms()[project],) if project else (), PRIVATE)


def refused(run, project=None):
    return [problem for problem in look(run, project) if problem.kind == "refused"]


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("project", FORMS)
def test_a_sound_report_passes(tmp_path, project):
    form = forms()[project]
    run = filed(tmp_path, project, owner=form.owner or project, module=MODULE)
    problems = look(run, project)
    assert verdict_of(problems) is Outcome.GOOD
    to_tick = any(field.required and field.boxes for field in form.fields)
    assert [problem.what for problem in problems] == ([f"report-{project}.md"] if to_tick else [])


@pytest.mark.parametrize("project", FORMS)
def test_without_a_script_it_is_refused(tmp_path, project):
    found = refused(filed(tmp_path, project, script=None), project)
    assert [(problem.what, problem.found) for problem in found] == [("script", "no script shows the fault by itself")]


@pytest.mark.parametrize("project", FORMS)
def test_a_script_that_is_not_verified_is_refused(tmp_path, project):
    run = filed(tmp_path, project, module=None, reproducer={"verified": False, "reason": "it ended with 0"})
    problem = refused(run, project)[0]
    assert problem.found == "reproducer.py is not verified (it ended with 0)"


def test_a_script_that_reads_a_file_of_the_users_is_refused(tmp_path):
    run = filed(tmp_path, "pytorch", reproducer={"reads": ["data/x.npz"]})
    assert "reads data/x.npz, which nobody else has" in refused(run, "pytorch")[0].found
    assert "It reads `data/x.npz`, not handed on with it." in (run.folder / "report-pytorch.md").read_text("utf-8")


@pytest.mark.parametrize("project", FORMS)
@pytest.mark.parametrize("gone", ["text", "heading"])
def test_a_required_field_that_is_empty_or_missing_is_refused(tmp_path, project, gone):
    run, form = filed(tmp_path, project), forms()[project]
    required = [field for field in form.fields if field.required and not field.boxes]
    path = run.folder / f"report-{project}.md"
    whole = path.read_text(encoding="utf-8")
    for field in required:
        pattern = rf"(?ms)^### {re.escape(field.label)}\n\n.*?(?=^### |\Z)"
        left = f"### {field.label}\n\n<!-- nothing -->\n\n" if gone == "text" else ""
        path.write_text(re.sub(pattern, lambda _, left=left: left, whole, count=1), encoding="utf-8")
        found = [problem.found for problem in refused(run, project)]
        assert f"{field.label!r} is required, and it is {'empty' if gone == 'text' else 'missing'}" in found


@pytest.mark.parametrize("project", FORMS)
def test_a_latest_release_that_was_not_tried_is_refused(tmp_path, project, monkeypatch):
    run = filed(tmp_path, project)
    monkeypatch.setattr(lint_module, "newest", lambda package: "99.1")
    (problem,) = refused(run, project)
    package = forms()[project].package
    assert problem.found == f"{package} 99.1 was not tried; tried: {package} {NEWEST[package]}"
    assert "--try-latest" in problem.to_do


def answer_of(run, version, **more):
    """latest.json of the run's first script."""
    record = json.loads((run.folder / "verdict.json").read_text(encoding="utf-8"))["reproducer"]
    found = {"schema": 2, "package": "torch", "version": version, "verdict": "bad", "reason": "run 3 times", **more}
    found = {"script_sha256": record["sha256"], **found}
    (run.folder / "latest.json").write_text(json.dumps(found), encoding="utf-8")


def row(version, verdict):
    return {"id": f"torch-{version}", "reason": "a test", "torch": version, "verdict": verdict}


def probe(verdict, **pins):
    return {"version": "2.14.0", "reason": "a test", "pins": pins, "verdict": verdict}


def search(*probes):
    return {"versions": {"package": "torch", "probes": probes}}


@pytest.mark.parametrize(
    ("more", "passes"),
    [
        ({"cells": [row("2.14.0+cpu", "bad")]}, True),
        ({"cells": [row("2.14.0", "good"), row("2.14.0+cpu", "bad")]}, True),
        ({"cells": [row("2.14.0", "skip")]}, False),
        (search(probe("bad", torch="2.14.0")), True),
        (search(probe("good", torch="2.14.0"), probe("bad", torch="2.14.0")), True),
        (search(probe("good", torch="2.14.0")), False),
        (search(probe("skip", torch="2.14.0")), False),
        (search(probe("bad", transformers="2.14.0")), False),
    ],
)
def test_a_matrix_or_a_search_may_have_tried_it(tmp_path, monkeypatch, more, passes):
    run = filed(tmp_path, "pytorch")
    change(run.folder, **more)
    monkeypatch.setattr(lint_module, "newest", lambda package: "2.14.0")
    assert (refused(run, "pytorch") == []) is passes


@pytest.mark.parametrize(
    ("more", "passes"),
    [
        ({}, True),
        ({"verdict": "good"}, False),
        ({"verdict": "skip"}, False),
        ({"version": "2.13.5"}, False),
        ({"package": "transformers"}, False),
        ({"script_sha256": "0" * 64}, False),
    ],
)
def test_latest_json_counts_for_the_very_script_and_release(tmp_path, monkeypatch, more, passes):
    run = filed(tmp_path, "pytorch")
    answer_of(run, **{"version": "2.14.0", **more})
    monkeypatch.setattr(lint_module, "newest", lambda package: "2.14.0")
    assert (refused(run, "pytorch") == []) is passes


@pytest.mark.parametrize("where", ["cells", "latest.json"])
def test_a_fault_that_is_gone_in_the_latest_release_is_refused(tmp_path, monkeypatch, where):
    run = filed(tmp_path, "pytorch")
    if where == "cells":
        change(run.folder, cells=[row("2.14.0+cpu", "good"), row("2.13.0", "bad")])
    else:
        answer_of(run, "2.14.0", verdict="good")
    monkeypatch.setattr(lint_module, "newest", lambda package: "2.14.0")
    (problem,) = refused(run, "pytorch")
    assert problem.found == "the fault is gone in torch 2.14.0"


def test_where_the_registry_cannot_be_asked_it_cannot_be_told(tmp_path, monkeypatch):
    def unreachable(package):
        raise FetchError("no answer")

    run = filed(tmp_path, "pytorch")
    monkeypatch.setattr(lint_module, "newest", unreachable)
    problems = look(run, "pytorch")
    assert verdict_of(problems) is Outcome.SKIP
    assert "tried: torch 2.13.0" in next(problem.found for problem in problems if problem.kind == "unknown")


def test_what_is_refused_outweighs_what_could_not_be_told(tmp_path, monkeypatch):
    def unreachable(package):
        raise FetchError("no answer")

    monkeypatch.setattr(lint_module, "newest", unreachable)
    assert verdict_of(look(filed(tmp_path, "pytorch", script=None), "pytorch")) is Outcome.BAD


@pytest.mark.parametrize("project", FORMS)
def test_a_report_beyond_the_limit_is_refused(tmp_path, project):
    run = filed(tmp_path, project)
    edit(run.folder / f"report-{project}.md", "I was trying it out.", "long " * 14_000)
    (problem,) = refused(run, project)
    assert "GitHub takes 65,536" in problem.found


def test_a_title_beyond_the_limit_is_refused(tmp_path):
    run = filed(tmp_path, "vllm")
    (run.folder / "report-vllm" / "00-title.md").write_text("t" * 257 + "\n", encoding="utf-8")
    (problem,) = refused(run, "vllm")
    assert (problem.what, problem.found) == ("title", "257 characters, and GitHub takes 256")


def test_an_attachment_beyond_the_limit_is_refused(tmp_path):
    run = filed(tmp_path, "pytorch")
    with zipfile.ZipFile(run.folder / "bundle.zip", "w") as bundle:
        bundle.writestr("plots/a.png", bytes(25_000_001))
    (problem,) = refused(run, "pytorch")
    assert problem.what == "bundle.zip"


def test_an_attachment_that_is_no_archive_is_refused(tmp_path):
    run = filed(tmp_path, "pytorch")
    (run.folder / "bundle.zip").write_bytes(b"PK\x03\x04 cut off")
    (problem,) = refused(run, "pytorch")
    assert problem.what == "bundle.zip"


def test_a_report_that_is_not_utf_8_is_looked_at_all_the_same(tmp_path):
    run = filed(tmp_path, "pytorch")
    path = run.folder / "report-pytorch.md"
    path.write_bytes(path.read_bytes() + b"\xff")
    assert refused(run, "pytorch") == []


def test_an_attachment_that_is_named_and_not_there_is_noted(tmp_path):
    run = filed(tmp_path, "pytorch", script=FAULT + "x = 1\n" * 12_000)
    found = [problem for problem in look(run, "pytorch") if problem.what == "bundle.zip"]
    assert [problem.kind for problem in found] == ["note"]


@pytest.mark.parametrize("project", FORMS)
@pytest.mark.parametrize(
    "secret",
    [
        TOKEN, "/home/somebody/model", "on their-laptop", "pwd=Tr0ub4dor", "serve --api-key Tr0ub4dor9 --port 8000",
        "PASSWORD IS Tr0ub4dor", "password: 'correct horse battery'", "from db7.acme.internal", "at db7.acme.corp:5432",
        "git@code.acme.example:secret-team/model.git", "?folder=%2Fhome%2Fsomebody%2Fmodel", '"user": "jdoe"',
    ],
)  # fmt: skip
def test_something_private_in_the_report_is_refused(tmp_path, project, secret):
    run = filed(tmp_path, project)
    edit(run.folder / f"report-{project}.md", "I was trying it out.", f"I was trying it out {secret} there.")
    (problem,) = refused(run, project)
    assert problem.what == f"report-{project}.md"
    assert secret not in problem.line


def test_something_private_in_the_script_is_refused(tmp_path):
    run = filed(tmp_path, "pytorch", script=FAULT + f'KEY = "{TOKEN}"\n')
    report = run.folder / "report-pytorch.md"
    assert TOKEN not in report.read_text(encoding="utf-8")
    assert "not byte for byte the file that was run" in report.read_text(encoding="utf-8")
    assert "reproducer.py" in [problem.what for problem in refused(run, "pytorch")]


@pytest.mark.parametrize("name", ["report.md", "report.html", "report-vllm/02-Describe-the-bug.md"])
def test_every_file_that_is_to_be_posted_is_looked_at(tmp_path, name):
    run = filed(tmp_path, "vllm")
    path = run.folder / name
    path.write_text(f"a\nb {TOKEN}\n", encoding="utf-8")
    (problem,) = refused(run, "vllm")
    assert problem.what == name
    assert "line 2" in problem.found


def test_what_is_in_the_bundle_is_looked_at(tmp_path):
    run = filed(tmp_path, "pytorch")
    with zipfile.ZipFile(run.folder / "bundle.zip", "w") as bundle:
        bundle.writestr("evidence.jsonl", f'{{"said": "{TOKEN}"}}\n')
        bundle.writestr("probes.pyz", b"\x00 /home/somebody \x00")
    (problem,) = refused(run, "pytorch")
    assert problem.what == "bundle.zip: evidence.jsonl"


def test_a_version_of_four_numbers_in_the_bundle_is_no_address(tmp_path):
    run = filed(tmp_path, "pytorch")
    with zipfile.ZipFile(run.folder / "bundle.zip", "w") as bundle:
        bundle.writestr("verdict.json", json.dumps({"distributions": {"nvidia-cublas": "12.8.4.1"}}))
    assert refused(run, "pytorch") == []


def test_a_file_that_is_not_posted_may_hold_anything(tmp_path):
    run = filed(tmp_path, "pytorch")
    (run.folder / "kit.log").write_text(TOKEN, encoding="utf-8")
    assert refused(run, "pytorch") == []


def test_a_place_for_own_words_that_is_still_empty_is_refused(tmp_path):
    run = open_run(run_folder(tmp_path, owner="pytorch", answer=result(4.5)))
    file(run, forms()["pytorch"], PRIVATE)
    assert PLACEHOLDER in (run.folder / "report-pytorch.md").read_text(encoding="utf-8")
    (problem,) = look(run, "pytorch")
    assert problem.kind == "refused"
    assert problem.found.startswith("the place for your own words is empty")
    assert "words.md" in problem.to_do


def test_a_script_changed_after_it_was_verified_is_refused(tmp_path):
    run = filed(tmp_path, "pytorch")
    edit(run.folder / "reproducer.py", "68384.0", "1.0")
    assert [problem.found for problem in refused(run, "pytorch")] == [
        "reproducer.py was changed after it was verified",
        "it does not quote reproducer.py as it is now",
    ]


def test_a_script_that_the_report_names_as_attached_need_not_be_quoted(tmp_path):
    long = MODULE.replace("1.0", "2.0") + "x = 1\n" * 12_000
    for number, options in enumerate(({"module": long}, {"script": long})):
        run = filed(tmp_path / str(number), "transformers", **options)
        assert long not in (run.folder / "report-transformers.md").read_text(encoding="utf-8")
        assert refused(run, "transformers") == []


def test_pytorch_takes_no_script_that_downloads(tmp_path):
    checkpoint = {"checkpoint": {"id": "org/model", "revision": None, "sha256": {}}}
    for project, count in (("pytorch", 1), ("transformers", 0)):
        run = filed(tmp_path / project, project, reproducer=checkpoint)
        assert len(refused(run, project)) == count


@pytest.mark.parametrize("named", ["transformers", "caller", "checkpoint"])
def test_a_fault_of_another_is_refused_with_the_reason_and_the_form_says_it_first(tmp_path, named):
    run = filed(tmp_path, "pytorch", owner=named)
    (problem,) = look(run, "pytorch")
    assert (problem.kind, problem.what, problem.found) == ("refused", "owner", f"the run says {named} (a test)")
    body = (run.folder / "report-pytorch.md").read_text("utf-8")
    first = next(line for line in body.splitlines() if line.startswith("- **"))
    assert first.startswith("- **Owner:** ")
    assert first.endswith("by this run. a test.")


@pytest.mark.parametrize(
    ("named", "what", "to_do"),
    [("caller", "owner", "There is no project to report it to."), ("pytorch", "report", "--for PROJECT")],
)
def test_who_is_to_fill_a_form_has_a_project_to_report_to(tmp_path, named, what, to_do):
    (problem,) = look(open_run(run_folder(tmp_path / "run", owner=named)))
    assert (problem.kind, problem.what, to_do in problem.to_do) == ("refused", what, True)


@pytest.mark.parametrize(("needs", "words"), [(["torch", "idna"], []), (["torch"], ["does not import idna, so"])])
def test_a_report_to_a_package_without_a_form_is_checked_like_any_other(tmp_path, needs, words):
    run = open_run(run_folder(tmp_path / "run", owner="idna", reproducer={"needs": needs}))
    (run.folder / "words.md").write_text("I was trying it out.", encoding="utf-8")
    file(run, form_of("idna"), PRIVATE)
    problems = look(run)
    assert [word in problem.found for word, problem in zip(words, problems, strict=True)] == [True] * len(words)


def test_where_the_run_names_no_owner_that_is_noted(tmp_path):
    run = filed(tmp_path, "pytorch", owner=None)
    assert [(problem.kind, problem.what) for problem in look(run, "pytorch")] == [("note", "owner")]
    assert "- **Owner:**" not in (run.folder / "report-pytorch.md").read_text("utf-8")


@pytest.mark.parametrize("outcome", ["good", "skip"])
def test_a_run_that_is_not_bad_is_refused(tmp_path, outcome):
    run = filed(tmp_path, "pytorch")
    change(run.folder, verdict=outcome)
    assert "verdict" in [problem.what for problem in refused(run, "pytorch")]


def test_a_folder_without_a_report_is_refused(tmp_path):
    run = open_run(run_folder(tmp_path))
    (problem,) = refused(run)
    assert "repro report" in problem.to_do


def test_a_report_for_another_project_than_asked_is_refused(tmp_path):
    problem, owner = refused(filed(tmp_path, "pytorch"), "vllm")
    assert (problem.found, owner.what) == ("there is no report-vllm.md", "owner")


def test_without_a_project_every_report_that_is_there_is_looked_at(tmp_path):
    run = filed(tmp_path, "pytorch", module=MODULE)
    file(run, forms()["transformers"], PRIVATE)
    for name in ("pytorch", "transformers"):
        edit(run.folder / f"report-{name}.md", "I was trying it out.", TOKEN)
    assert [problem.what for problem in refused(run)] == ["owner", "report-pytorch.md", "report-transformers.md"]


def test_a_report_of_a_matrix_is_looked_at_too(tmp_path):
    run = filed(tmp_path, "transformers", answer=replace(verdict(), cells=(), differences=Differences()))
    assert refused(run, "transformers") == []


def test_every_problem_is_one_line(tmp_path):
    run = filed(tmp_path, "vllm", script=None)
    (run.folder / "report.md").write_text(TOKEN + "\n", encoding="utf-8")
    lines = [problem.line for problem in look(run)]
    assert lines
    assert all("\n" not in line for line in lines)


def test_a_problem_is_plain_data(tmp_path):
    run = filed(tmp_path, "pytorch", script=None)
    assert {"kind", "what", "found", "to_do"} == set(to_json(look(run)[0]))


# --- the rules of a project, as data -----------------------------------------------------------------------------

FINE = "import torch\n\nx = torch.ones(3) * 300\nassert (x / 0.5).isfinite().all(), 'seen inf'\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FINE, ()),
        (FINE.replace("assert", "print(") + ")", ("has no assertion",)),
        ("import numpy\n" + FINE, ("imports numpy, and only torch is installed there",)),
        ("import numpy as np, requests\n" + FINE, ("imports numpy and requests", "uses requests")),
        (FINE + "x = 1\n" * 20, ("has 22 lines besides its imports, and 20 are read",)),
        (FINE.replace("300", "3e38"), ("has 3e+38, near the limits of float32",)),
        (FINE.replace("300", "1e30"), ("has 1e+30, near the limits of float32",)),
        (FINE.replace("300", "1e9"), ()),
        (FINE.replace("ones(3)", "ones(3, dtype=torch.float16)").replace("300", "30000"), ("has 30000, near the",)),
        (FINE.replace("300", 'float("nan")'), ("has nan, near the limits",)),
        (FINE.replace("300", 'float("-inf")'), ()),
        ("import base64\nimport subprocess\n" + FINE, ("uses subprocess and base64",)),
        ("eval('1')\n" + FINE, ("uses eval",)),
        ("import os\nos.environ['X'] = '1'\n" + FINE, ("uses os.environ",)),
        ("x = = 1\n", ("cannot be read as Python",)),
    ],
)  # fmt: skip
def test_a_script_is_held_against_pytorchs_rules(text, found):
    record = ScriptRecord(level="script", path="reproducer.py", needs=("torch",))
    problems = list(of_script(forms()["pytorch"], record, text))
    assert len(problems) == len(found), problems
    for problem, words in zip(problems, found, strict=True):
        assert problem.kind == "refused"
        assert words in problem.found
        assert problem.to_do


@pytest.mark.parametrize(
    ("value", "project", "words"),
    [
        (60_000.0, "pytorch", "60000, is near the largest number of its dtype, 65504"),
        (-5_000.0, "pytorch", "-5000, is near the"),
        (70_000.0, "pytorch", "70000, is beyond the"),
        (300.0, "pytorch", None),
        (60_000.0, "transformers", None),
    ],
)
def test_pytorch_takes_no_result_near_the_limit_whatever_the_inputs_are(tmp_path, value, project, words):
    found = [problem.found for problem in refused(filed(tmp_path, project, answer=result(value)), project)]
    assert [words in text for text in found] == ([True] if words else [])


def test_a_script_that_a_trial_has_no_time_for_is_refused():
    record = ScriptRecord(level="script", path="reproducer.py", needs=("torch",), seconds=130.0)
    (problem,) = of_script(forms()["pytorch"], record, FINE)
    assert "took 130 s, and a trial there has 120 s" in problem.found
    assert not list(of_script(forms()["pytorch"], replace(record, seconds=119.0), FINE))


def test_transformers_takes_a_script_that_imports_it_wherever_that_is():
    record = ScriptRecord(level="module", path="reproducer.py", needs=("torch", "transformers"))
    (problem,) = of_script(forms()["transformers"], record, FINE)
    assert "does not import transformers" in problem.found
    for line in (
        "import transformers.models",
        "from transformers import GPT2Config",
        "from transformers.utils import x",
    ):
        assert not list(of_script(forms()["transformers"], record, f"{line}\n{FINE}"))


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("see https://huggingface.co/org/model", True), ("attached: inputs.pt", True), ("in `bundle.zip`", True),
        ("it is in modeling_gemma3.py:416", False), ("https://github.com/pytorch/pytorch/issues/1", False),
        ("```\nx.pt\n```", False),
    ],
)  # fmt: skip
def test_links_and_files_to_download_are_refused_where_they_would_be_taken_out(line, refused):
    assert bool(list(of_body(forms()["pytorch"], "report-pytorch.md", f"a\n{line}\nb"))) is refused
    assert not list(of_body(forms()["transformers"], "report-transformers.md", f"a\n{line}\nb"))


@pytest.mark.parametrize(("result", "kinds"), [("agrees", ["refused"]), ("disagrees", []), ("not run", ["unknown"])])
def test_a_known_fault_is_added_to_and_not_reported_again(tmp_path, result, kinds):
    known = {"id": "pytorch-1", "issue": "pytorch/pytorch#1", "title": "it", "outcome": "bug", "result": result}
    run = filed(tmp_path, "pytorch", looks_like=[known])
    found = [problem for problem in look(run, "pytorch") if problem.what == "duplicate"]
    assert [problem.kind for problem in found] == kinds
    assert all("dd to that issue" in problem.to_do for problem in found)
