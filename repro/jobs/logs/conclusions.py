"""What follows from logs, in sentences, each as far as the logs bear it and no further. Pure."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.core.sentences import listed
from repro.jobs.logs.records import Reading, Section
from repro.jobs.logs.sizes import shipped_name
from repro.jobs.logs.tables import Row, labels
from repro.jobs.logs.words import many
from repro.jobs.overlap.compare import Overlap, normalised, overlap

SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
"""A model's size in its name: 270m, 1b, 0.5B."""


@dataclass(frozen=True, slots=True)
class SameRows:
    """Prompts that failed in two sections with a count in token rows in both; ``same`` of them have as many rows."""

    first: str
    second: str
    same: int
    both: int


def shared(readings: Sequence[Reading], table: Sequence[Row]) -> Overlap | None:
    """The failed prompts of all sections that have their texts against each other; None where fewer than two have.

    All sections that name the same number of prompts, and came to their end, are taken to have run the same ones.
    """
    sets = {label: frozenset(texts) for label, texts in _texts(readings).items() if texts}
    if len(sets) < 2:
        return None
    totals = {None if row.rate is None else row.total for row in table if row.label in sets}
    total = next(iter(totals)) if len(totals) == 1 else None
    if total is not None and total < len(frozenset().union(*sets.values())):
        total = None  # there were more prompts than the logs count, such as two answers to each question
    return overlap(sets, total)


def same_rows(readings: Sequence[Reading]) -> tuple[SameRows, ...]:
    """Whether a prompt has as many bad token rows in one section as in another."""
    found = []
    for (first, one), (second, other) in itertools.combinations(_texts(readings).items(), 2):
        pairs = [(one[text], other[text]) for text in one.keys() & other.keys() if one[text] and other[text]]
        if pairs:
            found.append(SameRows(first, second, sum(left == right for left, right in pairs), len(pairs)))
    return tuple(found)


def sentences(readings: Sequence[Reading], table: Sequence[Row]) -> tuple[str, ...]:
    """What was found, in words."""
    together = shared(readings, table)
    return (
        *(line for row in table for line in _of_row(row)),
        *(() if together is None else together.sentences),
        *_assumed(together, table),
        *_same_rows(same_rows(readings)),
        *_by_size(table),
        *_wrong_model(readings),
    )


def _texts(readings: Sequence[Reading]) -> dict[str, dict[str, tuple[int, ...]]]:
    """The failed texts of each section, with the token rows that were bad."""
    sections = [section for reading in readings for section in reading.sections]
    return {
        label: {normalised(prompt.text): prompt.rows for prompt in section.prompts if prompt.text is not None}
        for section, label in zip(sections, labels(sections), strict=True)
    }


def _of_row(row: Row) -> Iterator[str]:
    if row.rate is not None:
        usable = f"{row.succeeded:,} ({_share(row.rate)}) are usable"
        yield f"{row.label}: {row.failed:,} of {row.total:,} prompts failed, {usable}."
    elif row.failed:
        yield f"{row.label}: {many(row.failed, 'different prompt')} failed."
    if row.steps:
        yield f"{row.label}: a NaN or Inf of a step or a check in {many(row.steps, 'line')}."
    if row.counts is not None:
        yield _of_counts(row)
    yield from (f"{row.label}: {note}." for note in row.notes)


def _of_counts(row: Row) -> str:
    assert row.counts is not None
    span = f"{row.label}: NaN counts {_range(row.counts)}"
    if row.row_size is None:
        return f"{span}; the number of elements of a token is not known: name it with --hidden-size N."
    if row.whole < row.counted or row.rows is None:
        return f"{span}; {row.whole:,} of {row.counted:,} are whole token rows of {row.row_size:,} elements."
    return (
        f"{span} are whole token rows of {row.row_size:,} elements: {_range(row.rows)} tokens, every element of each."
    )


def _assumed(together: Overlap | None, table: Sequence[Row]) -> Iterator[str]:
    if together is not None and together.population is not None and len(table) > 1:
        yield f"That all of them ran the same {together.population:,} prompts is taken from their number."


def _same_rows(found: Sequence[SameRows]) -> Iterator[str]:
    for one in found:
        said = f"{one.same} of {one.both} prompts that failed in both {one.first} and {one.second}"
        if one.same == one.both:
            yield f"{said} have as many bad token rows in both: their counts differ by the hidden size alone."
        else:
            yield f"{said} have as many bad token rows in both."


def _by_size(table: Sequence[Row]) -> Iterator[str]:
    """Which sizes fail, and what else differs between those that do and those that do not."""
    sized = [(size, row) for row in table if (size := _size(row)) is not None]
    failing = sorted((size, row.label) for size, row in sized if row.failed)
    sound = sorted((size, row.label) for size, row in sized if not row.failed and not row.steps and row.rate)
    if not failing or not sound:
        return
    names = (listed([label for _, label in sound]), listed([label for _, label in failing]))
    if sound[-1][0] < failing[0][0]:
        yield f"No failure up to {sound[-1][1]}, failures from {failing[0][1]}; nothing in between was run."
    else:
        yield f"No failure in {names[0]}, failures in {names[1]}: size does not part them."
    differing = list(_differing([row for _, row in sized]))
    if differing:
        yield f"Size alone is not shown to be the cause: these logs also differ in {listed(differing)}."


def _differing(table: Sequence[Row]) -> Iterator[str]:
    """Settings that every failing log has otherwise than every sound one."""
    for name in sorted({name for row in table for name in row.settings}):
        bad = {value for row in table if row.failed for value in row.settings.get(name, ())}
        good = {value for row in table if not row.failed for value in row.settings.get(name, ())}
        if bad and good and not bad & good:
            yield f"{name} ({', '.join(sorted(good))} where it is sound, {', '.join(sorted(bad))} where it fails)"


def _wrong_model(readings: Sequence[Reading]) -> Iterator[str]:
    """A log whose file is named for one model, and which loaded another."""
    sections = [section for reading in readings for section in reading.sections]
    for section in sections:
        named, loaded = shipped_name(section.log), _loaded(section)
        if named is not None and loaded is not None and named != loaded:
            yield f"{section.log} is named for {named}, and its job loaded {section.model}."


def _loaded(section: Section) -> str | None:
    return shipped_name(section.model) if section.model is not None and section.model_from == "log" else None


def _size(row: Row) -> float | None:
    """Parameters in billions, as the model's name has them."""
    match = SIZE.search(row.model or "")
    return None if match is None else float(match[1]) * (1 if match[2].lower() == "b" else 1e-3)


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def _share(rate: float) -> str:
    return f"{100 * rate:.3g} %"
