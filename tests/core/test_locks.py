"""Locks between processes: refused, waited for, gone with their holder."""

import errno
import os
import subprocess
import sys

import filelock
import pytest

from repro.core.errors import EvidenceError, UsageError
from repro.core.locks import FILES, folder_held, nobody, remove_unused, waited_for

HOLD = """
import pathlib, sys
from repro.core.locks import folder_held, nobody, waited_for
place = pathlib.Path(sys.argv[2])
held = {
    "folder": lambda: folder_held(place, "repro run m", nobody),
    "file": lambda: waited_for(place, "the cell", "the cell", nobody),
}[sys.argv[1]]
with held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Starts another process that holds a lock until it is told to go on."""
    started = []

    def start(kind, place):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_the_second_is_told_who_holds_the_folder(tmp_path, holder):
    process = holder("folder", tmp_path)
    words = rf"is being written by another run \(process {process.pid} on .*, since .*: repro run m\)\. Wait"
    with pytest.raises(UsageError, match=words), folder_held(tmp_path, "x", nobody):
        pass


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path, holder):
    process = holder("folder", tmp_path)
    process.kill()
    process.wait()
    with folder_held(tmp_path, "x", nobody):
        assert (tmp_path / ".lock.json").exists()


def test_what_is_left_of_a_lock_is_an_empty_file(tmp_path):
    with folder_held(tmp_path, "x", nobody):
        assert {path.name for path in tmp_path.iterdir()} == FILES
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [(".lock", 0)]


def test_a_file_is_waited_for_and_that_is_said(tmp_path, holder):
    process, said = holder("file", tmp_path / "a.lock"), []

    def say(line):
        said.append(line)
        process.stdin.close()  # only now it lets go

    with waited_for(tmp_path / "a.lock", "x", "the cell a", say):
        assert process.wait() == 0
    assert said[0].startswith(f"waiting for the cell a, which another process is making (process {process.pid} on ")


@pytest.mark.parametrize("refused", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock")])
def test_a_file_system_without_locks_is_a_note(tmp_path, monkeypatch, refused):
    def acquire(*_, **__):
        raise refused

    said = []
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with folder_held(tmp_path, "x", said.append):
        pass
    assert [line.partition(":")[0] for line in said] == [f"the file system of {tmp_path} has no locks"]


@pytest.mark.skipif(os.name == "nt", reason="links are POSIX's")
def test_a_lock_that_leads_elsewhere_is_refused_and_what_is_there_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(EvidenceError, match="could not write in"), folder_held(tmp_path, "x", nobody):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_with_nothing_but_its_lock_is_removed_and_no_other(tmp_path):
    for name, files in (("unused", [".lock", "header.json"]), ("used", [".lock", "row.json"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
        remove_unused(tmp_path / name, "header.json")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
