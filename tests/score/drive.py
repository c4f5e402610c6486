"""One case through the tool: the kit's steps and the host's judgement, in this process.

What the host does between them in a real run (another process, a wire, a folder) is left out. So are ablations and the
reduction, which cost most and decide neither verdict nor origin, so that an owner that needs a verified script
(PyTorch's own) is left open. A script's plain run is a fork.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from repro.core import records
from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.steps import asked_by
from repro.diagnosis.answer import answer
from repro.diagnosis.known import excluded
from repro.diagnosis.owner import owner
from repro.diagnosis.verdict import judge
from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter
from repro.probes.script import child

from .records import Case

LEFT_OUT = ("environment", "reduce")
"""Steps that decide neither verdict nor origin; nor do ablations."""
HERE = records.Cell("python")


@dataclass(frozen=True)
class Answered:
    """What a user would be told, as far as it is scored; None where nothing is said. Plain data, for it is sent on."""

    verdict: str
    reason: str
    seconds: float
    module: str | None = None
    op: str | None = None
    source: str | None = None
    forward_op: str | None = None
    forward_source: str | None = None
    phase: str | None = None
    mechanism: str | None = None
    tensor: str | None = None
    tensor_index: tuple[int, ...] | None = None
    owner: str | None = None
    steps: tuple[tuple[str, str, str], ...] = ()
    """Each step's name, verdict and reason."""


def run(case: Case, path: Path, cache: Path) -> Answered:
    """Ask the tool about a model folder or a script."""
    begin = time.monotonic()
    subject = "script" if case.is_script else "model"
    by_itself = (s for s in asked_by("run", subject) if not s.is_ablation and s.option is None)
    steps = [s.name for s in by_itself if s.name not in LEFT_OUT]
    found = judged(case, path, cache, steps)
    found = replace(found, owner=owner(found, excluded(found)))
    seconds = time.monotonic() - begin

    origin = found.origin
    said = {} if origin is None else {
        name: getattr(origin, name)
        for name in ("module", "op", "source", "forward_op", "forward_source", "phase", "mechanism", "tensor",
                     "tensor_index")
    }  # fmt: skip
    return Answered(
        verdict=found.verdict.value,
        reason=found.reason,
        seconds=seconds,
        owner=None if found.owner is None else found.owner.project,
        steps=tuple((row.step, row.verdict.value, row.reason) for row in found.steps),
        **said,
    )


def judged(case: Case, path: Path, cache: Path, steps: list[str]) -> Answer:
    """What the tool finds in these steps. No owner stands in it yet, for that may need a verified script."""
    asked = records.Case(
        model=str(path),
        dtype=case.dtype,
        attn=case.attn,
        prompts=() if case.prompt is None else (case.prompt,),
        trust_remote_code=case.trusted,
    )
    stream = io.StringIO()
    plan = {"steps": steps, "case": json.loads(json.dumps(_plain(asked))), "cache": str(cache)}
    with mock.patch.object(child, "plain", forked):
        run_plan(plan, Emitter(stream))
    return _answer(asked, stream.getvalue())


def forked(path: str) -> child.Ended:
    """A script's plain run, in a fork of this process in place of a fresh interpreter, which imports PyTorch anew."""
    return dataclasses.replace(child.run(child.Job(path)), how=None)


def _plain(case: records.Case) -> dict[str, object]:
    return {
        "model": case.model, "revision": None, "weights": case.weights, "config": None, "device": "cpu",
        "dtype": case.dtype, "attn": case.attn, "prompts": list(case.prompts),
        "trust_remote_code": case.trust_remote_code,
    }  # fmt: skip


def _answer(case: records.Case, events: str) -> Answer:
    """The host's judgement of the kit's events."""
    observations = {}
    for event in map(json.loads, events.splitlines()):
        if event["event"] != "end":
            continue
        error = event["error"]
        observations[event["step"]] = records.Observation(
            step=event["step"],
            ending=records.Ending.ENDED,
            verdict=records.Verdict(records.Outcome(event["verdict"]), event["reason"] or "no reason was given"),
            seconds=event["seconds"],
            argv=(),
            cell=HERE,
            kit_sha256="0" * 64,
            payload=event["payload"],
            failure=None if error is None else records.Failure(error["type"], error["message"], error["traceback"]),
        )
    deciding = "script" if case.is_script else "forward"
    header = records.Header(case, HERE, "0" * 64, "score", ("repro", case.model), "2026-01-01")
    return answer(judge(observations, case, deciding), observations, header)
