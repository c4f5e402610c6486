"""What logs say together: figures and sentences, for programs and for people. Nothing is claimed beyond the logs."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.encoding import SCHEMA, to_json
from repro.core.records import Verdict
from repro.core.sentences import listed
from repro.jobs.content import ABSENT, Content, Table, cut, many, number
from repro.jobs.logs import tables
from repro.jobs.logs.records import Prompt, Quantity, Reading, Section
from repro.jobs.logs.tables import Count, Row, labels
from repro.jobs.logs.tallies import shipped_name
from repro.jobs.overlap.compare import Overlap, overlap
from repro.jobs.overlap.matching import Matched, match
from repro.jobs.overlap.sets import member_of

SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)
"""A model's size in its name: 270m, 1b, 0.5B."""
MOST_COUNTS = 12
"""NaN counts that a person is shown of each model in each log; logs.json has all of them."""
MOST_QUANTITIES = 8
"""Names that a person is shown of each model in each log."""
MOST_SHAPES = 8
MOST_SAMPLES = 2
WIDTH = 120
"""Characters of a log's line that a person is shown."""


@dataclass(frozen=True, slots=True)
class SameRows:
    """Prompts that failed in two sections with token rows known in both; ``same`` of them have as many rows in both."""

    first: str
    second: str
    same: int
    both: int


@dataclass(frozen=True, slots=True)
class Answer:
    """All that was found. ``seconds`` is what reading took, None where it was not measured."""

    verdict: Verdict
    table: tuple[Row, ...]
    counts: tuple[Count, ...]
    overlap: Overlap | None
    same_rows: tuple[SameRows, ...]
    sentences: tuple[str, ...]
    logs: tuple[Reading, ...]
    seconds: float | None


def answer(readings: Sequence[Reading], *, total: int | None = None, seconds: float | None = None) -> Answer:
    """What the logs say.

    Args:
        readings: The logs.
        total: How many prompts each job had, where its log does not say.
        seconds: What reading took.
    """
    table = tables.rows(readings, total)
    named, matched = matched_prompts(readings)
    together, alike = shared(readings, table, matched), same_rows(named, matched)
    return Answer(
        verdict=tables.verdict(readings),
        table=table,
        counts=tables.counts(readings),
        overlap=together,
        same_rows=alike,
        sentences=tuple(_sentences(readings, table, together, alike)),
        logs=tuple(readings),
        seconds=seconds,
    )


def document(found: Answer) -> dict[str, Any]:
    """The answer for programs: the content of ``logs.json``."""
    read = sum(reading.bytes for reading in found.logs)
    return {
        "schema": SCHEMA,
        **_verdict(found.verdict),
        **{name: to_json(getattr(found, name)) for name in ("table", "counts", "overlap", "same_rows", "sentences")},
        "logs": [{**to_json(reading), **_verdict(tables.verdict_of(reading))} for reading in found.logs],
        "speed": {
            "bytes": read,
            "lines": sum(reading.lines for reading in found.logs),
            "seconds": found.seconds,
            "megabytes_per_second": read / 1e6 / found.seconds if found.seconds else None,
        },
    }


def content(found: Answer) -> Content:
    """The answer for a person: tables, what follows from them, what was not understood, and the verdict."""
    yield _overview(found.table)
    yield _counts(found.counts)
    yield _coverage(found.logs)
    yield from found.sentences
    for reading in found.logs:
        yield from (cut(f"{reading.log}: {line}", WIDTH) for line in _not_understood(reading))
    if found.seconds:
        read, lines = sum(one.bytes for one in found.logs) / 1e6, sum(one.lines for one in found.logs)
        yield f"Read {many(lines, 'line')} ({read:,.1f} MB) in {found.seconds:.1f} s, {read / found.seconds:,.0f} MB/s."
    yield f"{found.verdict.outcome.value.upper()}: {found.verdict.reason}"


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {"verdict": verdict.outcome.value, "reason": verdict.reason}


def _overview(table: Sequence[Row]) -> Table:
    """A row for each model in each log; columns that would be 0 throughout are left out."""
    extra = {"bad steps": [row.steps for row in table], "scaler skips": [row.notices for row in table]}
    extra = {head: column for head, column in extra.items() if any(column)}
    rows = []
    for place, row in enumerate(table):
        usable = ABSENT if row.rate is None else f"{number(row.succeeded)} ({_share(row.rate)})"
        spans = [ABSENT if span is None else _range(span) for span in (row.counts, row.rows)]
        more = [number(column[place]) for column in extra.values()]
        rows.append((row.label, number(row.total), number(row.failed), usable, *spans, *more))
    head = ("model", "prompts", "failed", "usable", "NaN counts", "token rows", *extra)
    return Table(head, tuple(rows), range(1, len(head)))


