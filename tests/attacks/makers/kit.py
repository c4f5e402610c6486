"""The kit alone, asked in a process that was forked off one which has imported PyTorch: that is quicker."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import deed

LONGEST_REASON = 1000


@deed
def kit(
    place: Path, steps: Sequence[str], verdict: str, says: Sequence[str], model: str = "model", limits: str = "",
    weights: str = "checkpoint", prompt: str = "", seconds: float = 60, memory_mb: int = 2000,
) -> Iterator[str]:  # fmt: skip
    """Ask the kit its steps of a model.

    Args:
        place: The attack's folder.
        steps: Which.
        verdict: "good" holds where every step is good; "bad" and "skip" where one is that.
        says: Regular expressions that are found in the reasons.
        model: Its name below the folder.
        limits: The factor for all limits; the default is 1.
        weights: "checkpoint" or "random:SEED".
        prompt: A prompt of one's own.
        seconds: The time that the steps may take.
        memory_mb: The greatest resident set that the process may have.
    """
    told = place / "events.jsonl"
    process = os.fork()
    if not process:
        _answer(place / model, steps, told, limits, weights, prompt)
    status, usage = _ended(process, seconds)
    if status is None:
        yield f"it did not end within {seconds:g} s"
        return
    if status:
        yield f"the kit ended with {status}: {told.read_text('utf-8')[-400:]!r}"
    events = [json.loads(line) for line in told.read_text("utf-8").splitlines()]
    ends = [event for event in events if event["event"] == "end"]
    verdicts, reasons = [end["verdict"] for end in ends], "\n".join(end["reason"] for end in ends)
    if (set(verdicts) != {"good"}) if verdict == "good" else (verdict not in verdicts):
        yield f"the verdicts are {verdicts}, and {verdict} holds: {reasons!r}"
    for pattern in says:
        if not re.search(pattern, reasons):
            yield f"no reason matches {pattern!r}: {reasons!r}"
    for end in ends:
        if len(end["reason"]) > LONGEST_REASON:
            yield f"a reason of {len(end['reason'])} characters"
    used = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    if used > memory_mb:
        yield f"the process took {used:.0f} MB, and {memory_mb} MB is the most that holds"


def _answer(model: Path, steps: Sequence[str], told: Path, limits: str, weights: str, prompt: str) -> None:
    """The kit's process; it does not come back."""
    status = 70
    try:
        os.environ.pop("REPRO_LIMITS", None)
        if limits:
            os.environ["REPRO_LIMITS"] = limits
        from repro.probes.main import run_plan
        from repro.probes.protocol.wire import Emitter

        case: dict[str, Any] = dict.fromkeys(("revision", "config", "device", "dtype", "attn", "texts"))
        case.update(model=str(model), weights=weights, prompts=[prompt] if prompt else [], trust_remote_code=False)
        stream = io.StringIO()
        try:
            run_plan({"steps": list(steps), "case": case, "cache": str(model.parent / "cache")}, Emitter(stream))
            status = 0
        finally:
            told.write_text(stream.getvalue(), "utf-8")
    except BaseException as error:  # noqa: BLE001 - the parent is told, and no test runner's frame is gone back to
        with told.open("a", encoding="utf-8") as stream_of_errors:
            stream_of_errors.write(f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _ended(process: int, seconds: float) -> tuple[int | None, resource.struct_rusage]:
    """Exit status and usage of a child; no status where it did not end in time, and was killed."""
    until = time.monotonic() + seconds
    while True:
        found, status, usage = os.wait4(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
            return None, os.wait4(process, 0)[2]
        time.sleep(0.02)
