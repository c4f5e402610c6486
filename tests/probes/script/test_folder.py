"""Folders that killed processes have left behind are removed by the next one; all others stay."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from repro.probes.script.folder import HELD, PREFIX, own_folder

HOLD = """import sys, tempfile
tempfile.tempdir = sys.argv[1]
from repro.probes.script.folder import own_folder
with own_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")


def holder(place):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_only_what_nobody_holds_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living, held = holder(tmp_path)
    dead, left = holder(tmp_path)
    dead.kill()
    dead.communicate()
    foreign = tmp_path / f"{PREFIX}foreign"  # no process of ours has marked it
    foreign.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / HELD).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    assert left.is_dir()
    with own_folder() as folder:
        assert Path(folder).is_dir()
        assert not left.exists()
        assert held.is_dir()
        assert foreign.is_dir()
        assert (elsewhere / HELD).exists()
    assert not Path(folder).exists()
    living.communicate("")
    assert not held.exists()
