"""The command ``overlap``: which failing prompts several runs, lists or logs share.

Nothing is imported here that ``--help`` does not need.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, SETTINGS, together
from repro.cli.screen.content import finish

if TYPE_CHECKING:
    from repro.jobs.content import Content, Table
    from repro.jobs.overlap.compare import Overlap
    from repro.jobs.overlap.sets import PromptSet

EXAMPLES = """
\b
Examples:
  repro overlap 12b_skipped.txt 27b_skipped.txt --population 100
  repro overlap runs/12b runs/27b runs/4b        (runs know their population)
  repro overlap job_12b.err skipped.csv --field question --population all_prompts.txt

\b
Exit status: 0 the sets were compared, 2 wrong usage or a file that cannot be read.
"""
WIDTH = 100
"""Characters of a prompt that are shown; --json has whole texts."""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Compare which prompts failed in several runs.")
@together(
    click.argument("places", metavar="A B...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
    click.option(
        "--population",
        metavar="N|FILE",
        help="Number of prompts that were run, or a file with all of them. Default: from the runs, if all are runs.",
    ),
    click.option("--field", metavar="NAME", help="Field or column that holds the prompt. Default: prompt, text, ..."),
    click.option("--pairs", is_flag=True, help="Entries of prompt files are pairs, as in `repro prompts --pairs`."),
    click.option(
        "--show",
        type=click.IntRange(min=0),
        metavar="N",
        default=10,
        show_default=True,
        help="Prompts to list per group.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
    DEBUG,
)
def overlap(
    places: tuple[Path, ...],
    population: str | None,
    field: str | None,
    pairs: bool,
    show: int,
    as_json: bool,
    debug: bool,
) -> None:
    """Compare which prompts failed in A, B, ...: shared, only in one, and the exact probability of the overlap.

    A and B are run folders of `repro prompts`, prompt files (.txt, .jsonl, .json, .csv) that list failed prompts, or
    job logs. Two prompts are the same if their texts are, after Unicode NFC and with runs of white space as one space.
    Case and punctuation count.
    """
    from dataclasses import replace

    from repro.core.encoding import to_json
    from repro.core.sentences import many
    from repro.jobs.overlap.compare import NORMALISED, check_population
    from repro.jobs.overlap.compare import overlap as compare
    from repro.jobs.overlap.labels import without_labels
    from repro.jobs.overlap.matching import NOTHING_KNOWN
    from repro.jobs.overlap.sets import assumed, completed, population_of, read_sets

    sets = read_sets(places, field, pairs=pairs)
    sets, drawn_from = without_labels(sets, population_of(sets, population, field, pairs=pairs))
    by_logs = assumed(sets) if drawn_from is None else None
    texts = drawn_from if isinstance(drawn_from, Mapping) else NOTHING_KNOWN
    sets, matched = completed(sets, texts)
    if population is not None and texts:
        check_population(len(texts), matched.sets, matched.unclear)
    drawn = drawn_from if isinstance(drawn_from, int) else matched.population or by_logs
    found = compare(matched.sets, drawn, matched.unclear)
    notes = [f"Assumed: {said}." for said in matched.assumed]
    if by_logs is not None:
        notes.insert(0, f"Assumed: every log ran the same {many(by_logs, 'prompt')}, since each reports that number.")
    if drawn_from is not None:
        notes += [
            f"{item.name} reports {many(item.total, 'prompt')}, and the population has {found.population:,}."
            for item in sets
            if item.total is not None and item.total != found.population
        ]
    found = replace(found, notes=(*notes, *found.notes))
    plain = [{**to_json(item), "failed": sorted(item.failed), "asked": _asked(item)} for item in sets]
    document = {"normalised": NORMALISED, "sets": plain, **to_json(found)}
    finish(_content(sets, found, show), document, as_json=as_json, status=0)


def _asked(item: "PromptSet") -> int | None:
    return None if item.asked is None else len(item.asked)


def _content(sets: Sequence["PromptSet"], found: "Overlap", most: int) -> "Content":
    """The tables, the sentences, and the prompts that only some of the sets have."""
    from repro.core.sentences import listed
    from repro.jobs.content import cut, many

    yield from _tables(sets, found)
    for item in sets:
        yield from (f"{item.name}: {note}" for note in item.notes)
    if found.population is not None:
        yield f"Population: {many(found.population, 'prompt')}."
    yield from found.sentences
    for pair in found.pairs:
        for name, other, those in (
            (pair.first, pair.second, pair.unclear_first),
            (pair.second, pair.first, pair.unclear_second),
        ):
            may_be = [f"  {cut(text, WIDTH)}" for text, count in sorted(those.items()) if count == 1]
            several = [
                f"  {cut(text, WIDTH)} ({many(count, 'candidate')})"
                for text, count in sorted(those.items())
                if count > 1
            ]
            yield from _list(f"in {name}, may be in {other}", may_be, most)
            yield from _list(f"in {name}; could not tell whether in {other}", several, most)
    for region in found.regions:
        if region.alone and len(region.sets) < len(sets):
            rows = [f"  {cut(text, WIDTH)}" for text in region.alone]
            yield from _list(f"only in {listed(region.sets)}", rows, most)


def _list(head: str, rows: Sequence[str], most: int) -> "Content":
    if rows:
        yield ""
        yield f"{head} ({len(rows):,}):"
        yield from rows[:most]
        if len(rows) > most:
            yield f"  and {len(rows) - most:,} more (--show {len(rows)})"


def _tables(sets: Sequence["PromptSet"], found: "Overlap") -> "tuple[Table, ...]":
    """The sets, their pairs, and, for more than two, every combination."""
    from repro.jobs.content import ABSENT, Table, number

    def share(value: float | None) -> str:
        return ABSENT if value is None else f"{value:.3g}"

    read = [(item.name, item.kind, number(len(item.failed)), number(_asked(item)), item.path) for item in sets]
    pairs = []
    for pair in found.pairs:
        counts = map(number, (pair.both, len(pair.only_first), len(pair.only_second)))
        shares = map(share, (pair.jaccard, pair.first_in_second, pair.second_in_first))
        pairs.append((pair.first, pair.second, *counts, *shares))
    heads = ("first", "second", "both", "only first", "only second", "Jaccard", "first in second", "second in first")
    regions = [(" & ".join(row.sets), number(row.inside), number(len(row.alone))) for row in found.regions]
    return (
        Table(("set", "kind", "failed", "of", "read from"), tuple(read), (2, 3)),
        Table(heads, tuple(pairs), range(2, 8)),
        Table(("in", "prompts", "in no other"), tuple(regions) if len(sets) > 2 else (), (1, 2)),
    )
