"""The whole way from an injected model to a script: whoever runs it without the toolkit sees the fault.

Each script is run in a child of this process, where torch and transformers are imported already: test_verify.py runs
scripts in an interpreter of their own, which takes seconds for each.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
from corpus.answers import case_of
from corpus.faults import BY_NAME, FAULTS, InjectedFault
from repro.report.document import document

from repro.core.encoding import encode
from repro.core.records import Case, Cell, Ending, Header, Observation, Outcome, Verdict
from repro.diagnosis.owner import owner
from repro.diagnosis.verdict import judge
from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter
from repro.reproducer.offer import scripts
from repro.reproducer.script import Script

STEPS = ("environment", "files", "weights", "load", "forward", "bisect", "reduce")
BAD = [
    fault
    for fault in FAULTS
    if fault.truth.verdict == "bad" and fault.truth.signal is None and "skip" not in fault.truth.also_verdict
]
"""Plants that kill their process have their test in test_crash.py. A file that is refused is nobody's bad answer."""
ALONE = ("overflow", "invalid", "divide_by_zero", "masked_row")
"""Mechanisms of a fault that operators make, and so show without the model."""


def answer(fault: InjectedFault, folder: Path) -> dict[str, Any]:
    """The content of verdict.json for the fault in `folder`, by the kit and the judge."""
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
    found = document(judge(observations, asked), observations, header, None, header.command)
    content: dict[str, Any] = json.loads(encode(found))
    return content


def outcome(script: Script, argv: tuple[str, ...]) -> tuple[int, str]:
    """Exit status and output of the script in a child, in an empty folder."""
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reproducer.py")
        path.write_text(script.text, "utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
            child = os.fork()
        if child == 0:
            os._exit(_child(path, argv, write))
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            said = stream.read().decode()
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


def _child(path: Path, argv: tuple[str, ...], write: int) -> int:
    """What the child does: it never returns into pytest."""
    import torch

    try:
        os.dup2(write, 1)
        os.dup2(write, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        os.chdir(path.parent)
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # the parent's threads are not here
        sys.argv = [str(path), *argv]
        runpy.run_path(str(path), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:  # noqa: BLE001 - whatever it is, the child must end here
        traceback.print_exc()
        code = 125
    sys.stdout.flush()
    return code


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.name)
def test_the_smallest_script_shows_the_injected_fault(fault: InjectedFault, tmp_path: Path) -> None:
    fault.build(tmp_path / "bad")
    found = answer(fault, tmp_path / "bad")
    assert found["verdict"] == "bad", found["reason"]
    candidates = scripts(found)
    chosen = [candidates[0], *(script for script in candidates[1:] if script.level == "module")]
    for script in chosen:
        status, said = outcome(script, script.argv)
        assert status == 1, said
        assert "repro" not in "".join(line for line in script.text.splitlines() if "import" in line)
    if fault.truth.mechanism in ALONE and fault.truth.tensor is None:
        assert candidates[0].level in ("operator", "operators")
        assert candidates[0].needs == ("torch",)
    if fault.truth.kind == "weights" and fault.truth.tensor is not None:
        assert owner(found).project == "checkpoint"


@pytest.mark.parametrize("fault", [p for p in BAD if p.truth.kind != "nonfinite"], ids=lambda fault: fault.name)
def test_a_script_that_reads_the_checkpoint_is_not_bad_on_the_sound_twin(fault: InjectedFault, tmp_path: Path) -> None:
    fault.build(tmp_path / "bad")
    BY_NAME[str(fault.twin)].build(tmp_path / "sound")
    script = next(script for script in scripts(answer(fault, tmp_path / "bad")) if script.checkpoint is not None)
    swapped = tuple(word.replace(str(tmp_path / "bad"), str(tmp_path / "sound")) for word in script.argv)
    assert swapped != script.argv
    status, said = outcome(script, swapped)
    assert status in (0, 125), said
