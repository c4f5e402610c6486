"""The step ``load``: the model as from_pretrained gives it, held against its files."""

from typing import Any

from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    found: Outcome = session.load_outcome()
    return found
