"""The kit against the corpus of planted faults.

The answer must name the planted place, not a consumer, and a sound twin must be good.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from corpus.answers import STEPS, case_of, check_answer
from corpus.plants import PLANTS, Plant

from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter

RUNNABLE = [plant for plant in PLANTS if plant.truth.signal is None]
"""Plants that kill their process have their test in test_crash.py, where a process of its own is killed."""


def run_steps(plant: Plant, folder: Path) -> dict[str, dict[str, Any]]:
    """Every step's end event, by step, and the arms that the truth names."""
    steps = [*STEPS, *("arm:" + name for name in plant.truth.cures)]
    stream = io.StringIO()
    run_plan({"steps": steps, "case": case_of(plant, folder), "cache": str(folder / "cache")}, Emitter(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    return {event["step"]: event for event in events if event["event"] == "end"}


@pytest.mark.parametrize("plant", RUNNABLE, ids=lambda plant: plant.name)
def test_the_answer_is_the_planted_place(plant: Plant, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    plant.build(folder)
    check_answer(plant.truth, run_steps(plant, folder))
