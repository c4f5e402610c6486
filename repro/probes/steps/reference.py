"""The step ``reference``: each operator of the case's passes held against float64 of its own inputs; and of what
overflows inside of a finite pass, whether it matters. Where it is bad, how the error grows in the free run.
"""

from typing import Any

from ..differing.free import free_run
from ..model.compat import quiet
from ..model.forward import Pass
from ..narrow.swallowed import OPEN, WRONG, asked, origin_of
from ..protocol.wire import Outcome
from ..rounding.check import Born
from ..rounding.run import hold
from ..values.figures import dtype_name


def run(session: Any, step: str) -> Outcome:
    """The first departure, or overflow that is swallowed, is kept in the session, for the reduction starts from it."""
    born: list[tuple[Pass, Born]] = []
    found, session.departure = hold(session.loaded(), session.passes(), born)
    found = _with_swallowed(session, found, born) if found[0] == "good" else found
    if found[0] == "bad" and found[2] is not None:
        with quiet():
            found[2]["growth"] = free_run(session.loaded(), session.passes()[found[2]["prompt"]].inputs)
    return found


def _with_swallowed(session: Any, found: Outcome, born: list[tuple[Pass, Born]]) -> Outcome:
    """The same, with what became of values that were not finite inside of the passes."""
    verdict, reason, payload = found
    assert payload is not None  # a good one has figures
    loaded, passes = session.loaded(), session.passes()
    told: set[tuple[int, Any]] = set()
    rows = payload["swallowed"] = []
    for seen, each in born:
        prompt = next(at for at, one in enumerate(passes) if one is seen)
        if (prompt, each.dtype) in told:
            continue
        told.add((prompt, each.dtype))
        with quiet():
            said = asked(loaded, seen, each.dtype)
        rows.append({"prompt": prompt, "verdict": said.verdict, "reason": said.reason, **_words(each)})
        if said.verdict == WRONG:
            session.swallowed = (said, seen)
            origin = origin_of(loaded, seen, said)
            payload.update(origin=origin, prompt=prompt)
            return "bad", f"{origin['op']} in {_where(origin)} overflows inside; {said.reason}", payload
    return verdict, reason + "".join(map(_note, rows)), payload


def _words(born: Born) -> dict[str, Any]:
    """The operator that made the first of them."""
    found = {"module": born.address.module, "op": born.address.op, "source": born.source, "value": born.value}
    return {"dtype": dtype_name(born.dtype), **found}


def _where(found: dict[str, Any]) -> str:
    return found["module"] or "the model"


def _note(row: dict[str, Any]) -> str:
    said = "whether that matters could not be told" if row["verdict"] == OPEN else "that makes no difference"
    return f"; {row['op']} in {_where(row)} gives {row['value']:g} inside, and {said}: {row['reason']}"
