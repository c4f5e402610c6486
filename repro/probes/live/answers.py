"""What was found in the user's own process, as the answers of the steps that a command would have run."""

from typing import Any, Optional

from ..model.compat import CannotLoad
from ..model.load import Loaded
from ..model.ready import MEMORY
from ..model.session import Session
from ..origin.search import sentence
from ..protocol.wire import Emitter, Outcome, jsonable
from ..reduce.program import Program
from .again import LOSS, Told
from .find import Found
from .sharded import Together
from .watching import Sighting, Watching

REDUCED = (
    "the backward pass of each of the {} processes is good when it is made again by itself: the gradients turn bad "
    "where those of all are added up"
)
SHOWN = 8  # examples of a batch that are named


def watch_outcome(watching: Watching) -> Outcome:
    """The step ``watch``: did a NaN or Inf arrive anywhere?"""
    seen = watching.sighting
    payload = {"operators": watching.operators, "unseen": watching.unseen, "scaled": watching.scaled}
    if seen is not None:
        arrival = {"arrived": seen.arrival.words, "phase": seen.arrival.phase}
        return "bad", f"a NaN or Inf arrived in {seen.arrival.words}", {**payload, **arrival}
    words = f"no NaN or Inf arrived in {watching.looked_at}; {watching.operators:,} operators"
    if watching.leaves_some:
        words += "; one that an operator made is still in use elsewhere, such as in what a backward pass needs"
    if watching.scaled:
        words += f"; {watching.scaled} overflows of scaled gradients, which the loss scaler threw away"
    if watching.threads:
        count = "a thread" if watching.threads == 1 else f"{watching.threads} threads"
        words += f"; the code started {count}, and what ran there was not watched"
        if watching.foreign is not None:
            words = (
                f"{watching.foreign} holds a NaN or Inf that no watched operator made; the code started {count}, and "
            )
            words += "what ran there was not watched: watch inside of the function that the thread runs"
            return "skip", words, payload
    if not watching.operators:
        return "skip", "nothing ran: no operator of PyTorch was seen in this thread", payload
    if watching.returns_some:
        why = (
            "a NaN or Inf that an operator made is still in use, and the block returned a value that no variable holds"
        )
        return "skip", f"{why}: give it a name in the block before it is returned, and it is looked at", payload
    if watching.copied is not None:
        why = f"an operator made a NaN or Inf, and the array {watching.copied}, which is NumPy's own, holds one since"
        return "skip", f"{why}: whether it is that one is not known", payload
    return "good", words, payload


def bisect_outcome(watching: Watching) -> Optional[Outcome]:
    """The step ``bisect``; None where nothing arrived."""
    return None if watching.sighting is None else bisect_of_sighting(watching.sighting)


def bisect_of_sighting(seen: Sighting) -> Outcome:
    """The origin of what arrived; the whole search's answer where a call of the model was made again."""
    if seen.call is not None and seen.call.bisected is not None:
        verdict, reason, told = seen.call.bisected
        return verdict, reason, {**(told or {}), "origin": seen.origin}
    payload = nothing_found()
    if seen.origin is None:
        return "skip", f"a NaN or Inf arrived in {seen.arrival.words}, and {seen.why}", payload
    origin = {**seen.origin, "confirmed": True, "confirmed_by": seen.confirmed_by}
    output = origin.get("output") or {}
    payload.update(origin=origin, limit=origin.get("limit"), dtype=output.get("dtype"))
    return "bad", sentence(origin), payload


def nothing_found() -> dict[str, Any]:
    """The payload of a bisect step that names no origin."""
    return {
        "origin": None, "prompt": None, "spread": [], "headroom": [], "limit": None, "dtype": None, "ruled_out": [],
        "screened_calls": 0,
    }  # fmt: skip


