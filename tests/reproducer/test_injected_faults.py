"""The whole way from an injected fault to a script: whoever runs it without the toolkit sees the fault.

The kit and each script run in this process, where torch and transformers are imported already.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from corpus.answers import case_of
from corpus.faults import BY_NAME, FAULTS, InjectedFault
from support.running import outcome

from repro.core.answer import Answer, answer_from
from repro.core.encoding import to_json
from repro.core.records import Case, Cell, Ending, Header, Observation, Outcome, Verdict
from repro.diagnosis.answer import answer
from repro.diagnosis.owner import owner
from repro.diagnosis.verdict import judge
from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter
from repro.reproducer.offer import scripts
from repro.reproducer.verify import UNCAUGHT

STEPS = ("environment", "files", "weights", "load", "forward", "bisect", "reduce")
BAD = [
    fault
    for fault in FAULTS
    if fault.truth.verdict == "bad" and fault.truth.signal is None and "skip" not in fault.truth.also_verdict
]
"""Faults that kill their process have their test in test_crash.py. A file that is refused is nobody's bad answer."""
ALONE = ("overflow", "invalid", "divide_by_zero", "masked_row")
"""Mechanisms of a fault that operators make, and so show without the model."""


def answer_of(fault: InjectedFault, folder: Path) -> Answer:
    """The answer for the fault in `folder`, by the kit and the judge, as verdict.json holds it."""
    case = case_of(fault, folder)
    stream = io.StringIO()
    run_plan({"steps": STEPS, "case": case, "cache": str(folder / "cache")}, Emitter(stream))
    ends = [event for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "end"]
    observations = {
        end["step"]: Observation(
            step=end["step"],
            ending=Ending.ENDED,
            verdict=Verdict(Outcome(end["verdict"]), end["reason"]),
            seconds=end["seconds"],
            argv=(),
            cell=Cell(sys.executable),
            kit_sha256="0" * 64,
            payload=end["payload"],
        )
        for end in ends
    }
    asked = Case(**{**case, "prompts": tuple(case["prompts"])})
    header = Header(asked, Cell(sys.executable), "0" * 64, "0", ("repro", str(folder)), "2026")
    return answer_from(to_json(answer(judge(observations, asked), observations, header)))


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.name)
def test_a_script_shows_the_injected_fault_and_the_sound_twin_passes(fault: InjectedFault, tmp_path: Path) -> None:
    fault.build(tmp_path / "bad")
    found = answer_of(fault, tmp_path / "bad")
    assert found.verdict is Outcome.BAD, found.reason
    candidates = scripts(found)
    for script in [candidates[0], *(script for script in candidates[1:] if script.level == "module")]:
        status, output, errors = outcome(script.text, script.argv)
        assert status == 1, output + errors
        assert script.seen is None or f"seen {script.seen} " in output
        assert "repro" not in "".join(line for line in script.text.splitlines() if "import" in line)
    if fault.truth.mechanism in ALONE and fault.truth.tensor is None:
        assert candidates[0].level in ("operator", "operators")
        assert candidates[0].needs == ("torch",)
    if fault.truth.kind == "weights" and fault.truth.tensor is not None:
        assert owner(found).project == "checkpoint"
    if fault.truth.kind == "nonfinite":
        return
    BY_NAME[str(fault.twin)].build(tmp_path / "sound")
    script = next(script for script in candidates if script.checkpoint is not None)
    swapped = tuple(word.replace(str(tmp_path / "bad"), str(tmp_path / "sound")) for word in script.argv)
    assert swapped != script.argv
    status, output, errors = outcome(script.text, swapped)
    assert status in (0, UNCAUGHT), output + errors
