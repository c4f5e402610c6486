"""The cells of a matrix as grids: one environment beside the other, and what each answered to each ablation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from repro.core.answer import Answer
from repro.core.records import Outcome
from repro.core.sentences import visible
from repro.core.sweep_answers import CellRow
from repro.report.cells import answered_ablations, cells_of
from repro.report.markdown import thinned
from repro.report.page.marks import ASKED, SIGNS

ROWS, COLUMNS = 40, 20
AXES: dict[str, Callable[[CellRow], str | None]] = {
    "Transformers": lambda cell: cell.transformers,
    "Python": lambda cell: cell.python,
    "device": lambda cell: cell.device,
    "dtype": lambda cell: cell.dtype,
    "attention": lambda cell: cell.attn,
    "platform": lambda cell: cell.platform,
}
"""What cells may differ in besides torch, which the columns are made of."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict in its place, and the cell's name where the grid does not say it."""

    verdict: Outcome
    name: str = ""

    @property
    def sign(self) -> str:
        """So that colour is never the only sign."""
        return SIGNS[self.verdict]


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns with their names, and the verdicts in each place: none, one, or several."""

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[Verdict]]]]
    note: str = ""
    upright: bool = False
    """Whether the names above are long, and so stand."""


def by_versions(answer: Answer) -> Grid | None:
    """PyTorch from the left, all else that differs from the top; None where cells do not say what they are."""
    cells = cells_of(answer)
    torches = sorted({cell.torch for cell in cells if cell.torch}, key=_version)
    if not torches:
        return None
    differ = {name: of for name, of in AXES.items() if len({of(cell) for cell in cells}) > 1}
    kinds = sorted(
        {tuple(of(cell) or "" for of in differ.values()) for cell in cells}, key=lambda kind: [*map(_version, kind)]
    )
    rows = []
    for kind in kinds[:ROWS]:
        alike = [cell for cell in cells if tuple(of(cell) or "" for of in differ.values()) == kind]
        places = [
            [Verdict(cell.verdict, visible(cell.label or cell.id)) for cell in alike if cell.torch == torch]
            for torch in torches
        ]
        said = [f"{axis} {value}" for axis, value in zip(differ, kind, strict=True) if value]
        name = kind[0] if len(differ) == 1 else ", ".join(said)
        rows.append((visible(name or "all cells"), places[:COLUMNS]))
    unknown = sum(cell.torch is None for cell in cells)
    notes = [f"Without a place here, for their torch is not known: {unknown}." if unknown else ""]
    notes += [f"The first {ROWS} rows are shown." if len(kinds) > ROWS else ""]
    notes += [f"The first {COLUMNS} columns are shown." if len(torches) > COLUMNS else ""]
    title = "Verdict of each cell, by version"
    corner = f"{next(iter(differ))} ↓ torch →" if len(differ) == 1 else "torch"
    return Grid(title, corner, [visible(torch) for torch in torches[:COLUMNS]], rows, " ".join(filter(None, notes)))


def by_ablations(answer: Answer) -> Grid | None:
    """Cells from the top, ablations from the left; None where no ablation was answered."""
    cells = cells_of(answer)
    names = answered_ablations(cells)
    if not names:
        return None
    few, note = thinned(cells, ROWS, {place for place, cell in enumerate(cells) if cell.verdict is Outcome.BAD})
    rows = []
    for cell in few:
        of = {ablation.name: Verdict(ablation.verdict) for ablation in cell.ablations}
        places = [[Verdict(cell.verdict)], *([of[name]] if name in of else [] for name in names[:COLUMNS])]
        rows.append((visible(cell.label or cell.id), places))
    notes = [f"{len(few)} of {len(cells)} cells are shown; verdict.json has all." if note else ""]
    notes += [f"The first {COLUMNS} of {len(names)} ablations are shown." if len(names) > COLUMNS else ""]
    columns = [ASKED, *map(visible, names[:COLUMNS])]
    title = "Verdict of each ablation in each cell"
    return Grid(title, "cell", columns, rows, " ".join(filter(None, notes)), upright=True)


def _version(text: str) -> tuple[Version, str]:
    """Something to order by; what is no version comes first, by its letters."""
    try:
        return Version(text), text
    except InvalidVersion:
        return Version("0"), text
