"""The cells of a matrix as one answer: its verdict, and two tables for a terminal.

The tables are plain where rich's console is: in a pipe, with NO_COLOR, and with TERM=dumb. Verdicts are words, so that
nothing is lost without colour.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from repro.core.records import Outcome, Verdict
from repro.core.sentences import listed, named_mechanism, named_module, sentence
from repro.core.sweep_answers import CellRow
from repro.sweeps.matrix.statements import labels

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

COLOURS = {"good": "green", "bad": "bold red", "skip": "yellow"}
ABSENT = "-"


def matrix_verdict(rows: Sequence[CellRow]) -> Verdict:
    """Bad if any cell is bad; good if at least one is good and none bad; else skip. The reason names them."""
    named: dict[Outcome, list[str]] = {}
    for label, row in zip(labels(rows), rows, strict=True):
        named.setdefault(row.verdict, []).append(label)
    if not named:
        return Verdict(Outcome.SKIP, "no cell was run")
    first, *others = [one for one in (Outcome.BAD, Outcome.GOOD, Outcome.SKIP) if one in named]
    verb = "is" if len(named[first]) == 1 else "are"
    parts = [f"{len(named[first])} of {len(rows)} cells {verb} {first.value} ({listed(named[first])})"]
    parts += [f"{len(named[one])} {one.value} ({listed(named[one])})" for one in others]
    return Verdict(first, "; ".join(parts))


def cells_table(rows: Sequence[CellRow]) -> "Table":
    """One line for each cell: where it ran, its verdict, and the reason or the place where the fault is born."""
    from rich.text import Text

    table = _table(("cell", "python", "torch", "transformers", "device", "verdict"))
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for label, row in zip(labels(rows), rows, strict=True):
        table.add_row(
            Text(label),
            *(Text(value or ABSENT) for value in (row.python, row.torch, row.transformers, row.device)),
            _word(row.verdict),
            f"{row.seconds:.1f}",
            Text(_found(row)),
        )
    return table


def cell_ablations_table(rows: Sequence[CellRow]) -> "Table | None":
    """Cells x ablations, for those ablations that at least one cell answered; None where there is none."""
    from rich.text import Text

    names = answered_ablations(rows)
    if not names:
        return None
    table = _table(("cell", "as\nasked"), padding=0)
    for name in names:
        table.add_column(Text(re.sub("([=_])", r"\1\n", name)), overflow="fold")
    for label, row in zip(labels(rows), rows, strict=True):
        verdicts = {ablation.name: ablation.verdict for ablation in row.ablations}
        table.add_row(Text(label), _word(row.verdict), *(_word(verdicts.get(name)) for name in names))
    return table


def answered_ablations(rows: Iterable[CellRow]) -> list[str]:
    """The names of the ablations that are good or bad in at least one cell, in the order in which they are met."""
    ablations = [ablation for row in rows for ablation in row.ablations]
    answered = {ablation.name for ablation in ablations if ablation.verdict is not Outcome.SKIP}
    return [name for name in dict.fromkeys(ablation.name for ablation in ablations) if name in answered]


def _table(columns: Sequence[str], padding: int = 1) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _word(verdict: Outcome | None) -> "Text":
    from rich.text import Text

    return Text(ABSENT) if verdict is None else Text(verdict.value, style=COLOURS[verdict.value])


def _found(row: CellRow) -> str:
    """Mechanism, module, operator and source line where the origin is known, else the reason."""
    origin = row.origin
    if row.verdict is not Outcome.BAD or origin is None:
        return row.reason
    place = ", ".join(part for part in (origin.op, origin.source) if part)
    where = f"{named_mechanism(origin, None)} in {named_module(origin)}"
    return sentence(f"{where} ({place})" if place else where)