def _counts(counts: Sequence[Count]) -> Table:
    rows: list[tuple[str, ...]] = []
    for label, group in itertools.groupby(counts, key=lambda one: one.label):
        own = [(label, number(one.nan), number(one.rows), number(one.times)) for one in group]
        rows += own[:MOST_COUNTS]
        if len(own) > MOST_COUNTS:
            rows.append((label, f"{len(own) - MOST_COUNTS} more (--json)", "", ""))
    return Table(("model", "NaN count", "token rows", "times"), tuple(rows), range(1, 4))


def _coverage(logs: Sequence[Reading]) -> Table:
    """How much of each log was recognised."""
    rows = []
    for one in logs:
        models = dict.fromkeys(section.model.rpartition("/")[2] for section in one.sections if section.model)
        lines = (one.lines, one.understood, one.unclear, one.others)
        rows.append((one.log, ", ".join(models) or ABSENT, *map(number, lines)))
    return Table(("log", "model", "lines", "recognised", "unknown errors", "other"), tuple(rows), range(2, 6))


def _not_understood(log: Reading) -> Iterator[str]:
    for one in log.unclear_shapes[:MOST_SHAPES]:
        yield f"unknown error, {many(one.times, 'time')}, first on line {one.line:,}: {one.sample}"
    left = log.shapes_left_out + max(0, len(log.unclear_shapes) - MOST_SHAPES)
    if left:
        yield f"and {many(left, 'more kind')} (--json)"
    yield from (f"other, for example: {sample}" for sample in log.other_samples[:MOST_SAMPLES])
    how = [log.encoding, *([log.compression] if log.compression else [])]
    if how != ["utf-8"] or log.notes:
        yield "; ".join([listed(how), *log.notes])


def shared(readings: Sequence[Reading], table: Sequence[Row], matched: Matched) -> Overlap | None:
    """The failed prompts of all sections that have their texts, compared; None where fewer than two have.

    Sections that give the same number of prompts, and ran to their end, are assumed to have run the same prompts. None
    as well where one has more prompts than are told apart: what they share would be counted too low.
    """
    if any(section.untold for reading in readings for section in reading.sections):
        return None
    sets = {label: texts for label, texts in matched.sets.items() if texts}
    if len(sets) < 2:
        return None
    totals = {None if row.rate is None else row.total for row in table if row.label in sets}
    total = next(iter(totals)) if len(totals) == 1 else None
    if total is not None and total < len(frozenset().union(*sets.values())):
        total = None  # more texts than the logs count, such as two answers to each question
    return overlap(sets, total, matched.unclear)


def same_rows(named: Mapping[str, Sequence[Prompt]], matched: Matched) -> tuple[SameRows, ...]:
    """Whether prompts have the same number of bad token rows in two sections."""
    found = []
    rows = {
        label: dict(zip(matched.texts[label], (prompt.rows for prompt in prompts), strict=True))
        for label, prompts in named.items()
    }
    for (first, one), (second, other) in itertools.combinations(rows.items(), 2):
        pairs = [(one[text], other[text]) for text in one.keys() & other.keys() if one[text] and other[text]]
        if pairs:
            found.append(SameRows(first, second, sum(left == right for left, right in pairs), len(pairs)))
    return tuple(found)


def _sentences(
    readings: Sequence[Reading], table: Sequence[Row], together: Overlap | None, alike: Sequence[SameRows]
) -> Iterator[str]:
    """What was found, in words."""
    for row in table:
        yield from _of_row(row)
    if together is not None:
        yield from together.sentences
        if together.population is not None and len(table) > 1:
            same = many(together.population, "prompt")
            yield f"Assumed: every log ran the same {same}, since each reports that number."
    for one in alike:
        said = f"{one.same} of {many(one.both, 'prompt')} that failed in both {one.first} and {one.second}"
        more = "; their NaN counts differ only by hidden size" if one.same == one.both else ""
        yield f"{said} have the same number of NaN token rows in both{more}."
    yield from _by_size(table)
    yield from _wrong_model(readings)


def matched_prompts(readings: Sequence[Reading]) -> tuple[dict[str, list[Prompt]], Matched]:
    """The failed prompts of each section that have a text, and which of them are the same prompt."""
    sections = [section for reading in readings for section in reading.sections]
    named = {
        label: [prompt for prompt in section.prompts if prompt.text]
        for section, label in zip(sections, labels(sections), strict=True)
    }
    return named, match({label: [member_of(one) for one in prompts] for label, prompts in named.items()})


