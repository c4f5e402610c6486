"""What every table of the report shares: how a number is shown, and which rows are left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.encoding import number
from repro.core.sentences import plain

DIGITS = 6
DASH = "-"
EDGE_ROWS = 3
"""How many rows at each end of a thinned table stay."""

Row = list[str]
Json = Mapping[str, Any]


def shown_number(value: object) -> str:
    """A number as the report gives it; a dash where there is none."""
    found = number(value)
    if found is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else plain(found, DIGITS)


def thinned(items: Sequence[Any], rows: int, keep: set[int]) -> tuple[list[Any], str | None]:
    """At most ``rows`` items in order: those to keep first, then the first, the last, and some evenly between."""
    if len(items) <= rows:
        return list(items), None
    wanted = [index for index in sorted(keep) if 0 <= index < len(items)]
    wanted += [*range(EDGE_ROWS), *range(len(items) - EDGE_ROWS, len(items))]
    wanted += [round(place * (len(items) - 1) / (rows - 1)) for place in range(rows)] if rows > 1 else []
    chosen = sorted(list(dict.fromkeys(wanted))[:rows])
    return [items[index] for index in chosen], f"{len(chosen)} of {len(items)} rows are shown; verdict.json has all."


def first_of(items: Sequence[Any], rows: int, what: str) -> tuple[list[Any], str | None]:
    shown = list(items[:rows])
    return shown, f"The first {rows} of {len(items):,} {what} are shown." if len(items) > rows else None
