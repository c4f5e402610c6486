"""Tables as text, .csv and .tsv, in constant memory: every number by its column.

An empty field is a missing value and no NaN; pandas and NumPy write both the same unless told otherwise, so a column in
which values are missing may have had NaN. Measured on one core: 10 MB/s to 20 MB/s.
"""

import csv
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro.jobs.scan.findings import Counts, Tally, Unreadable, of_number, spelling
from repro.jobs.scan.text_files import encoding_of, open_bytes

DELIMITERS = ",;\t|"
STARTS = frozenset("0123456789+-. \t")
"""What a number may start with: most texts need no further look."""
FINITE = Counts()
LONGEST_FIELD = 16 * 1024 * 1024
"""Characters. The csv module's own limit, 131,072, is less than a long prompt."""


def read_csv(path: Path, tally: Tally) -> None:
    """A table; its first line names the columns unless a number stands there.

    Raises:
        Unreadable: it is no text, or a line cannot be taken apart; what stands before was counted.
    """
    with (
        _long_fields(),
        open_bytes(path) as raw,
        io.TextIOWrapper(raw, encoding=encoding_of(raw.peek(4)), newline="") as file,
    ):
        line = file.readline(LONGEST_FIELD)
        rows = csv.reader(itertools.chain([line], file), delimiter=max(DELIMITERS, key=line.count))
        try:
            _rows(rows, tally)
        except csv.Error as error:
            raise Unreadable(f"line {rows.line_num:,} cannot be taken apart: {error}") from None


def _rows(rows: Any, tally: Tally) -> None:
    names: list[str] | None = None
    for row in rows:
        if names is None:
            names = _names(row)
            if names:
                continue
        for index, field in enumerate(row):
            place = names[index] if index < len(names) else f"column {index + 1}"
            if (found := spelling(field)) is not None:
                tally.word(place, f"line {rows.line_num}", found, quoted=False)
            elif (found := _number(field)) is not None:
                tally.numbers(place, 1)
                if found.bad:
                    tally.hit(place, f"line {rows.line_num}", found)
            elif "\0" in field:
                raise Unreadable(f"line {rows.line_num:,} has a NUL: it is no text")
            elif field:
                tally.text(place)


def _names(row: list[str]) -> list[str]:
    """The names of the columns, each once; none where the first line has a number."""
    if any(spelling(field) or _number(field) for field in row):
        return []
    return [
        f"{name} (column {index + 1})" if row.count(name) > 1 or not name.strip() else name
        for index, name in enumerate(row)
    ]


def _number(field: str) -> Counts | None:
    """What a field that is a number is, with no count where it is finite; None where it is another text."""
    if field[:1] not in STARTS:
        return None
    try:
        value = float(field)
    except ValueError:
        return None
    if field.strip().lstrip("+-").isdigit():  # a whole number has no largest one
        return FINITE
    return of_number(value) or FINITE


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module's limit is one for the process: it is put back."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
