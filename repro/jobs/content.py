"""What a command tells a person: lines of text and tables. ``repro.cli.screen.content`` prints them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from repro.core.sentences import many as many

ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under heads. ``numbers`` are the columns, from 0, that are right-aligned."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: Collection[int] = ()


Content = Iterator[str | Table]


def number(value: int | None) -> str:
    """With marks between thousands; a dash for None."""
    return ABSENT if value is None else f"{value:,}"


def cut(text: str, most: int) -> str:
    """The text, with an ellipsis in place of what is behind ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