class OfCall(Session):
    """A session about a call of a module in memory: nothing is loaded, and what is known is not asked again."""

    def __init__(self, call: Found, cache: str, emitter: Emitter) -> None:
        super().__init__({"model": "", "weights": MEMORY}, cache, emitter)
        self._source, self._loaded = call.loaded.source, call.loaded
        self._inputs, self._passes = [call.given], None if call.seen is None else [call.seen]
        self.bisected = call.bisected
        self._refused = (call.phase,)
        self.call: Optional[Found] = call

    def loaded(self) -> Loaded:
        """
        Raises:
            CannotLoad: the module is no longer what it was when it was called.
        """
        assert self.call is not None  # given to it
        if not self.call.is_as_it_was:
            raise CannotLoad("the module's weights or mode were changed after the call: it cannot be asked any more")
        found: Loaded = super().loaded()
        return found


class OfOperators(Session):
    """A session about code that is over: of what ran, only the operators that show the fault are left, and the call of
    the model that gave it, where it was one.
    """

    def __init__(
        self, bisected: Outcome, program: Optional[Program], cache: str, emitter: Emitter, call: Optional[Found] = None
    ) -> None:
        super().__init__({"model": "", "weights": MEMORY}, cache, emitter)
        self.bisected, self.program, self.call = bisected, program, call

    @property
    def is_whole(self) -> bool:
        return False


def guard_outcome(told: Told, step: Optional[int], process: Optional[int] = None) -> Outcome:
    """The step ``watch`` of a guarded training loop. step: its number, from 1. process: which of several this is."""
    where = "" if step is None else f" in step {step:,}"
    where += "" if process is None else f", in process {process}"
    first = None if told.sighting is None else (told.sighting.origin or {}).get("gradient")
    what = f"the gradient of {first}" if first else told.bad.what
    words = f"{what} holds a NaN or Inf{where}"
    if told.examples and told.batch and len(told.examples) < told.batch:
        at = ", ".join(map(str, told.examples[:SHOWN])) + (", ..." if len(told.examples) > SHOWN else "")
        which = f"example {at} gives" if len(told.examples) == 1 else f"examples {at} give"
        words += f"; of the {told.batch} in the batch (from 0), {which} one alone, the others do not"
    elif told.examples and told.batch:
        words += f"; each of the {told.batch} examples in the batch gives one alone"
    elif told.examples is not None and told.batch:
        words += f"; none of the {told.batch} examples in the batch gives one alone"
    phase = told.bad.kind if told.bad.kind == LOSS else told.bad.phase
    payload = {"arrived": what, "phase": phase, "step": step, "examples": told.examples, "batch": told.batch}
    return "bad", words, payload


def of_all(told: Told, step: Optional[int], together: Optional[Together]) -> "tuple[Outcome, Outcome, bool]":
    """The steps ``watch`` and ``bisect`` of a guarded training loop, and whether they are this process's own. together:
    the processes that hold the model, of which the first with an origin answers for all.
    """
    watched, bisected = guard_outcome(told, step, None if together is None else together.rank), bisect_of_step(told)
    if together is None:
        return watched, bisected, True
    rows = together.gathered(jsonable([told.bad.elsewhere, told.is_good, watched, bisected]))
    chosen = min(rows, key=lambda rank: (rows[rank][3][0] != "bad", rows[rank][0], rank))
    if chosen != together.rank:
        watched, bisected = (tuple(outcome) for outcome in rows[chosen][2:])
    if told.bad.phase == "backward" and all(row[1] for row in rows.values()):
        bisected = (bisected[0], REDUCED.format(len(rows)), bisected[2])
    return watched, bisected, chosen == together.rank


def bisect_of_step(told: Told) -> Outcome:
    """The step ``bisect`` of a guarded training loop."""
    if told.sighting is not None:
        return bisect_of_sighting(told.sighting)
    if told.found is not None and told.found.bisected is not None and not told.why:
        verdict, reason, payload = told.found.bisected
        origin = (payload or {}).get("origin")
        return verdict, reason, {**(payload or {}), "origin": origin and {**origin, "phase": "forward"}}
    return "skip", told.why, nothing_found()
