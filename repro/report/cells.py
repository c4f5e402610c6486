"""The cells of a table, as the title, the section and the plot read them."""

from collections.abc import Sequence

from repro.core.answer import Answer
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
    """Which good cells give the same output, bit for bit, in a sentence; None where fewer than two have one."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if cell.outputs:
            alike.setdefault(cell.outputs, []).append(cell.label or cell.id)
    if sum(map(len, alike.values())) < 2:
        return None
    groups = [listed(names) for names in alike.values() if len(names) > 1]
    others = [names[0] for names in alike.values() if len(names) == 1]
    said = f"The same output, bit for bit: {'; '.join(groups)}." if groups else "No two good cells give the same bits."
    if groups and others:
        said += f" Of no other cell's: {listed(others)}."
    rest = " Whether these differ by rounding alone: repro diff MODEL --against CELL tells."
    return said if len(alike) == 1 else said + rest


def statements(answer: Answer) -> list[str]:
    """What the cells say that the fault follows."""
    found = [item.text for item in answer.differences.statements] if answer.differences else []
    return found or [NOTHING_ALONE]
