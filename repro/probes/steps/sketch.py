"""The step ``sketch``: what finite passes end with, in few numbers, for a table of environments."""

from typing import Any

from ..model.compat import quiet
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    from ..differing.sketch import drawn_weights, sketch

    passes = session.passes()
    if any(seen.bad for seen in passes):
        return "skip", "the output is not finite", None
    with quiet():
        weights = drawn_weights(session.loaded())
        found = [{"weights": weights, **sketch(session.loaded(), seen)} for seen in passes]
    return "good", "what it ends with is kept, to be held against that of other environments", {"passes": found}
