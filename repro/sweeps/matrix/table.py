"""The cells of a matrix as one answer: its verdict, its part of ``verdict.json``, and two tables for a terminal.

The tables are plain where rich's console is: in a pipe, with NO_COLOR, and with TERM=dumb. Verdicts are words, so that
nothing is lost without colour.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.core.encoding import to_json
from repro.core.records import Outcome, Verdict
from repro.core.sentences import listed, named_mechanism, sentence
from repro.environments.difference import Row
from repro.sweeps.matrix.statements import compare, labels

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"good": "green", "bad": "bold red", "skip": "yellow"}
ABSENT = "-"


def matrix_verdict(rows: Sequence[Row]) -> Verdict:
    """Bad if any cell is bad; good if at least one is good and none bad; else skip. The reason names them."""
    by_verdict: dict[str, list[str]] = {}
    for label, row in zip(labels(rows), rows, strict=True):
        by_verdict.setdefault(row["verdict"], []).append(label)
    outcome = next((one for one in (Outcome.BAD, Outcome.GOOD) if one.value in by_verdict), Outcome.SKIP)
    first, *others = [outcome.value, *(word for word in ("bad", "good", "skip") if word != outcome.value)]
    if not rows:
        return Verdict(outcome, "no cell was run")
    named = by_verdict[first]
    parts = [f"{len(named)} of {len(rows)} cells {'is' if len(named) == 1 else 'are'} {first} ({listed(named)})"]
    parts += [f"{len(by_verdict[word])} {word} ({listed(by_verdict[word])})" for word in others if word in by_verdict]
    return Verdict(outcome, "; ".join(parts))


def matrix_part(rows: Sequence[Row]) -> dict[str, Any]:
    """What a matrix adds to ``verdict.json``: "cells", each with a "label" that no other has, and "differences"."""
    cells = [{**to_json(row), "label": label} for label, row in zip(labels(rows), rows, strict=True)]
    return {"cells": cells, "differences": to_json(compare(rows))}


def cells_table(rows: Sequence[Row]) -> "Table":
    """One line for each cell: where it ran, its verdict, and the reason or the place where the fault is born."""
    from rich.text import Text

    table = _table(("cell", "python", "torch", "transformers", "device", "verdict"))
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for label, row in zip(labels(rows), rows, strict=True):
        seconds = row.get("seconds")
        table.add_row(
            Text(label),
            *(Text(str(row.get(name) or ABSENT)) for name in ("python", "torch", "transformers", "device")),
            Text(row["verdict"], style=COLOURS[row["verdict"]]),
            ABSENT if seconds is None else f"{seconds:.1f}",
            Text(_found(row)),
        )
    return table


def cell_ablations_table(rows: Sequence[Row]) -> "Table | None":
    """Cells x single changes, for those changes that at least one cell answered; None where there is none."""
    from rich.text import Text

    names = answered_ablations(rows)
    if not names:
        return None
    table = _table(("cell", "as\nasked"), padding=0)
    for name in names:
        table.add_column(Text(re.sub("([=_])", r"\1\n", name)), overflow="fold")
    for label, row in zip(labels(rows), rows, strict=True):
        verdicts = {ablation["name"]: ablation["verdict"] for ablation in row.get("ablations") or ()}
        words = [row["verdict"], *(verdicts.get(name, ABSENT) for name in names)]
        table.add_row(Text(label), *(Text(word, style=COLOURS.get(word, "")) for word in words))
    return table


def answered_ablations(rows: Iterable[Row]) -> list[str]:
    """The names of the changes that are good or bad in at least one cell, in the order in which they are met."""
    ablations: list[Mapping[str, Any]] = [ablation for row in rows for ablation in row.get("ablations") or ()]
    answered = {ablation["name"] for ablation in ablations if ablation["verdict"] != "skip"}
    return [name for name in dict.fromkeys(ablation["name"] for ablation in ablations) if name in answered]


def _table(columns: Sequence[str], padding: int = 1) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _found(row: Row) -> str:
    """Mechanism, module, operator and source line where the origin is known, else the reason."""
    origin = row.get("origin")
    if row["verdict"] != "bad" or not origin:
        return str(row["reason"])
    place = ", ".join(str(origin[key]) for key in ("op", "source") if origin.get(key))
    where = f"{named_mechanism(origin, {})} in {origin.get('module') or 'the model itself'}"
    return sentence(f"{where} ({place})" if place else where)
