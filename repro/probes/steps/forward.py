"""The step ``forward``: the case's own passes, and a repeat."""

from typing import Any

from ..model.forward import judge
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    return judge(session.passes(), session.source().seed is not None)
