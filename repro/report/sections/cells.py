"""The cells of a matrix: their verdicts, ablations and commands, and what the fault follows."""

from collections.abc import Sequence

from repro.core.records import Outcome
from repro.core.sentences import listed, plain
from repro.core.sweep_answers import CellPair, CellRow, Difference, Differences
from repro.report.cells import answered_ablations, cells_of, same_outputs, statements
from repro.report.markdown import DASH, Row, cell, commands, first_of, or_dash, text, thinned, verdict
from repro.report.plots.verdicts import cells
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
One environment each.

{{ table(head, rows) }}

{{ note }}

{{ same }}

{{ "Ablations in each cell:" if ablations }}

{{ table(ablations_head, ablations) }}

{{ ablations_note }}

{{ "What the fault follows:" if statements }}

{{ bullets(statements) }}

{{ "Each bad cell and the good cell nearest to it (the bad cell's value first):" if pairs }}

{{ table(["bad cell", "nearest good cell", "axes", "packages", "settings that change numbers"], pairs) }}

{{ pairs_note }}

{{ bullets(remarks) }}

{{ "To run each cell again:" if commands }}

{{ commands }}

{{ "Everything below is from the cell " ~ shown ~ "." if shown }}
"""
NAMES = 8
"""How many packages or settings that differ are named in one cell of a table."""


def fill(shown: Shown) -> Variables | None:
    answer, rows = shown.answer, shown.rows
    items = cells_of(answer)
    if not items:
        return None
    bad = {index for index, item in enumerate(items) if item.verdict is Outcome.BAD}
    chosen, note = thinned(items, rows, bad)
    with_ablations, ablations_note = thinned([item for item in items if item.ablations], rows, set())
    platforms = len({item.platform for item in items if item.platform}) > 1
    names = answered_ablations(items)
    followed, more = first_of(statements(answer) if bad else [], rows, "statements")
    place = ["platform"] if platforms else []
    return {
        "head": ["cell", "Python", "torch", "Transformers", "device", *place, "verdict", "seconds", "reason"],
        "rows": [_row(item, platforms=platforms) for item in chosen],
        "note": note,
        "same": text(same_outputs(items) or "") or None,
        "ablations_head": ["cell", "as asked", *map(cell, names)],
        "ablations": [_ablations(item, names) for item in with_ablations] if names else [],
        "ablations_note": ablations_note if names else None,
        "statements": [text(line) for line in followed] + ([more] if more else []),
        "commands": commands(item.command for item in chosen),
        "shown": cell(answer.shown_cell) if answer.shown_cell else None,
        **_pairs(answer.differences or Differences(), rows),
    }


def _row(item: CellRow, *, platforms: bool) -> Row:
    values = [item.python, item.torch, item.transformers, item.device, *([item.platform] if platforms else ())]
    return [
        cell(item.label or item.id),
        *map(or_dash, values),
        verdict(item.verdict),
        f"{item.seconds:.1f}",
        text(item.reason),
    ]


def _ablations(item: CellRow, names: Sequence[str]) -> Row:
    verdicts = {ablation.name: verdict(ablation.verdict) for ablation in item.ablations}
    return [cell(item.label or item.id), verdict(item.verdict), *(verdicts.get(name, DASH) for name in names)]


def _pairs(differences: Differences, rows: int) -> dict[str, object]:
    """The nearest pairs as a table, and what is to be said of these and of other pairs."""
    nearest, note = first_of([pair for pair in differences.pairs if pair.nearest and pair.good], rows, "pairs")
    noted: dict[str, list[str]] = {}
    for pair in differences.pairs:
        if pair.note:
            noted.setdefault(pair.note, []).append(_beside(pair))
    remarks, more = first_of([f"{listed(names)}: {text(said)}" for said, names in noted.items()], rows, "remarks")
    return {
        "pairs": [
            [cell(pair.bad), cell(pair.good), *map(_changes, (pair.axes, pair.packages, pair.settings))]
            for pair in nearest
        ],
        "pairs_note": note,
        "remarks": remarks + ([more] if more else []),
    }


def _beside(pair: CellPair) -> str:
    return cell(pair.bad) + (f" beside {cell(pair.good)}" if pair.good else "")


def _changes(changes: Sequence[Difference]) -> str:
    """``numpy 1.26.4, 2.1.0; ...``: the bad cell's value, then the good one's."""
    shown = [f"{cell(item.name)} {_value(item.bad)}, {_value(item.good)}" for item in changes[:NAMES]]
    more = len(changes) - NAMES
    return "; ".join(shown + ([f"and {more} more"] if more > 0 else [])) or DASH


def _value(value: object) -> str:
    if value is None:
        return "none"
    return plain(value) if isinstance(value, float) else text(value)


SECTION = Section("Cells", fill, TEMPLATE, plot=cells, rank=6)
