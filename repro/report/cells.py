"""The cells of a table, as the title, the section and the plot read them."""

import itertools
from collections.abc import Iterator, Sequence

from repro.core.answer import Answer
from repro.core.finite.sketch import Apart, apart
from repro.core.records import Outcome
from repro.core.sentences import listed
from repro.core.sweep_answers import CellRow

NOTHING_ALONE = "No bad cell differs from a good one in one thing alone, so what the fault follows is not known."


def cells_of(answer: Answer) -> tuple[CellRow, ...]:
    """The rows of a table of cells; none for one cell, which is a plain run."""
    return answer.cells if answer.cells and len(answer.cells) > 1 else ()


def answered_ablations(cells: Sequence[CellRow]) -> list[str]:
    """Those ablations that at least one cell answered."""
    every = [ablation for cell in cells for ablation in cell.ablations]
    return list(dict.fromkeys(ablation.name for ablation in every if ablation.verdict is not Outcome.SKIP))


def same_outputs(cells: Sequence[CellRow]) -> str | None:
    """Which good cells give the same output, bit for bit and within rounding, in a sentence or two; None where fewer
    than two have one.
    """
    alike: dict[tuple[str, ...], list[CellRow]] = {}
    for cell in cells:
        if cell.outputs:
            alike.setdefault(cell.outputs, []).append(cell)
    if sum(map(len, alike.values())) < 2:
        return None
    groups = [_named(rows) for rows in alike.values() if len(rows) > 1]
    others = [rows for rows in alike.values() if len(rows) == 1]
    said = f"The same output, bit for bit: {'; '.join(groups)}." if groups else "No two good cells give the same bits."
    if groups and others:
        said += f" Of no other cell's: {listed([_name(rows[0]) for rows in others])}."
    return said if len(alike) == 1 else " ".join((said, *_within_rounding([*alike.values()])))


def _within_rounding(alike: list[list[CellRow]]) -> Iterator[str]:
    """Of cells whose bits differ; those of the same bits stand together."""
    groups: list[list[list[CellRow]]] = []
    for rows in alike:
        fits = (group for group in groups if all(_apart(rows, other).agree for other in group))
        group = next(fits, None)
        if group is None:
            groups.append([rows])
        else:
            group.append(rows)
    together = [_near(group) for group in groups if len(group) > 1]
    if together:
        yield f"Within rounding of one another: {'; '.join(together)}."
    apart = [(one, two, _apart(one[0], two[0])) for one, two in itertools.combinations(groups, 2)]
    beyond = [row for row in apart if row[2].degree is not None]
    if beyond:
        yield f"Not within rounding: {'; '.join(_far(*row) for row in beyond)}."
    unknown = [row for row in apart if row[2].degree is None]
    if unknown:
        pairs = "; ".join(f"{_name(one[0][0])} and {_name(two[0][0])} ({found.why_not})" for one, two, found in unknown)
        yield f"Not compared: {pairs}."
    if beyond or unknown:
        yield "Which module parts: repro diff MODEL --against CELL tells."


def _apart(these: list[CellRow], those: list[CellRow]) -> Apart:
    one, two = these[0].sketches, those[0].sketches
    return apart(one, two) if one and two else Apart(why_not="what they end with was not kept")


def _near(group: list[list[CellRow]]) -> str:
    most = max(_apart(one, two).degree or 0.0 for one, two in itertools.combinations(group, 2))
    return f"{_named([row for rows in group for row in rows])}, at most {most:.2g} of what it allows"


def _far(one: list[list[CellRow]], two: list[list[CellRow]], found: Apart) -> str:
    flips = f", {found.flips} of {found.rows} likeliest tokens differ" if found.rows else ""
    names = " and ".join(_name(group[0][0]) for group in (one, two))
    return f"{names}, {found.degree:.3g} times what rounding allows{flips}"


def _name(cell: CellRow) -> str:
    return cell.label or cell.id


def _named(cells: Sequence[CellRow]) -> str:
    return listed([_name(cell) for cell in cells])


def statements(answer: Answer) -> list[str]:
    """What the cells say that the fault follows."""
    found = [item.text for item in answer.differences.statements] if answer.differences else []
    return found or [NOTHING_ALONE]
