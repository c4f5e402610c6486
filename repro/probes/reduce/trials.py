"""Trials of a reduction: each is announced before it starts, so that one that kills the process is known for it.

A reduction asks the same questions in the same order each time it is run. So a process that goes on behind a crash
takes the answers that are on record, counts the trial that had none as failed, and asks from there.
"""

import time
from typing import Any, Callable, Optional, TypeVar

from ..protocol.failures import in_words

# Where a stage of a reduction stops asking: a smaller script is not worth an hour. What was found by then is used.
SECONDS = 90.0

Event = Callable[..., None]
Made = TypeVar("Made")


class Trials:
    """Asks questions whose answer is yes or no, each once.

    event: where a trial is announced and answered. known: answers of earlier processes by the trial's name; None for
    one that never ended. asked, crashed: how many questions were asked, and how many trials killed their process.
    notes: what was not tried, or went wrong, in words for the reader.
    """

    def __init__(self, event: Event, known: Optional[dict[str, Optional[bool]]] = None) -> None:
        self._event = event
        self._known = dict(known or {})
        self.asked = 0
        self.crashed = sum(answer is None for answer in self._known.values())
        self.notes: list[str] = []
        self._made = 0
        self.begin("the reduction")

    def begin(self, stage: str) -> None:
        """A stage has SECONDS of its own, so that a slow one leaves the next ones theirs."""
        self._stage = stage
        self._end = time.monotonic() + SECONDS

    @property
    def over(self) -> bool:
        """Whether the stage's time is up: every further question that is not on record is answered by no."""
        return time.monotonic() > self._end

    def ask(self, what: str, question: Callable[[], bool]) -> bool:
        """Whether ``question`` says yes. One that raises says no: an operator that refuses its inputs shows no fault.

        what: a few words for the record.
        """
        name = f"{self.asked + 1}: {what}"
        if name in self._known:
            self.asked += 1
            return bool(self._known.pop(name))
        if self.over:
            self._say(f"the time for {self._stage} was up after {SECONDS:g} s: a smaller case may exist")
            return False
        self.asked += 1
        self._event("trial", trial=name, holds=None)
        try:
            holds = bool(question())
        except Exception:  # noqa: BLE001 - see above
            holds = False
        self._event("trial", trial=name, holds=holds)
        return holds

    def attempt(self, what: str, make: Callable[[], Made], may_raise: bool = False) -> Optional[Made]:
        """What ``make`` gives; None, and a note, where it raises or killed an earlier process.

        For work between the questions that runs the model's code as well. It is made again in every process.

        may_raise: one that raises is nothing to speak of.
        """
        self._made += 1
        name = f"made {self._made}: {what}"
        if self._known.pop(name, True) is None:
            self._say(f"{what}: this killed the process")
            return None
        self._event("trial", trial=name, holds=None)
        made: Optional[Made] = None
        try:
            made = make()
        except Exception as error:  # noqa: BLE001 - the model's code may raise anything
            if not may_raise:
                self._say(f"{what}: {in_words(error)}")
        self._event("trial", trial=name, holds=made is not None)
        return made

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def ddmin(items: list[Any], holds: Callable[[list[Any]], bool]) -> list[Any]:
    """A part of ``items``, in order, that still holds and of which no single item can be left out.

    ``items`` themselves must hold. Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input
    (2002), the algorithm ddmin.
    """
    parts = 2
    while len(items) >= 2:
        bounds = [len(items) * part // parts for part in range(parts + 1)]
        chunks = [items[begin:end] for begin, end in zip(bounds, bounds[1:])]
        for chunk in chunks:
            if holds(chunk):
                items, parts = chunk, 2
                break
        else:
            for begin, end in zip(bounds, bounds[1:]):
                rest = items[:begin] + items[end:]
                if parts > 2 and holds(rest):  # of two parts, one's rest is the other
                    items, parts = rest, max(parts - 1, 2)
                    break
            else:
                if parts >= len(items):
                    break
                parts = min(2 * parts, len(items))
    return items