def _of_row(row: Row) -> Iterator[str]:
    if row.rate is not None:
        usable = f"{number(row.succeeded)} ({_share(row.rate)}) {'is' if row.succeeded == 1 else 'are'} usable"
        yield f"{row.label}: {row.failed:,} of {many(row.total or 0, 'prompt')} failed, {usable}."
    elif row.failed:
        least = "at least " if row.untold else ""
        yield f"{row.label}: {least}{many(row.failed, 'distinct prompt')} failed."
    if row.steps:
        named = ", ".join(f"{one.name} in {one.lines:,}" for one in row.quantities[:MOST_QUANTITIES])
        left = len(row.quantities) - MOST_QUANTITIES
        more = f", and {many(left, 'more name')} (--json)" if left > 0 else ""
        yield f"{row.label}: NaN or Inf on {many(row.steps, 'line')}: {named}{more}."
        yield f"{row.label}: {_first_of(row.quantities)}."
    if row.counts is not None:
        yield _of_counts(row, row.counts)
    yield from (f"{row.label}: {note}." for note in row.notes)


def _first_of(found: Sequence[Quantity]) -> str:
    """``grad_norm is NaN first, at step 118 (line 240), 2 lines before loss (step 120, line 242)``."""
    line = found[0].line
    first = [one for one in found if one.line == line]
    kinds = listed(list(dict.fromkeys(one.value for one in first)))
    names = listed([one.name for one in first])
    said = f"{names} {'is' if len(first) == 1 else 'are'} {kinds} first, {_at(first[0])}"
    later = next((one for one in found if one.line > line), None)
    if later is None:
        return said
    return f"{said}, {many(later.line - line, 'line')} before {later.name} ({_at(later, 'line')})"


def _at(one: Quantity, head: str = "") -> str:
    """``at step 118 (line 240)``, or what the log says of it."""
    places = [f"{key} {value}" for key, value in one.place.items()]
    if head:
        return ", ".join([*places, f"line {one.line:,}"])
    return f"at {listed(places)} (line {one.line:,})" if places else f"on line {one.line:,}"


def _of_counts(row: Row, counts: tuple[int, int]) -> str:
    span = f"{row.label}: NaN counts {_range(counts)}"
    if row.row_size is None:
        return f"{span}; not given in token rows, for the hidden size is not known: set it with --hidden-size N."
    if row.whole < row.counted or row.rows is None:
        return f"{span}; {row.whole:,} of {row.counted:,} are whole token rows of {row.row_size:,} elements."
    rows = f"{_range(row.rows)} whole token rows of {row.row_size:,} elements"
    return f"{span} are {rows}: every element of these tokens is NaN."


def _by_size(table: Sequence[Row]) -> Iterator[str]:
    """Which sizes fail, and what else differs between those that do and those that do not."""
    sized = [(size, row) for row in table if (size := _size(row)) is not None]
    failing = sorted((size, row.label) for size, row in sized if row.failed)
    passing = sorted((size, row.label) for size, row in sized if not row.failed and not row.steps and row.rate)
    if not failing or not passing:
        return
    if passing[-1][0] < failing[0][0]:
        yield f"No failures up to {passing[-1][1]}, failures from {failing[0][1]} up; no size in between was run."
    else:
        names = (listed([label for _, label in side]) for side in (passing, failing))
        yield "No failures in {}, failures in {}; model size does not separate them.".format(*names)
    differing = list(_differing([row for _, row in sized]))
    if differing:
        yield f"Model size is confounded: failing and passing logs also differ in {listed(differing)}."


def _differing(table: Sequence[Row]) -> Iterator[str]:
    """Settings that no failing log shares with a passing one."""
    for name in sorted({name for row in table for name in row.settings}):
        bad = {value for row in table if row.failed for value in row.settings.get(name, ())}
        good = {value for row in table if not row.failed for value in row.settings.get(name, ())}
        if bad and good and not bad & good:
            yield f"{name} ({', '.join(sorted(good))} passing, {', '.join(sorted(bad))} failing)"


def _wrong_model(readings: Sequence[Reading]) -> Iterator[str]:
    """Logs whose file is named for one model, but whose job loaded another."""
    sections = [section for reading in readings for section in reading.sections]
    for section in sections:
        named, loaded = shipped_name(section.log), _loaded(section)
        if named is not None and loaded is not None and named != loaded:
            yield f"{section.log} is named for {named}, but its job loaded {section.model}."


def _loaded(section: Section) -> str | None:
    return shipped_name(section.model) if section.model is not None and section.model_from == "log" else None


def _size(row: Row) -> float | None:
    """Parameters in billions, from the model's name."""
    match = SIZE.search(row.model or "")
    return None if match is None else float(match[1]) * (1 if match[2].lower() == "b" else 1e-3)


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def _share(rate: float) -> str:
    return f"{100 * rate:.3g} %"
