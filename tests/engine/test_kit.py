"""The packed kit: the same bytes every time, and a file that Python runs."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile

import pytest

from repro.core.errors import EvidenceError
from repro.engine.kit import pack


def source(folder, **files):
    probes = folder / "probes"
    probes.mkdir(parents=True)
    for name, text in files.items():
        (probes / f"{name}.py").write_text(text)
    return probes


def small(folder):
    return source(folder, __init__="", main="def main(argv):\n    print(argv)\n    return 7\n")


def test_the_same_source_gives_the_same_bytes(tmp_path):
    first, second = small(tmp_path / "a"), small(tmp_path / "b")
    os.utime(second / "main.py", (1, 1))
    (second / "main.py").chmod(0o600)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"compiled")
    assert pack(first) == pack(second)


def test_another_source_gives_another_hash(tmp_path):
    first = pack(small(tmp_path / "a"))
    (tmp_path / "a" / "probes" / "main.py").write_text("changed")
    assert pack(tmp_path / "a" / "probes").sha256 != first.sha256


def test_the_hash_is_that_of_the_written_file(tmp_path):
    kit = pack(small(tmp_path))
    assert hashlib.sha256(kit.write(tmp_path).read_bytes()).hexdigest() == kit.sha256


def test_members_are_sorted_stored_and_without_a_date(tmp_path):
    path = pack(small(tmp_path)).write(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    assert [item.filename for item in members] == ["__main__.py", "probes/__init__.py", "probes/main.py"]
    assert {item.compress_type for item in members} == {zipfile.ZIP_STORED}
    assert {item.date_time for item in members} == {(1980, 1, 1, 0, 0, 0)}


def test_python_runs_it_isolated_from_an_empty_folder(tmp_path):
    path = pack(small(tmp_path)).write(tmp_path)
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-I", str(path), "run", "plan.json"]
    ran = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (7, "['run', 'plan.json']\n")


def test_the_real_kit_is_packed_whole():
    assert b"probes/__init__.py" in pack().content


@pytest.mark.slow
def test_the_real_kit_reduces_a_script_by_itself_and_takes_answers_that_are_known(tmp_path):
    path = pack().write(tmp_path)
    (tmp_path / "bad.py").write_text(
        "import sys\n\nimport torch\n\nx = torch.full((8,), 300.0).half()\nsys.exit(int((x * x).isinf().any()))\n"
    )
    plan = {"schema": 2, "steps": ["bisect", "reduce"], "case": {"model": str(tmp_path / "bad.py")}, "cache": "cache"}
    events = run_kit(path, tmp_path, plan)
    trials = {event["trial"]: event["holds"] for event in events if event["event"] == "trial"}
    (first, *_) = trials
    assert [call["op"] for call in events[-2]["payload"]["program"]["calls"]] == ["aten.mul.Tensor"]
    known = run_kit(path, tmp_path, {**plan, "trials": trials})
    assert known[-2]["payload"]["program"] == events[-2]["payload"]["program"]
    # Which versions are asked ahead of time hangs on the machine, so a few may be new.
    again = {event["trial"] for event in known if event["event"] == "trial"}
    assert len(again - set(trials)) == len(again) < len(trials) / 2
    died = run_kit(path, tmp_path, {**plan, "trials": {first: None}})
    assert (died[-2]["verdict"], died[-2]["payload"]["crashed_trials"]) == ("bad", 1)


def run_kit(path, folder, plan):
    """The events of a plan, run isolated in an empty folder."""
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "empty").mkdir(exist_ok=True)
    command = [sys.executable, "-I", str(path), "run", str(folder / "plan.json")]
    ran = subprocess.run(command, cwd=folder / "empty", capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(EvidenceError, match=r"could not write .*probes\.pyz: the folder .* was removed"):
        pack(small(tmp_path)).write(tmp_path / "missing")
