"""Rows of tables that loops print: the names stand once, above the numbers.

fastai, Ultralytics and notebooks print such tables, and CSV loggers write them. A row is believed only if as many names
stand above it as it has cells.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from repro.jobs.logs.patterns import Pattern
from repro.jobs.logs.scanning import NONFINITE_WORD

MOST_ABOVE = 2000
"""Lines above a row that are searched for its names."""
MOST_SEARCHES = 50
"""Searches without names in one log, after which none is made."""
STEPS = {"step": "step", "_step": "step", "global_step": "step", "iter": "step", "iteration": "step", "epoch": "epoch"}
VALUE = re.compile(r"(?i:[-+]?(?:nan|inf|infinity))$")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?$", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z_][\w ./()%-]*$")
PATTERN = Pattern("columns/a row of a table", "quantity", (), re.compile("(?!)"), ())


@dataclass(frozen=True, slots=True)
class Row:
    """The names that are NaN or Inf in a row, and its step or epoch."""

    bad: dict[str, str]
    place: dict[str, str]


class Columns:
    """The names that stand above rows of one log."""

    pattern = PATTERN

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], list[str]] = {}
        self._searches = 0

    def first_line(self, text: str) -> None:
        """Take the first line of the log: that of a CSV file has the names."""
        self.names_of(text)

    def bad(self, text: str, above: Callable[[], Iterable[str]]) -> Row | None:
        """What is bad in a row; None where it is no row, or has no names."""
        kind, cells = _cells(text)
        if len(cells) < 2 or not any(VALUE.match(cell) for cell in cells) or not _numeric(cells):
            return None
        names = self._names.get((kind, len(cells)))
        if names is None and self._searches < MOST_SEARCHES:
            self._searches += 1
            for line in islice(above(), MOST_ABOVE):
                if self._header(line) == (kind, len(cells)):
                    names = self._names[kind, len(cells)]
                    break
        if names is None:
            return None
        bad = {
            name: "NaN" if "nan" in cell.lower() else "Inf"
            for name, cell in zip(names, cells, strict=True)
            if VALUE.match(cell)
        }
        return Row(bad, _place(names, cells))

    def names_of(self, text: str) -> None:
        """Take a line that may have the names of rows below it."""
        self._header(text)

    def named(self, text: str) -> dict[str, str]:
        """The cells of a row by their names, NaN and Inf among them; none where no names fit."""
        kind, cells = _cells(text)
        names = self._names.get((kind, len(cells)))
        return dict(zip(names, cells, strict=True)) if names is not None and len(cells) > 1 else {}

    def numbers(self, text: str) -> dict[str, str]:
        """The cells of a row of numbers by their names; none where it is no such row."""
        kind, cells = _cells(text)
        if self._header(text) is not None or len(cells) < 2 or not _numeric(cells):
            return {}
        names = self._names.get((kind, len(cells)))
        return {} if names is None else dict(zip(names, cells, strict=True))

    def _header(self, text: str) -> tuple[str, int] | None:
        """Keep the names of a line that has nothing but names."""
        kind, cells = _cells(text)
        if len(cells) < 2 or not all(NAME.match(cell) for cell in cells) or NONFINITE_WORD.search(text):
            return None
        if kind == "blanks" and not {cell.lower() for cell in cells} & {"epoch", "step", "iter", "iteration"}:
            return None  # any sentence with a wide gap has as many cells
        self._names[kind, len(cells)] = cells
        return kind, len(cells)


def _cells(text: str) -> tuple[str, list[str]]:
    text = text.rstrip("\r\n")
    if text.count("|") >= 2 and text.strip().startswith("|"):
        return "bars", [cell.strip() for cell in text.strip().strip("|").split("|")]
    if "\t" in text:
        return "tabs", [cell.strip() for cell in text.split("\t")]
    if "," in text:
        return "commas", [cell.strip().strip('"') for cell in text.split(",")]
    return "blanks", re.split(r"\s{2,}", text.strip())


def _numeric(cells: list[str]) -> bool:
    """Whether the first cell is a number, a share of epochs or missing, and half of all are numbers."""
    numbers = sum(bool(NUMBER.match(cell) or VALUE.match(cell) or not cell) for cell in cells)
    return bool(re.match(r"\d[\d./]*$|$", cells[0]) or VALUE.match(cells[0])) and 2 * numbers >= len(cells)


def _place(names: list[str], cells: list[str]) -> dict[str, str]:
    place: dict[str, str] = {}
    for name, cell in zip(names, cells, strict=True):
        key, number = STEPS.get(name.lower()), re.match(r"\d+(?:\.\d+)?", cell)
        if key is not None and number is not None:
            place.setdefault(key, number.group())
    return place
