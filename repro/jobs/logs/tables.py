"""Figures of several logs: a verdict for each, a row for each model in each log, its counts in token rows. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from repro.core.records import Outcome, Verdict
from repro.core.sentences import listed
from repro.jobs.content import many
from repro.jobs.logs.records import Quantity, Reading, Section

MOST_NAMED = 5
"""Logs that the verdict's reason names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one log: how many of its prompts failed.

    ``failed`` counts distinct prompts, and every failure with neither text nor index. ``total``, ``succeeded`` and
    ``rate`` (a share from 0 to 1) are null where the number of prompts is not known, the last two also where the job
    may have ended early, or where more prompts failed than are told apart (``untold``: the failures of those).
    ``counts`` and ``rows`` are the smallest and largest NaN count, in elements and in token rows. ``quantities`` are
    the names of a training loop that are NaN or Inf. Where the log has its own number of failures and it is believed,
    ``failed`` is that; ``notes`` say so.
    """

    label: str
    log: str
    model: str | None
    total: int | None
    failed: int
    succeeded: int | None
    rate: float | None
    counts: tuple[int, int] | None
    row_size: int | None
    rows: tuple[int, int] | None
    whole: int
    counted: int
    steps: int
    notices: int
    settings: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    untold: int = 0
    quantities: tuple[Quantity, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """One NaN count: how often it occurs, and how many token rows it is, null if that is not a whole number."""

    label: str
    nan: int
    rows: int | None
    times: int


def rows(readings: Sequence[Reading], total: int | None = None) -> tuple[Row, ...]:
    """A row for each section.

    Args:
        readings: The logs.
        total: How many prompts were run, where the logs do not say it.
    """
    sections = [section for reading in readings for section in reading.sections]
    return tuple(_row(section, label, total) for section, label in zip(sections, labels(sections), strict=True))


def labels(sections: Sequence[Section]) -> tuple[str, ...]:
    """A unique name for each section: the model's, with the log's where that is not enough."""
    short = [section.log if section.model is None else section.model.rpartition("/")[2] for section in sections]
    named = [
        one if short.count(one) == 1 else f"{one} ({section.log})" for one, section in zip(short, sections, strict=True)
    ]
    return tuple(
        one if named.count(one) == 1 else f"{one} #{named[:place].count(one) + 1}" for place, one in enumerate(named)
    )


def counts(readings: Sequence[Reading]) -> tuple[Count, ...]:
    """Every NaN count of every section, smallest first."""
    sections = [section for reading in readings for section in reading.sections]
    return tuple(
        Count(label, nan, _whole_rows(nan, section.row_size), times)
        for section, label in zip(sections, labels(sections), strict=True)
        for nan, times in section.counts.items()
    )


def verdict_of(reading: Reading) -> Verdict:
    """Bad if the log has a failure; good if lines say how the job went, all is understood that speaks of NaN or an
    error, and it ran to its end."""
    failures = sum(section.failures for section in reading.sections)
    trouble = next((section.trouble for section in reading.sections if section.trouble is not None), None)
    told = next((section.told for section in reading.sections if section.told), None)
    told_as_bad = any(section.told and section.told_as_bad for section in reading.sections)
    ended = next((section.ended for section in reading.sections if section.ended is not None), None)
    doubts = (
        (reading.unread, reading.unread),
        (reading.understood == 0, f"{many(reading.lines, 'line')}, none in a known form"),
        (reading.unclear_nonfinite, f"{many(reading.unclear_nonfinite, 'line')} about NaN or Inf in no known form"),
        (told, f"the log says that {told} failed, and no line says why"),
        (ended, f"no failure, but the job may have ended early (line {ended.line if ended else 0:,})"),
        (reading.suspicion, reading.suspicion),
        (reading.unclear_errors, f"{many(reading.unclear_errors, 'error')} in no known form"),
        (reading.tells == 0, "no line says how the job went"),
    )
    if failures:
        return Verdict(Outcome.BAD, many(failures, "failure"))
    if trouble is not None:
        return Verdict(Outcome.BAD, trouble)
    if told_as_bad:
        return Verdict(Outcome.BAD, f"the log says that {told} failed with NaN")
    doubt = next((str(reason) for holds, reason in doubts if holds), None)
    return Verdict(Outcome.GOOD, "no failure") if doubt is None else Verdict(Outcome.SKIP, doubt)


def verdict(readings: Sequence[Reading]) -> Verdict:
    """Bad if any log is bad, good if all of them are good, else skip."""
    each = [(reading.log, verdict_of(reading)) for reading in readings]
    outcomes = {one.outcome for _, one in each}
    outcome = next((one for one in (Outcome.BAD, Outcome.SKIP) if one in outcomes), Outcome.GOOD)
    such = [f"{log}: {one.reason}" for log, one in each if one.outcome is outcome]
    if len(such) > MOST_NAMED:
        such[MOST_NAMED:] = [f"and {many(len(such) - MOST_NAMED, 'more log')}"]
    return Verdict(outcome, "; ".join(such))


def _row(section: Section, label: str, given: int | None) -> Row:
    counted = len(section.prompts) + section.unnamed
    total = given if given is not None else section.totals[0] if len(section.totals) == 1 else None
    failed, why, sure = _believed(section, counted, total)
    known = total is not None and failed <= total and _whole_job(section) and not section.untold and sure
    whole = {nan: _whole_rows(nan, section.row_size) for nan in section.counts}
    in_rows = [size for size in whole.values() if size is not None]
    return Row(
        label=label,
        log=section.log,
        model=section.model,
        total=total,
        failed=failed,
        succeeded=total - failed if total is not None and known else None,
        rate=(total - failed) / total if total and known else None,
        counts=(min(section.counts), max(section.counts)) if section.counts else None,
        row_size=section.row_size,
        rows=(min(in_rows), max(in_rows)) if in_rows else None,
        whole=sum(times for nan, times in section.counts.items() if whole[nan] is not None),
        counted=sum(section.counts.values()),
        steps=section.steps,
        notices=section.notices,
        untold=section.untold,
        settings=section.settings,
        notes=(*why, *_notes(section, failed, total)),
        quantities=section.quantities,
    )


def _believed(section: Section, counted: int, total: int | None) -> tuple[int, tuple[str, ...], bool]:
    """How many prompts failed, why that is believed where the log has another number, and whether a rate may be said.

    A truncated text without an index may hide a prompt, so the log's own number is believed as far as these go; and
    where what it kept confirms it. Else the lines are believed: each of them is a failure.
    """
    told, most = section.told, counted + section.alike
    if told is None or section.untold:
        if section.alike and not section.untold:
            said = f"{counted:,} to {most:,} prompts: truncated texts without an index may be the same or not"
            return counted, (said,), False
        return counted, (), True
    if told == counted:
        by = "its truncated texts alone would not tell them apart"
        return counted, (f"the log's own number, {told:,}, is believed: {by}",) if section.alike else (), True
    if not most:
        said = f"{told:,} is the log's own number: it has no line of a failed prompt"
        return told, (said,), True
    kept = section.kept[0] if len(section.kept) == 1 else None
    if counted < told <= most:
        said = f"the log's own number, {told:,}, is believed: {counted:,} can be told apart by their truncated texts"
        return told, (said,), True
    if told > most and total is not None and kept is not None and total - told == kept:
        said = f"the log's own number, {told:,}, is believed: it fits the {kept:,} kept; {counted:,} have lines"
        return told, (said,), True
    said = f"the log's own number is {told:,}; its lines are believed, for each of the {counted:,} stands for a failure"
    if told > most:
        return counted, (f"{said}, and the other {told - counted:,} have none, so there is no rate",), False
    return counted, (said,), True


def _notes(section: Section, failed: int, total: int | None) -> Iterator[str]:
    if section.untold:
        yield (
            f"only {many(len(section.prompts), 'distinct prompt')} are told apart; {many(section.untold, 'failure')} "
            "of further prompts are counted alone, so there is no rate: split the log"
        )
    if failed and total is None and len(section.totals) > 1:
        sizes = listed([f"{size:,}" for size in section.totals])
        yield f"the log gives {sizes} as its number of prompts, so there is no rate: set it with --total N"
    if failed and total is None and not section.totals and _whole_job(section):
        yield "the log does not give its number of prompts, so there is no rate: set it with --total N"
    if total is not None and failed > total:
        yield f"{failed:,} distinct prompts failed of only {total:,}, so there is no rate (pairs of two texts?)"
    kept = section.kept[0] if len(section.kept) == 1 and not section.untold else None
    if total is not None and kept is not None and total - failed != kept:
        yield f"the log says {kept:,} were kept, but {total - failed:,} did not fail"
    if section.uncertain:
        yield f"{many(section.uncertain, 'failure')} may be pieced together wrongly: ranks alternate without a prefix"
    cut = sum(prompt.first.text_cut for prompt in section.prompts)
    if cut:
        yield f"{many(cut, 'text')} may be truncated in the log"
    if section.ended is not None and not _whole_job(section):
        yield f"the job may have ended early, so there is no rate (line {section.ended.line:,}: {section.ended.said})"
    if section.trouble is not None:
        yield section.trouble
    elif section.notices:
        yield f"the loss scaler skipped {many(section.notices, 'step')}, which is how it finds its scale"


def _whole_job(section: Section) -> bool:
    """Whether the job ran to its end, as far as its log tells: what it kept is logged last."""
    return section.ended is None or bool(section.kept)


def _whole_rows(nan: int, size: int | None) -> int | None:
    return nan // size if size is not None and nan % size == 0 else None
