"""Models that really kill their process, through the real command: a verdict, the signal, and the steps behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus.faults import BY_NAME


def run_command(name: str, folder: Path, *options: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exit status, verdict.json and the recorded steps of `repro` on an injected model."""
    fault = BY_NAME[name]
    fault.build(folder / "model")
    out = folder / "out"
    command = [sys.executable, "-m", "repro", str(folder / "model"), "--trust-remote-code", "--out", str(out), *options]
    command += ["--dtype", fault.dtype] if fault.dtype else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in (out / "evidence.jsonl").read_text("utf-8").splitlines()]
    return done.returncode, json.loads((out / "verdict.json").read_text("utf-8")), [r for r in lines if "step" in r]


@pytest.mark.slow
def test_behind_a_crash_the_other_steps_still_run(tmp_path: Path) -> None:
    status, verdict, records = run_command("custom-crash-sigsegv-float16", tmp_path)
    steps = {record["step"]: record for record in records}
    ablations = {ablation["name"]: ablation["verdict"] for ablation in verdict["ablations"]}
    assert (status, verdict["verdict"], verdict["kind"]) == (125, "skip", "crash")
    assert "SIGSEGV" in json.dumps(steps["forward"])
    assert steps["load"]["verdict"]["outcome"] == "good"
    assert ablations["dtype=float32"] == ablations["dtype=bfloat16"] == "good"
    assert len(records) == len(steps) == 28


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step", "signal"),
    [
        ("custom-crash-sigbus", "forward", "SIGBUS"),
        ("custom-crash-sigkill-float16", "forward", "SIGKILL"),
        ("custom-crash-sigsegv-load", "load", "SIGSEGV"),
    ],
)
def test_a_crash_that_is_hunted_is_bad_and_named(name: str, step: str, signal: str, tmp_path: Path) -> None:
    status, verdict, records = run_command(name, tmp_path, "--no-ablations", "--fault", "crash")
    steps = {record["step"]: record for record in records}
    assert (status, verdict["verdict"], verdict["kind"]) == (1, "bad", "crash")
    assert signal in verdict["reason"]
    assert signal in json.dumps(steps[step])
