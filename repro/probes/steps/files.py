"""The step ``files``: headers, shards, sizes, alignment, and the hashes of cached blobs."""

from typing import Any

from ..checkpoint import files
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    source = session.source()
    if source.folder is None:
        payload: dict[str, Any] = dict.fromkeys(("folder", "revision"))
        payload.update(source=source.kind, format="none", files=[], findings=[])
        return "skip", f"random weights of seed {source.seed}: no file is read", payload
    verdict, reason, payload = files.check(source, session.emitter.progress)
    return verdict, "; ".join(filter(None, [reason, source.note])), payload
