"""What was found in the user's own process, as the answers of the steps that a command would have run."""

from typing import Any, Optional

from ..origin.search import sentence
from ..protocol.wire import Outcome
from .watching import Watching


def watch_outcome(watching: Watching) -> Outcome:
    """The step ``watch``: did a NaN or Inf arrive anywhere?"""
    seen = watching.sighting
    payload = {"operators": watching.operators, "unseen": watching.unseen, "scaled": watching.scaled}
    if seen is not None:
        arrival = {"arrived": seen.arrival.words, "phase": seen.arrival.phase}
        return "bad", f"a NaN or Inf arrived in {seen.arrival.words}", {**payload, **arrival}
    words = f"no NaN or Inf arrived anywhere; {watching.operators:,} operators"
    if watching.scaled:
        words += f"; {watching.scaled} overflows of scaled gradients, which the loss scaler threw away"
    if not watching.operators:
        return "skip", "nothing ran: no operator of PyTorch was seen in this thread", payload
    return "good", words, payload


def bisect_outcome(watching: Watching) -> Optional[Outcome]:
    """The step ``bisect``; None where nothing arrived."""
    seen = watching.sighting
    if seen is None:
        return None
    if seen.call is not None and seen.call.bisected is not None:
        verdict, reason, told = seen.call.bisected
        return verdict, reason, {**(told or {}), "origin": seen.origin}
    payload: dict[str, Any] = {
        "origin": None, "prompt": None, "spread": [], "headroom": [], "limit": None, "dtype": None, "ruled_out": [],
        "screened_calls": 0,
    }  # fmt: skip
    if seen.origin is None:
        return "skip", f"a NaN or Inf arrived in {seen.arrival.words}, and {seen.why}", payload
    origin = {**seen.origin, "confirmed": True, "confirmed_by": seen.confirmed_by}
    output = origin.get("output") or {}
    payload.update(origin=origin, limit=origin.get("limit"), dtype=output.get("dtype"))
    return "bad", sentence(origin), payload
