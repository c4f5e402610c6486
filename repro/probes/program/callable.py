"""A callable of this process as something that can be run again, each time from the same state.

What it gives back and what it leaves behind decides: NaN or Inf in a tensor that it returns, in a gradient, in a
parameter or a buffer is bad. A step that a GradScaler leaves out because its gradients overflow is how loss scaling
works: such gradients are bad only if they are so without any scale as well.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Callable, Optional

from torch import Tensor, nn

from ..observe.watch import Names
from ..values.nest import items_in
from .capture import Found, Wanted, capture
from .ends import Ended, Ends, bad_names, judged, left_behind, returned, stopped
from .makers import Rule, look
from .settings import applied
from .state import State

SECONDS = 300.0  # all runs together, beyond the first

Around = tuple["contextlib.AbstractContextManager[Any]", Callable[[], Any]]


class Program:
    """``run`` as something that can be run again.

    state: what it changes: modules, optimizers, schedulers, scalers, tensors, and nests of these. It is copied once,
    and put back behind each run, also where that raises. ends: the named tensors of what ``run`` gives back, of which
    none may hold a NaN or Inf; None for all of them. settings: what is changed in every run. noun: what it is called.
    unchanged: tensors of the state that no run writes to, of which no copy is made.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        state: Iterable[Any] = (),
        ends: Optional[Ends] = None,
        settings: tuple[str, ...] = (),
        noun: str = "the program",
        seconds: float = SECONDS,
        unchanged: Iterable[Tensor] = (),
    ) -> None:
        self.noun = noun
        self.seconds = seconds
        self._run = run
        self._things = list(state)
        self._ends = ends or returned
        self._settings = settings
        self._end: Optional[float] = None
        self._state = State(self._things, unchanged)
        self._bad_before = bad_names(left_behind(self._things))
        self._unscaled = False
        self._plain: Optional[Ended] = None
        self._changed: dict[tuple[str, ...], Ended] = {}

    @property
    def plain(self) -> Ended:
        """The run that nothing watches."""
        if self._plain is None:
            self._plain = self._once()
            if self._plain.skipped and self._plain.verdict == "good":
                self._unscaled = True
                unscaled = self._once()
                if unscaled.verdict == "bad":
                    self._plain = replace(unscaled, reason=f"{unscaled.reason}, without any loss scale as well")
                else:
                    self._unscaled = False
        return self._plain

    @property
    def is_over(self) -> bool:
        """Whether the search has taken its time, which starts with its first question."""
        if self._end is None:
            self._end = time.monotonic() + self.seconds
        return time.monotonic() > self._end

    def look(self, rule: Rule) -> Ended:
        return self._once(look(rule, self._names()))

    def within(self, around: Around) -> Ended:
        """Inside of a context of the caller's own; what that found is in the answer."""
        return self._once(around)

    def capture(self, wanted: Wanted) -> Optional[Found]:
        found: Optional[Found] = self._once(capture(wanted, self._names())).found
        return found

    def unwatched(self, *settings: str) -> Ended:
        """Not watched, with these settings; the same question is asked once."""
        if settings not in self._changed:
            self._changed[settings] = self._once(settings=settings)
        return self._changed[settings]

    def with_settings(self, *settings: str) -> "Program":
        other = object.__new__(Program)
        vars(other).update(vars(self), _settings=settings, _changed={})
        return other

    def same(self, ended: Ended) -> bool:
        """Whether it failed as the plain run did: it raised the same, or something is bad that was bad then. Repaired
        in part, fewer tensors may be bad.
        """
        if self.plain.raised is not None:
            return ended.raised == self.plain.raised
        return ended.raised is None and bool(ended.bad & self.plain.bad)

    def well(self, ended: Ended) -> bool:
        """Whether the failure is gone: nothing is bad, or it does not raise what it raised."""
        if ended.verdict == "good":
            return True
        return self.plain.raised is not None and ended.raised not in (None, self.plain.raised)

    def _names(self) -> Names:
        return Names(items_in(self._things, nn.Module))

    def _once(self, around: Optional[Around] = None, settings: Optional[tuple[str, ...]] = None) -> Ended:
        """One run from the state that was kept, which is put back behind it."""
        context, found = around or (contextlib.nullcontext(), lambda: None)
        chosen = self._settings if settings is None else settings
        try:
            if self._unscaled:
                self._without_scale()
            before = self._scales()
            try:
                with applied(chosen):
                    result = None
                    with context:
                        result = self._run()
            except Exception as error:  # noqa: BLE001 - how the program ends
                return stopped(error, found())
            skipped = any(after < scale for after, scale in zip(self._scales(), before))
            spared = skipped and not self._unscaled
            named = [*self._ends(result), *left_behind(self._things)]
            named = [item for item in named if not (spared and item[0].startswith("gradient "))]
            return judged(bad_names(named) - self._bad_before, skipped, found())
        finally:
            self._state.put_back()

    def _scalers(self) -> Iterator[Any]:
        for thing in self._things:
            if hasattr(thing, "get_scale") and hasattr(thing, "unscale_") and thing.is_enabled():
                yield thing

    def _scales(self) -> list[float]:
        return [float(scaler.get_scale()) for scaler in self._scalers()]

    def _without_scale(self) -> None:
        for scaler in self._scalers():
            scaler.load_state_dict({**scaler.state_dict(), "scale": 1.0})
