"""The step ``reduce``: the smallest case that shows the same fault."""

import functools
from typing import Any

from ..phases.answer import asked as asked_phase
from ..phases.answer import refused
from ..program.answer import smallest
from ..protocol.wire import Outcome
from ..reduce.trials import Trials
from . import bisect


def run(session: Any, step: str) -> Outcome:
    found: Outcome = session.bisected or bisect.run(session, "bisect")
    verdict, reason, payload = found
    trials = Trials(functools.partial(session.emitter.event, step=step), session.trials)
    if session.is_script:
        from ..listing.answer import reduce as reduce_script
        from ..script.answer import asked

        return reduce_script(session.keep_script(asked), found, trials)
    if not session.is_whole:
        return smallest(session.program, trials)
    if session.departure is not None and verdict == "good":
        from ..rounding.smaller import reduce as reduce_departure

        return reduce_departure(session.loaded(), session.departure, trials)
    if session.swallowed is not None and verdict == "good":
        from ..narrow.smaller import reduce as reduce_swallowed

        overflow, seen = session.swallowed
        return reduce_swallowed(session.loaded(), overflow, seen, trials)
    phase = asked_phase(session) or refused(session)
    if phase is not None and phase.bisected:
        return smallest(phase.operators, trials) if verdict == "bad" else (verdict, reason, None)
    from ..reduce.reduce import reduce

    return reduce(session.loaded(), session.passes(), (payload or {}).get("origin"), trials, session.trusted)
