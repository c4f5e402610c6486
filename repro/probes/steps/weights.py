"""The step ``weights``: every tensor of the checkpoint, read in small chunks."""

from typing import Any

from ..checkpoint import weights
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    source = session.source()
    if source.folder is None:
        return "skip", f"random weights of seed {source.seed}: no file is read", None
    return weights.check(source.folder, session.emitter.progress, source.stored_as, source.adapter)
