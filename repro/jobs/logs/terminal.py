"""The same document for a person at a terminal, as lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from repro.core.sentences import listed
from repro.jobs.logs.words import many

ABSENT = "-"
MOST_COUNTS = 12
"""Counts that are shown of each model in each log; the document has all of them."""
WIDTH = 120
MOST_SHAPES = 8


def shown(document: Mapping[str, Any]) -> Iterator[str]:
    """Tables, what follows from them, what was not understood, how fast it went, and the verdict."""
    yield from _columns(_overview(document["table"]), right=range(1, 9))
    if document["counts"]:
        yield from _columns(_counts(document["counts"]), right=range(1, 4))
    yield from document["sentences"]
    for log in document["logs"]:
        yield from _not_understood(log)
    speed = document["speed"]
    if speed["seconds"]:
        rate = f"{speed['megabytes_per_second']:,.0f} MB/s"
        size = f"{speed['lines']:,} lines, {speed['bytes'] / 1e6:,.1f} MB"
        yield f"read: {size} in {speed['seconds']:.1f} s ({rate})"
    yield f"{document['verdict'].upper()}: {document['reason']}"


def _overview(table: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    yield "model", "prompts", "failed", "usable", "success", "NaN counts", "token rows", "steps", "scaler", "log"
    for row in table:
        rate = ABSENT if row["rate"] is None else f"{100 * row['rate']:.3g} %"
        numbers = [_number(row[key]) for key in ("total", "failed", "succeeded")]
        ranges = [_range(row["counts"]), _range(row["rows"])]
        yield row["label"], *numbers, rate, *ranges, _number(row["steps"]), _number(row["notices"]), row["log"]


def _counts(counts: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    yield "model", "NaN count", "token rows", "times"
    for label, group in groupby(counts, key=lambda one: one["label"]):
        rows = list(group)
        for row in rows[:MOST_COUNTS]:
            yield label, *(_number(row[key]) for key in ("nan", "rows", "times"))
        if len(rows) > MOST_COUNTS:
            yield f"({len(rows) - MOST_COUNTS} more of {label}: --json)", "", "", ""


def _not_understood(log: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{log['log']}: {many(log['lines'], 'line')}: {log['understood']:,} understood, "
        f"{log['unclear']:,} that speak of trouble in no known form, {log['others']:,} others"
    )
    for shape in log["unclear_shapes"][:MOST_SHAPES]:
        yield _cut(
            f"  not understood, {many(shape['times'], 'time')}, first in line {shape['line']:,}: {shape['sample']}"
        )
    left = log["shapes_left_out"] + max(0, len(log["unclear_shapes"]) - MOST_SHAPES)
    if left:
        yield f"  and {left:,} other forms (--json)"
    yield from (_cut(f"  other, for example: {sample}") for sample in log["other_samples"][:2])
    how = [log["encoding"], *([log["compression"]] if log["compression"] else [])]
    if how != ["utf-8"] or log["notes"]:
        yield f"  {'; '.join([listed(how), *log['notes']])}"


def _columns(rows: Iterator[Sequence[str]], right: range) -> Iterator[str]:
    """Columns of equal width, numbers to the right, an empty line behind."""
    held = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*held, strict=True)]
    for row in held:
        cells = (
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
    yield ""


def _number(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _range(ends: Sequence[int] | None) -> str:
    if ends is None:
        return ABSENT
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} - {ends[1]:,}"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
