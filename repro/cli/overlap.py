"""The command ``overlap``: which failing prompts several runs, lists or logs have in common.

Nothing is imported here that ``--help`` does not need.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, SETTINGS, together

if TYPE_CHECKING:
    from repro.jobs.overlap.compare import Overlap, Region
    from repro.jobs.overlap.sets import PromptSet

EXAMPLES = """
\b
Examples:
  repro overlap 12b_skipped_prompts.txt 27b_skipped_prompts.txt --population 100
  repro overlap runs/12b runs/27b runs/4b        (runs know their population)
  repro overlap job_12b.err skipped.csv --field question --population all_prompts.txt

\b
Exit status: 0 the sets were compared, 125 one could not be read, 2 wrong usage.
"""
WIDTH = 100
"""Characters of a prompt that are shown; --json has the whole texts."""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Which failing prompts several runs share.")
@together(
    click.argument("places", metavar="A B...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
    click.option(
        "--population",
        metavar="N|FILE",
        help="How many prompts were run, or a file with all. Default: what the runs say; else no chance is given.",
    ),
    click.option("--field", metavar="NAME", help="The field or column with the prompt, in .json, .jsonl and .csv."),
    click.option(
        "--show", type=click.IntRange(min=0), default=10, show_default=True, help="Prompts listed of each part."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else there."),
    DEBUG,
)
def overlap(
    places: tuple[Path, ...], population: str | None, field: str | None, show: int, as_json: bool, debug: bool
) -> None:
    """Compare the prompts that failed in A, B and so on: what they share, what each has besides, and the exact chance.

    A and B are folders of `repro prompts`, lists of skipped prompts (.txt with a prompt a line, .json, .jsonl, .csv),
    or logs of jobs. Two prompts are the same where their texts are, after Unicode NFC and with runs of white space as
    one space; case and punctuation count.
    """
    from repro.core.encoding import encode, to_json
    from repro.jobs.overlap.compare import NORMALISED
    from repro.jobs.overlap.compare import overlap as compare
    from repro.jobs.overlap.sets import completed, population_of, read_sets

    sets = read_sets(places, field)
    drawn_from = population_of(sets, population, field)
    sets = completed(sets, () if drawn_from is None or isinstance(drawn_from, int) else drawn_from)
    found = compare({item.name: item.failed for item in sets}, drawn_from)
    if as_json:
        plain = [{**to_json(item), "failed": sorted(item.failed), "asked": _count(item)} for item in sets]
        click.echo(encode({"normalised": NORMALISED, "sets": plain, **to_json(found)}, indent=1))
    else:
        click.echo("\n".join(_told(sets, found, show)))


def _count(item: "PromptSet") -> int | None:
    return None if item.asked is None else len(item.asked)


def _told(sets: Sequence["PromptSet"], found: "Overlap", show: int) -> Iterator[str]:
    """The tables, the sentences, and the prompts that only some of the sets have."""
    rows = [["set", "kind", "failing", "of", "read from"]]
    for item in sets:
        asked = _count(item)
        rows.append([item.name, item.kind, str(len(item.failed)), "?" if asked is None else str(asked), item.path])
    yield from _table(rows)
    rows = [["first", "second", "both", "only first", "only second", "Jaccard", "first in second", "second in first"]]
    for pair in found.pairs:
        shares = [_share(value) for value in (pair.jaccard, pair.first_in_second, pair.second_in_first)]
        counts = [str(count) for count in (pair.both, len(pair.only_first), len(pair.only_second))]
        rows.append([pair.first, pair.second, *counts, *shares])
    yield from _table(rows)
    if len(sets) > 2:
        regions = [[" & ".join(row.sets), str(row.inside), str(len(row.alone))] for row in found.regions]
        yield from _table([["in", "prompts", "in no other"], *regions])
    for item in sets:
        yield from (f"{item.name}: {note}" for note in item.notes)
    if found.population is not None:
        yield f"the population: {found.population} prompts."
    yield from found.sentences
    for region in found.regions:
        if region.alone and len(region.sets) < len(sets):
            yield from _members(region, show)


def _members(region: "Region", show: int) -> Iterator[str]:
    """The prompts of one row of the Venn table."""
    from repro.core.sentences import listed

    yield f"\nonly in {listed(region.sets)} ({len(region.alone)}):"
    yield from (f"  {_line(text)}" for text in region.alone[:show])
    if len(region.alone) > show:
        yield f"  and {len(region.alone) - show} more (--show {len(region.alone)})"


def _line(text: str) -> str:
    """A prompt on one line; what a terminal would act upon is written as an escape."""
    from repro.core.sentences import visible

    plain = visible(text)
    return plain if len(plain) <= WIDTH else f"{plain[: WIDTH - 1]}…"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, the heading first, and an empty line behind."""
    shown = [[_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
