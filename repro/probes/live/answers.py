"""What was found in the user's own process, as the answers of the steps that a command would have run."""

from typing import Any, Optional

from torch import nn

from ..model.compat import CannotLoad
from ..model.load import Loaded
from ..model.ready import MEMORY
from ..model.session import Session
from ..observe.screen import version_of
from ..origin.search import sentence
from ..protocol.wire import Emitter, Outcome
from .find import Found
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


class OfCall(Session):
    """A session about a call of a module in memory: nothing is loaded, and what is known is not asked again."""

    def __init__(self, call: Found, cache: str, emitter: Emitter) -> None:
        super().__init__({"model": "", "weights": MEMORY}, cache, emitter)
        self._source, self._loaded = call.loaded.source, call.loaded
        self._inputs, self._passes = [call.seen.inputs], [call.seen]
        self.bisected = call.bisected
        self._versions = _versions(call.loaded.model)

    def loaded(self) -> Loaded:
        """
        Raises:
            CannotLoad: the module is no longer what it was when it was called.
        """
        if _versions(self._loaded.model) != self._versions:
            raise CannotLoad("the module's weights were changed after the call, so it cannot be asked any more")
        found: Loaded = super().loaded()
        return found


class OfWatch(Session):
    """A session about what was watched: of what ran, only the operators that show the fault are left."""

    def __init__(self, watching: Watching, cache: str, emitter: Emitter) -> None:
        super().__init__({"model": "", "weights": MEMORY}, cache, emitter)
        self.program = None if watching.sighting is None else watching.sighting.program
        self.bisected = bisect_outcome(watching)

    @property
    def is_whole(self) -> bool:
        return False


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """What changes when a parameter is replaced or written to."""
    return [(tensor.data_ptr(), version_of(tensor)) for tensor in model.parameters()]
