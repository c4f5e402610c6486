"""The step ``train``: forward, loss, backward, clipping and optimizer of a training's first steps."""

from typing import Any

from ..phases.answer import asked, outcome
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    phase = asked(session)
    if phase is None:
        return "skip", "no training was asked for: give --train-step", None
    return outcome(phase)
