"""The step ``generate``: prefill and each decoding step of a generation."""

from typing import Any

from ..phases.answer import asked, outcome
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    phase = asked(session)
    if phase is None:
        return "skip", "no generation was asked for: give --generate N", None
    return outcome(phase)
