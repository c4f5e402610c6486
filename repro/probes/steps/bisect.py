"""The step ``bisect``: where the first bad number is born."""

from typing import Any

from ..phases.answer import asked, placed, refused
from ..phases.answer import bisect as bisect_phase
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    """The answer is kept in the session, for the reduction starts from it."""
    if session.is_script:
        from ..script.answer import asked as asked_script
        from ..script.answer import bisect as bisect_script

        of_script: Outcome = bisect_script(session.keep_script(asked_script))
        session.bisected = of_script
        return of_script
    phase = asked(session)
    if phase is not None and not _is_bad_before(session):
        session.bisected = bisect_phase(phase, session.trusted)
    elif phase is None and (raises := refused(session)) is not None:
        session.bisected = bisect_phase(raises, session.trusted)
    else:
        from ..origin.search import bisect

        session.bisected = bisect(session.loaded(), session.passes())
        origin = (session.bisected[2] or {}).get("origin")
        if origin and phase is not None:
            placed(phase, origin)
        if origin and origin.get("tensor"):
            source, place = session.source(), session.loaded().from_file.get(origin["tensor"])
            origin["stored_as"] = source.stored_as.get(origin["tensor"])
            if source.adapter is not None and place is not None and place[0].startswith(source.adapter):
                origin["stored_as"] = place[1]
    found: Outcome = session.bisected
    return found


def _is_bad_before(session: Any) -> bool:
    """Whether the forward pass alone is bad: its walk tells more, and a phase begins with it. One that the model does
    not take alone says nothing.
    """
    try:
        return any(seen.bad for seen in session.passes())
    except Exception:  # noqa: BLE001 - the forward step has said so
        return False
