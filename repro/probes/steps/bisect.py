"""The step ``bisect``: where the first bad number is born."""

from typing import Any

from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    """The answer is kept in the session, for the reduction starts from it."""
    if session.is_script:
        from ..script.answer import asked
        from ..script.answer import bisect as bisect_script

        session.bisected = bisect_script(session.keep_script(asked))
    else:
        from ..origin.search import bisect

        session.bisected = bisect(session.loaded(), session.passes())
        origin = (session.bisected[2] or {}).get("origin")
        if origin and origin.get("tensor"):
            origin["stored_as"] = session.source().stored_as.get(origin["tensor"])
            if ".lora_" in origin["tensor"]:
                origin["stored_as"] = session.loaded().from_file.get(origin["tensor"], (None, None))[1]
    found: Outcome = session.bisected
    return found
