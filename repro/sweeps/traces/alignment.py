"""Which operator of one trace is which of another: by module, call, operator and occurrence, never by position; pure.

An operator that was put in between gives those behind it another occurrence. So where the same call runs an operator
more often in one trace than in the other, the ones that gave the same bytes go together first, then the ones with the
same form behind the same operator. What is left over is new or gone.
"""

import difflib
from collections import defaultdict
from collections.abc import Sequence

from repro.core.encoding import Number, Record, decode
from repro.core.errors import RecordError
from repro.core.payloads import Trace

COMPARED = 4_000_000
"""Pairs of operators that are looked at one by one: some seconds. A call that repeats one operator thousands of times
goes by occurrence alone."""
Form = tuple[str | None, str | None, tuple[int, ...] | None]
"""The operator before, dtype and shape."""


class Row(Record, frozen=True, kw_only=True):
    """One operator call as the trace has it. ``min`` and ``max`` are of what is finite."""

    module: str
    call_index: int
    op: str
    occurrence: int
    source: str | None
    dtype: str | None
    shape: tuple[int, ...] | None
    min: Number | None
    max: Number | None
    nan: int | None
    inf: int | None
    digest: str | None

    @property
    def base_name(self) -> str:
        """ "add" of "aten.add_.Tensor"."""
        parts = self.op.split(".")
        return (parts[1] if len(parts) > 1 else parts[0]).rstrip("_") or parts[-1]


def rows_of(trace: Trace) -> tuple[Row, ...]:
    """The rows of a trace.

    Raises:
        RecordError: they are of another shape.
    """
    try:
        return tuple(decode(Row, dict(zip(trace.columns, row, strict=False))) for row in trace.rows)
    except RecordError as error:
        raise RecordError(f"a row of the trace has another shape: {error}") from None


def align(good: Sequence[Row], bad: Sequence[Row]) -> dict[int, int]:
    """Positions in the good trace -> positions in the bad trace of the operators that are the same ones."""
    groups = [_grouped(rows) for rows in (good, bad)]
    before = [_behind(rows) for rows in (good, bad)]
    pairs: dict[int, int] = {}
    for key in groups[0].keys() & groups[1].keys():
        left, right = groups[0][key], groups[1][key]
        if len(left) == len(right) or len(left) * len(right) > COMPARED:
            pairs.update(zip(left, right, strict=False))
            continue
        bytes_of = [[_bytes(rows[i]) for i in side] for rows, side in ((good, left), (bad, right))]
        forms = [
            [(before[n][i], rows[i].dtype, rows[i].shape) for i in side]
            for n, (rows, side) in enumerate(((good, left), (bad, right)))
        ]
        for i, j in _by_value_then_form(bytes_of, forms):
            pairs[left[i]] = right[j]
    return pairs


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, int, str], list[int]]:
    found: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        found[row.module, row.call_index, row.op].append(position)
    return found


def _behind(rows: Sequence[Row]) -> list[str | None]:
    """For each operator the one that the same call ran before it."""
    last: dict[tuple[str, int], str] = {}
    found: list[str | None] = []
    for row in rows:
        found.append(last.get((row.module, row.call_index)))
        last[row.module, row.call_index] = row.op
    return found


def _bytes(row: Row) -> str:
    return row.digest or f"{row.dtype} {row.shape}"


def _by_value_then_form(values: Sequence[list[str]], forms: Sequence[list[Form]]) -> list[tuple[int, int]]:
    """Pairs in order: the longest runs of equal values, and between them the longest runs of equal forms."""
    pairs: list[tuple[int, int]] = []
    i = j = 0
    for block in difflib.SequenceMatcher(None, values[0], values[1], autojunk=False).get_matching_blocks():
        between = forms[0][i : block.a], forms[1][j : block.b]
        for inner in difflib.SequenceMatcher(None, between[0], between[1], autojunk=False).get_matching_blocks():
            pairs += [(i + inner.a + n, j + inner.b + n) for n in range(inner.size)]
        pairs += [(block.a + n, block.b + n) for n in range(block.size)]
        i, j = block.a + block.size, block.b + block.size
    return pairs
