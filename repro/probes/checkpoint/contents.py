"""What was found in a file of tensors."""

from collections.abc import Sequence
from typing import Any, Optional

MOST_PLACES = 10_000  # tensors that are told apart in one file; bad numbers in further ones are counted together
ELSEWHERE = "(further tensors)"


class Unreadable(Exception):
    """A file, or the rest of it, cannot be read. The message says what was found and what to do."""


class Contents:
    """How many numbers a file holds, the places with bad ones, and why parts of it were not read."""

    def __init__(self) -> None:
        self.numbers = 0
        self.places: list[dict[str, Any]] = []
        self.unread: list[str] = []

    def add(
        self,
        place: str,
        dtype: Optional[str],
        shape: Optional[Sequence[int]],
        count: int,
        bad: Sequence[int],
        first: Optional[Sequence[int]],
    ) -> None:
        """``count`` numbers of one tensor. ``bad``: how many are NaN, +inf and -inf; ``first``: the index of the first.

        A complex number counts as two: its parts.
        """
        self.numbers += count
        if not any(bad):
            return
        where = place if first is None else str(list(first))
        row: dict[str, Any] = {"place": place, "dtype": dtype, "shape": None if shape is None else list(shape)}
        row.update(first=where, count=count, nan=bad[0], posinf=bad[1], neginf=bad[2])
        if len(self.places) > MOST_PLACES:
            last = self.places[-1]
            last.update({key: last[key] + row[key] for key in ("count", "nan", "posinf", "neginf")})
        elif len(self.places) == MOST_PLACES:
            self.places.append({**row, "place": ELSEWHERE, "dtype": None, "shape": None, "first": f"{place} {where}"})
        else:
            self.places.append(row)

    def record(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"numbers": self.numbers, "places": self.places, "unread": self.unread}

    @property
    def verdict(self) -> str:
        """Nothing found beside a part that was not read is "could not tell"."""
        return "bad" if self.places else "skip" if self.unread else "good"
