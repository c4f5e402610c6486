"""The kit against the corpus of injected faults.

The answer must name the injected place, not a consumer, and a sound twin must be good.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from corpus.answers import STEPS, case_of, check_answer
from corpus.faults import FAULTS, InjectedFault

from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter

RUNNABLE = [fault for fault in FAULTS if fault.truth.signal is None]
"""Plants that kill their process have their test in test_crash.py, where a process of its own is killed."""


def run_steps(fault: InjectedFault, folder: Path) -> dict[str, dict[str, Any]]:
    """Every step's end event, by step, and the ablations that the truth names."""
    steps = [*STEPS, *("ablation:" + name for name in fault.truth.workarounds)]
    stream = io.StringIO()
    run_plan({"steps": steps, "case": case_of(fault, folder), "cache": str(folder / "cache")}, Emitter(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    return {event["step"]: event for event in events if event["event"] == "end"}


@pytest.mark.parametrize("fault", RUNNABLE, ids=lambda fault: fault.name)
def test_the_answer_is_the_injected_place(fault: InjectedFault, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    fault.build(folder)
    check_answer(fault.truth, run_steps(fault, folder))
