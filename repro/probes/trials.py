"""Trials of a reduction: each is announced before it starts, so that one that kills the process is known for it.

A reduction asks the same questions in the same order each time it is run. So a process that goes on behind a crash
takes the answers that are on record, counts the trial that had none as failed, and asks from there.
"""

import time
from typing import Any, Callable, Optional

# Where a reduction stops asking: a smaller script is not worth an hour. What was found by then is used.
SECONDS = 180.0

Event = Callable[..., None]


class Trials:
    """Asks questions whose answer is yes or no, each once.

    event: where a trial is announced and answered. known: answers of earlier processes by the trial's name; None for
    one that never ended.
    """

    def __init__(self, event: Event, known: Optional[dict[str, Optional[bool]]] = None) -> None:
        self._event = event
        self._known = dict(known or {})
        self._end = time.monotonic() + SECONDS
        self.asked = 0
        self.crashed = sum(answer is None for answer in self._known.values())

    def ask(self, what: str, question: Callable[[], bool]) -> bool:
        """Whether ``question`` says yes. One that raises says no: an operator that refuses its inputs shows no fault.

        what: a few words for the record.
        """
        if self.over and not self._known:
            return False
        self.asked += 1
        name = f"{self.asked}: {what}"
        if name in self._known:
            return bool(self._known.pop(name))
        self._event("trial", trial=name, holds=None)
        try:
            holds = bool(question())
        except Exception:  # noqa: BLE001 - see above
            holds = False
        self._event("trial", trial=name, holds=holds)
        return holds

    @property
    def over(self) -> bool:
        """Whether the time is up: every further answer is no."""
        return time.monotonic() > self._end


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
            if len(chunk) < len(items) and holds(chunk):
                items, parts = chunk, 2
                break
        else:
            for begin, end in zip(bounds, bounds[1:]):
                rest = items[:begin] + items[end:]
                if parts > 2 and holds(rest):
                    items, parts = rest, max(parts - 1, 2)
                    break
            else:
                if parts >= len(items):
                    break
                parts = min(2 * parts, len(items))
    return items
