"""What a plan asks of the diff step: another way in this process."""

from typing import Any

from ..protocol.wire import Outcome
from .diff import answer, held_against, make
from .ways import NoSuchWay, named, plain, several


def asked(session: Any) -> Outcome:
    """Verdict, reason and payload."""
    against = str(session.case.get("against"))
    loaded, inputs = session.loaded(), tuple(session.inputs())
    told = session.emitter.progress
    if against.partition(":")[0] == "batch":
        inputs = several(loaded, inputs, session.trusted)
    try:
        other = named(loaded, inputs, session.case, against)
        this = plain(inputs)
        made = make(loaded.model, this, inputs, told)
        verdict, reason, payload = answer(held_against(loaded.model, made, other, told), this)
    except NoSuchWay as error:
        return "skip", str(error), None
    payload = dict(payload or {})
    payload["against"] = against
    payload["prompts"] = [item.record() for item in inputs]
    return verdict, reason, payload
