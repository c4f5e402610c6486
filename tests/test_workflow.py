"""The workflow for hosted runners, read as YAML: what it runs, where, and what it may do there."""

import re
import subprocess

import pytest
import yaml
from hosting import ROOT

PATH = ROOT / ".github" / "workflows" / "matrix.yml"
TEXT = PATH.read_text("utf-8")
UNTRUSTED = re.compile(r"\$\{\{\s*(inputs|github\.event|github\.head_ref|matrix|needs|steps)\b")
"""What others can write, put into a shell's text. It belongs into ``env:``, where a shell reads it as data."""


def workflow():
    """The workflow; YAML 1.1 reads the key ``on`` as a truth value."""
    found = yaml.safe_load(TEXT)
    return {("on" if key is True else key): value for key, value in found.items()}


def steps():
    return [(name, step) for name, job in workflow()["jobs"].items() for step in job["steps"]]


def scripts():
    return [step["run"] for _, step in steps() if "run" in step]


def named(job, text):
    """The one script of a job that holds ``text``."""
    (found,) = (step for name, step in steps() if name == job and text in step.get("run", ""))
    return found["run"]


def versions_named(text):
    """Version literals of the packages under examination."""
    return re.findall(r"(?:torch|transformers)\W{0,3}\d+\.\d+", text)


def test_it_runs_on_three_systems_and_on_arm64_macos_first():
    systems = workflow()["jobs"]["run"]["strategy"]["matrix"]["os"]
    assert systems == ["${{ inputs.macos || 'macos-15' }}", "ubuntu-latest", "windows-latest"]
    assert workflow()["on"]["workflow_dispatch"]["inputs"]["macos"]["default"] == "macos-15"


def test_the_cells_come_from_envs():
    assert workflow()["jobs"]["run"]["strategy"]["matrix"]["cell"] == "${{ fromJSON(needs.cells.outputs.cells) }}"
    assert "python -m repro cells list --json" in named("cells", "cells list")


def test_no_version_of_what_is_examined_stands_in_it():
    assert versions_named(TEXT) == []


@pytest.mark.parametrize("text", ["torch-2.4.1", "torch==2.4.1", "transformers: 4.57"])
def test_the_guard_of_versions_can_fail(text):
    assert versions_named(text) != []


def test_it_may_only_read():
    jobs = workflow()["jobs"].values()
    assert workflow()["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in jobs)
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout")]
    assert [step["with"] for step in checkouts] == [{"persist-credentials": False}] * 3


def test_no_text_of_others_is_put_into_a_shell():
    assert [script for script in scripts() if UNTRUSTED.search(script)] == []
    assert len(scripts()) == 5


@pytest.mark.parametrize("script", ["x ${{ inputs.model }}", "${{github.event.issue.title}}", "${{ matrix.cell.id }}"])
def test_the_guard_of_shells_can_fail(script):
    assert UNTRUSTED.search(script)


def test_one_cell_does_not_stop_the_others_and_every_job_ends():
    jobs = workflow()["jobs"]
    assert jobs["run"]["strategy"]["fail-fast"] is False
    assert jobs["table"]["if"] == "${{ !cancelled() }}"
    assert all(job["timeout-minutes"] <= 60 for job in jobs.values())


def test_runs_are_uploaded_whatever_came_out_each_under_a_name_of_its_own():
    (upload,) = (step for name, step in steps() if name == "run" and "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "${{ always() }}"
    assert upload["with"]["path"] == "repro-runs"
    assert {"matrix.os", "matrix.cell.id"} <= set(re.findall(r"[\w.]+", upload["with"]["name"]))


def test_the_runs_that_are_uploaded_are_those_that_are_joined():
    (download,) = (step for name, step in steps() if "download-artifact" in step.get("uses", ""))
    assert download["with"] == {"pattern": "run-*", "path": "runs"}
    assert "merge runs --out merged" in named("table", "merge")


def test_it_starts_by_hand_and_when_a_cell_changes():
    on = workflow()["on"]
    assert set(on) == {"workflow_dispatch", "push"}
    assert on["push"]["paths"] == ["envs/**", ".github/workflows/matrix.yml"]
    default = on["workflow_dispatch"]["inputs"]["model"]["default"]
    assert workflow()["jobs"]["run"]["env"]["MODEL"] == f"${{{{ inputs.model || '{default}' }}}}"


@pytest.mark.parametrize("script", scripts())
def test_a_shell_can_read_every_script(script):
    assert subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False).stderr == ""


def shell(script, folder, **variables):
    """Run a script of the workflow as a runner does."""
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    path = f"{folder}:/usr/bin:/bin"
    return subprocess.run(
        command, cwd=folder, env={"PATH": path, **variables}, capture_output=True, text=True, check=False
    )


def stand_in(folder, body):
    """A program that stands in for Python."""
    (folder / "python").write_text(f"#!/bin/bash\n{body}\n")
    (folder / "python").chmod(0o755)


def test_the_model_is_split_into_words_and_not_read_as_shell(tmp_path):
    stand_in(tmp_path, 'printf "<%s>" "$@"')
    ran = shell(named("run", "noxfile.py"), tmp_path, CELL="x-1.2", MODEL="gpt2 --weights random:0 $(date) ;exit")
    assert ran.stdout == "<noxfile.py><-s><repro(x-1.2)><--><gpt2><--weights><random:0><$(date)><;exit>"


@pytest.mark.parametrize("status", [0, 1, 125])
def test_a_table_is_an_answer_whatever_its_verdict(tmp_path, status):
    stand_in(tmp_path, f"mkdir merged; echo table > merged/report.md; exit {status}")
    ran = shell(named("table", "merge"), tmp_path, GITHUB_STEP_SUMMARY="summary")
    assert (ran.returncode, (tmp_path / "summary").read_text()) == (0, "table\n")


def test_no_table_is_a_failure(tmp_path):
    stand_in(tmp_path, "exit 125")
    assert shell(named("table", "merge"), tmp_path, GITHUB_STEP_SUMMARY="summary").returncode != 0
