"""What was compared, in words for a terminal and as JSON."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repro.core.encoding import SCHEMA
from repro.core.sentences import visible
from repro.jobs.settings.comparing import Compared, Difference, changes
from repro.jobs.settings.layers import Job, Override
from repro.jobs.settings.matters import topic_of, topics
from repro.jobs.settings.tree import Leaf

ABSENT = "-"
WIDEST = 60
"""Characters of a value in a terminal; ``--json`` has all."""


def lines(compared: Compared, *, everything: bool) -> Iterator[str]:
    """The jobs with their files, the table, the overrides, and what else was seen."""
    names = _names(compared.jobs)
    for name, job in zip(names, compared.jobs, strict=True):
        if len(job.files) > 1:
            yield f"{name}: {' < '.join(job.files)} (a later file wins)"
    several = len(compared.jobs) > 1
    if several:
        yield from _table(compared, names)
    for name, job in zip(names, compared.jobs, strict=True):
        shown = [one for one in job.overrides if everything or changes(one)]
        for override in sorted(shown, key=lambda one: _rank(one.path)):
            yield f"{name}: {_override(override)}"
    for note in compared.notes:
        yield f"note: {visible(note)}"
    for topic in dict.fromkeys(one.topic for one in compared.differences if one.topic and several):
        yield f"{topic.name}: {topic.why}"
    if several:
        count = len(compared.differences)
        yield f"{count:,} setting{'s differ' if count != 1 else ' differs'}, {compared.same:,} alike"
    else:
        yield f"{sum(map(changes, compared.jobs[0].overrides)):,} of {compared.same:,} settings override another value"


def document(compared: Compared) -> dict[str, Any]:
    """Everything, with plain values."""
    return {
        "schema": SCHEMA,
        "command": "config-diff",
        "differs": compared.differs,
        "jobs": [_job(job) for job in compared.jobs],
        "differences": [_difference(one) for one in compared.differences],
        "same": compared.same,
        "notes": compared.notes,
    }


def _table(compared: Compared, names: Sequence[str]) -> Iterator[str]:
    """A line for each difference in columns; one with long values as a block, so that nothing is cut."""
    head = ["setting", *names, "matters for"]
    rows = [_row(one) for one in compared.differences]
    short = [row for row in rows if max(map(len, row)) <= WIDEST]
    if short:
        widths = [max(map(len, column)) for column in zip(head, *short, strict=True)]
        for row in (head, *short):
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for row in rows:
        if row not in short:
            yield f"{row[0]}{f'  ({row[-1]})' if row[-1] else ''}"
            yield from (f"  {name}: {cell}" for name, cell in zip(names, row[1:-1], strict=True))


def _names(jobs: Sequence[Job]) -> list[str]:
    """The jobs without their folders, where that tells them apart."""
    short = ["+".join(Path(part).name for part in job.name.split("+")) for job in jobs]
    return short if len(set(short)) == len(jobs) else [job.name for job in jobs]


def _row(one: Difference) -> list[str]:
    shown = [_value(leaf, typed=one.how == "type") for leaf in one.values]
    return [visible(one.path), *shown, one.topic.name if one.topic else ""]


def _value(leaf: Leaf | None, *, typed: bool = False) -> str:
    """A value; with its type where that is all that differs."""
    if leaf is None:
        return ABSENT
    return visible(f"{leaf.shown} ({leaf.kind})" if typed else leaf.shown)


def _override(one: Override) -> str:
    won, lost = (f"{_value(leaf)}{f' ({leaf.place})' if leaf.file else ''}" for leaf in (one.won, one.lost))
    return f"{visible(one.path)}: {won} wins over {lost}"


def _rank(path: str) -> int:
    topic = topic_of(path)
    return len(topics()) if topic is None else topic.rank


def _job(job: Job) -> dict[str, Any]:
    overrides = [
        {"path": one.path, "won": _leaf(one.won), "lost": _leaf(one.lost), "changes": changes(one)}
        for one in job.overrides
    ]
    return {"name": job.name, "files": job.files, "overrides": overrides, "notes": job.notes}


def _difference(one: Difference) -> dict[str, Any]:
    topic = one.topic
    return {
        "path": one.path,
        "how": one.how,
        "topic": topic.name if topic else None,
        "why": topic.why if topic else None,
        "values": [_leaf(leaf) for leaf in one.values],
    }


def _leaf(leaf: Leaf | None) -> dict[str, Any] | None:
    """The value itself where JSON has a word for it, else as it is shown."""
    if leaf is None:
        return None
    plain = leaf.kind in ("text", "whole number", "number", "boolean", "null")
    return {"value": leaf.value if plain else leaf.shown, "kind": leaf.kind, "file": leaf.file, "line": leaf.line}
