"""The pytest plugin: `pytest --repro`."""

import os
import subprocess
import sys

from support.hosting import ROOT

TESTS = """
import torch

def test_sound():
    assert torch.ones(3).sum() == 3

def test_handled():
    assert torch.log(torch.zeros(3)).nan_to_num(0.0, 0.0, 0.0).sum() == 0

def test_falls():
    weights = torch.nn.Linear(4, 1)
    with torch.no_grad():
        weights.weight.fill_(3e38)
    assert weights(torch.ones(2, 4)).isfinite().all()

def test_that_falls_for_another_reason():
    assert 1 == 2
"""


def run(folder, *options):
    (folder / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "repro.inprocess.plugin", *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([*command, "."], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_test_that_fails_says_where_its_nan_is_born(tmp_path):
    ran = run(tmp_path, "--repro")
    assert "2 failed, 2 passed" in ran.stdout
    assert ran.stdout.count("Captured repro call") == 1
    assert "aten.addmm.default" in ran.stdout
    assert ran.stdout.count("BAD  ") == 1


def test_without_the_option_nothing_is_watched(tmp_path):
    ran = run(tmp_path)
    assert "2 failed, 2 passed" in ran.stdout
    assert "BAD  " not in ran.stdout
