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


PLAIN = """
import torch

def test_variable():
    y = torch.log(torch.tensor([-1.0]))
    assert y.item() > 0

def test_in_a_helper():
    def check(value):
        kept = [value / value]
        assert kept[0].sum() == 0
    check(torch.zeros(2))

def test_masked():
    scores = torch.zeros(2).masked_fill(torch.tensor([True, False]), float("-inf"))
    assert scores.softmax(-1)[0] == 1
"""


def test_a_variable_of_a_test_that_fails_is_where_a_nan_may_arrive(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "TESTS", PLAIN)
    ran = run(tmp_path, "--repro")
    assert "3 failed" in ran.stdout
    assert ran.stdout.count("BAD  ") == 2
    assert "test_it.py:5" in ran.stdout
    assert "test_it.py:10" in ran.stdout
