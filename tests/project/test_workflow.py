"""The workflows for hosted runners: what they say, read as YAML, and their Python steps, really run."""

import copy
import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.stem: path.read_text("utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in FILES.items()}
TEXT, WORKFLOW, CI = FILES["matrix"], WORKFLOWS["matrix"], WORKFLOWS["ci"]
EVERY = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=list(WORKFLOWS))
JOBS = WORKFLOW["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CELLS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in (ROOT / "envs").glob("*.toml")}
HOSTILE = "./my-model --prompt 'two  words' * $HOME $(touch made) ; touch made"


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def interpolating(workflow: dict[str, Any]) -> list[str]:
    """The scripts into which something is pasted before they run."""
    return [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]


def loose(workflow: dict[str, Any]) -> list[str]:
    """The actions that are not held to one full version tag."""
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    return [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", name)]


def literals(text: str) -> list[str]:
    """The pinned versions of cells, and their names, that stand in a text."""
    words = {version for cell in CELLS.values() for version in cell["pins"].values()} | set(CELLS)
    return sorted(word for word in words if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text))


def step(job: str, word: str) -> dict[str, Any]:
    """The one step of a job whose action or name holds a word."""
    (found,) = (step for step in JOBS[job]["steps"] if word in step.get("name", step.get("uses", "")))
    return found


def run(script: dict[str, Any], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a runner does: the script from a file elsewhere, in the checkout's folder."""
    assert script["shell"] == "python"
    path = folder / "elsewhere" / "step.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script["run"], "utf-8")
    command, env = [sys.executable, str(path)], {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_systems() -> None:
    assert JOBS["repro"]["strategy"]["matrix"]["os"] == ["macos-15", "ubuntu-latest", "windows-latest"]


def test_one_cell_that_fails_stops_no_other() -> None:
    assert JOBS["repro"]["strategy"]["fail-fast"] is False


def test_pull_requests_are_linted_and_tested_on_every_system() -> None:
    assert "pull_request" in CI[True]  # YAML 1.1 reads the key `on` as true
    assert set(CI["jobs"]["tests"]["strategy"]["matrix"]["os"]) == set(JOBS["repro"]["strategy"]["matrix"]["os"])
    begin = "python noxfile.py -s "
    runs = [step["run"].strip() for step in steps(CI) if step.get("run", "").startswith(begin)]
    assert [run.removeprefix(begin) for run in runs] == ["lint", 'tests -- -m ""', "oldest"]  # slow tests, too


def test_the_oldest_cells_python_is_read_from_its_file(tmp_path: Path) -> None:
    (step,) = (step for step in CI["jobs"]["oldest"]["steps"] if step.get("id") == "oldest")
    for name in ("pyproject.toml", "envs"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run(step, tmp_path, GITHUB_OUTPUT=str(tmp_path / "output")).returncode == 0
    oldest = CELLS[PROJECT["tool"]["repro"]["oldest"]]
    assert (tmp_path / "output").read_text("utf-8") == f"python={oldest['python']}\n"


@EVERY
def test_only_reading_is_permitted(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == []


@EVERY
def test_no_checkout_leaves_its_token_behind(workflow: dict[str, Any]) -> None:
    found = [step["with"] for step in steps(workflow) if "checkout" in step.get("uses", "")]
    assert found == [{"persist-credentials": False}] * len(workflow["jobs"])


@EVERY
def test_every_job_has_a_time_limit(workflow: dict[str, Any]) -> None:
    assert [name for name, job in workflow["jobs"].items() if "timeout-minutes" not in job] == []


@pytest.mark.parametrize("text", FILES.values(), ids=list(FILES))
def test_no_version_of_a_cell_stands_in_a_workflow(text: str) -> None:
    assert literals(text) == []


@pytest.mark.parametrize("line", ["pip install torch==2.9.1", "cell: [seed-2.9.1]"])
def test_a_version_of_a_cell_would_be_seen(line: str) -> None:
    assert literals(f"{TEXT}\n{line}\n") != []


@EVERY
def test_no_script_is_pasted_together(workflow: dict[str, Any]) -> None:
    assert interpolating(workflow) == []


@pytest.mark.parametrize("value", ["${{ inputs.model }}", "${{ github.event.inputs.model }}", "${{ matrix.os }}"])
def test_a_script_that_is_pasted_together_would_be_seen(value: str) -> None:
    injected = copy.deepcopy(WORKFLOW)
    injected["jobs"]["repro"]["steps"].append({"run": f"echo {value}", "shell": "bash"})
    assert interpolating(injected) == [f"echo {value}"]


@EVERY
def test_actions_are_held_to_full_versions(workflow: dict[str, Any]) -> None:
    assert loose(workflow) == []


@pytest.mark.parametrize("name", ["actions/checkout@v6", "actions/checkout@main", "someone/else@v1.0.0"])
def test_a_loose_action_would_be_seen(name: str) -> None:
    injected = copy.deepcopy(WORKFLOW)
    injected["jobs"]["table"]["steps"].append({"uses": name})
    assert loose(injected) == [name]


def test_one_action_has_one_version() -> None:
    used = {step["uses"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "uses" in step}
    assert len({name.partition("@")[0] for name in used}) == len(used)


@EVERY
def test_every_script_names_its_shell(workflow: dict[str, Any]) -> None:
    """The default is another one on Windows."""
    assert [step["run"] for step in steps(workflow) if "run" in step and "shell" not in step] == []


@EVERY
def test_host_python_is_one_that_the_project_allows(workflow: dict[str, Any]) -> None:
    assert workflow["env"]["HOST_PYTHON"] in SpecifierSet(PROJECT["project"]["requires-python"])


def test_the_sessions_run_on_their_cells_python() -> None:
    assert CI["env"]["HOST_PYTHON"] == CELLS[PROJECT["tool"]["repro"]["cell"]]["python"]


def test_host_python_comes_last() -> None:
    """setup-python puts what it set up last first on the PATH."""
    found = [step for step in JOBS["repro"]["steps"] if "setup-python" in step.get("uses", "")]
    assert [step["with"]["python-version"] for step in found] == ["${{ matrix.cell.python }}", "${{ env.HOST_PYTHON }}"]


def test_a_python_that_a_system_lacks_skips_the_cell() -> None:
    """The session must be reached: it is what says so in the cell's row."""
    found = [step for step in steps(WORKFLOW) if "continue-on-error" in step]
    assert found == [step("repro", "Python of the cell")]


@pytest.mark.parametrize("job", ["cells", "table"])
def test_host_has_all_that_the_project_needs_but_what_is_examined(job: str) -> None:
    words = shlex.split(step(job, "Install the host")["run"].partition("pip install")[2])
    names = {word for word in words if re.fullmatch(r"[\w-]*\w", word) and not word.startswith("-")}
    declared = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    assert names == declared - {"torch", "transformers"}


def test_a_push_asks_what_is_asked_by_default() -> None:
    # YAML 1.1 reads the key `on` as true.
    default = WORKFLOW[True]["workflow_dispatch"]["inputs"]["model"]["default"]
    assert step("repro", "Ask")["env"]["MODEL"] == f"${{{{ inputs.model || '{default}' }}}}"


def test_a_push_of_cells_starts_it() -> None:
    assert "envs/**" in WORKFLOW[True]["push"]["paths"]


def test_cells_take_cpu_wheels() -> None:
    assert JOBS["repro"]["env"] == {"UV_TORCH_BACKEND": "cpu"}


def test_run_folders_are_uploaded_whatever_happened() -> None:
    upload = step("repro", "upload-artifact")
    assert (upload["if"], upload["with"]["path"]) == ("always()", "repro-runs")


def test_each_system_and_cell_has_an_artifact_of_its_own() -> None:
    name = step("repro", "upload-artifact")["with"]["name"]
    assert set(re.findall(r"\$\{\{ (\S+) \}\}", name)) == {"matrix.os", "matrix.cell.id"}


def test_the_table_takes_every_cell_and_not_itself() -> None:
    pattern = step("table", "download-artifact")["with"]["pattern"]
    assert fnmatch.fnmatch(step("repro", "upload-artifact")["with"]["name"], pattern)
    assert not fnmatch.fnmatch(step("table", "upload-artifact")["with"]["name"], pattern)


def test_artifacts_are_not_poured_into_one_folder() -> None:
    """Two systems have the same cells, and may have begun in the same second."""
    assert "merge-multiple" not in step("table", "download-artifact")["with"]


def test_the_table_is_made_where_a_cell_failed() -> None:
    assert JOBS["table"]["if"] == "${{ !cancelled() && needs.cells.result == 'success' }}"


def fake(path: Path, *lines: str) -> None:
    """A program in place of the real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["import json, pathlib, sys", *lines]), "utf-8")
    if path.name == "__main__.py":
        (path.parent / "__init__.py").touch()  # or the installed package goes before it


def listed(folder: Path, **variables: str) -> dict[str, str]:
    """The cells and their Pythons that the first job hands on."""
    output = folder / "output"
    ran = run(step("cells", "List"), folder, GITHUB_OUTPUT=str(output), **variables)
    assert ran.returncode == 0, ran.stderr
    name, _, value = output.read_text("utf-8").rstrip("\n").partition("=")
    assert f"${{{{ steps.list.outputs.{name} }}}}" == JOBS["cells"]["outputs"]["cells"]
    return {row["id"]: row["python"] for row in json.loads(value)}


def test_cells_are_those_under_envs_without_cuda(tmp_path: Path) -> None:
    expected = {cell: data["python"] for cell, data in CELLS.items() if data["device"] != "cuda"}
    assert listed(tmp_path, PYTHONPATH=str(ROOT), REPRO_CACHE_DIR=str(tmp_path / "cache")) == expected


@pytest.mark.parametrize(
    ("device", "shipped", "expected"),
    [("cpu", True, {"one": "3.10"}), ("mps", True, {"one": "3.10"}), ("cuda", True, {}), ("cpu", False, {})],
)
def test_cells_that_hosted_runners_are_asked_for(
    tmp_path: Path, device: str, shipped: bool, expected: dict[str, str]
) -> None:
    row = {"id": "one", "python": "3.10", "device": device, "shipped": shipped}
    fake(tmp_path / "repro/__main__.py", f"print(json.dumps([{row}]))")
    assert listed(tmp_path) == expected


def test_there_are_cuda_cells_to_leave_out() -> None:
    assert "cuda" in {data["device"] for data in CELLS.values()}


def test_what_a_person_types_in_is_words_and_nothing_else(tmp_path: Path) -> None:
    fake(tmp_path / "noxfile.py", "pathlib.Path('argv.json').write_text(json.dumps(sys.argv[1:]))")
    ran = run(step("repro", "Ask"), tmp_path, CELL="some-cell", MODEL=HOSTILE)
    assert ran.returncode == 0, ran.stderr
    argv = json.loads((tmp_path / "argv.json").read_text("utf-8"))
    assert argv[:5] == ["-s", "repro(some-cell)", "--", "./my-model", "--prompt"]
    assert argv[5:] == ["two  words", "*", "$HOME", "$(touch", "made)", ";", "touch", "made"]
    assert not (tmp_path / "made").exists()


def test_a_broken_tool_fails_the_cells_job(tmp_path: Path) -> None:
    fake(tmp_path / "noxfile.py", "sys.exit(3)")
    assert run(step("repro", "Ask"), tmp_path, CELL="some-cell", MODEL="gpt2").returncode == 3


@pytest.mark.parametrize(
    ("status", "report", "expected"),
    [(0, True, 0), (1, True, 0), (125, True, 0), (2, False, 2), (130, True, 130), (1, False, 1)],
)
def test_join_fails_where_there_is_no_answer(tmp_path: Path, status: int, report: bool, expected: int) -> None:
    made = ["pathlib.Path('merged').mkdir()", "pathlib.Path('merged/report.md').write_text('the table')"]
    fake(tmp_path / "repro/__main__.py", *(made if report else []), f"sys.exit({status})")
    ran = run(step("table", "Join"), tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert ran.returncode == expected, ran.stderr


def test_join_puts_the_table_into_the_summary(tmp_path: Path) -> None:
    made = ["folder = pathlib.Path(sys.argv[-1])", "folder.mkdir()", "(folder / 'report.md').write_text('the table')"]
    fake(tmp_path / "repro/__main__.py", *made)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", "utf-8")
    run(step("table", "Join"), tmp_path, GITHUB_STEP_SUMMARY=str(summary))
    assert summary.read_text("utf-8") == "before\nthe table"
