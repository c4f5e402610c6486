"""The step ``forward``: the case's own passes, and a repeat."""

from typing import Any

from ..model.forward import judge
from ..phases.answer import outcome, refused
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    phase = refused(session)
    if phase is not None:
        return outcome(phase)
    return judge(session.passes(), session.source().seed is not None)
