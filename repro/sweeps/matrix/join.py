"""Rows of cells, from one machine or several, as one answer: verdict.json and report.md of the whole table."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from repro.core import paths
from repro.core.answer import NAME, Answer, read
from repro.core.encoding import replace
from repro.core.errors import RecordError, UsageError
from repro.core.records import Case, Cell, Header, Outcome, Verdict
from repro.core.sentences import sentence
from repro.core.sweep_answers import CellRow
from repro.diagnosis.answer import answer
from repro.diagnosis.known import looks_like
from repro.diagnosis.verdict import Judgement
from repro.report.render import scripts_of
from repro.sweeps.matrix.statements import compare, labelled
from repro.sweeps.matrix.table import matrix_verdict


def join(rows: Sequence[CellRow], folder: Path, argv: tuple[str, ...], tool: str, case: Case) -> Answer:
    """The answer of a table of cells.

    The cell that a maintainer would ask for first, the newest of those that are bad (else of those that are good),
    represents them all: its steps, origin and environment are the report's. The verdict is the whole table's.

    Args:
        rows: Of the cells.
        folder: The matrix's folder, below which each row's ``folder`` is that cell's run.
        argv: The command that gives all of it again.
        tool: The version of this toolkit.
        case: What was asked, in case no cell could be.
    """
    verdict = matrix_verdict(rows)
    shown = newest(rows)
    base = None if shown is None else read_answer(folder / str(shown.folder))
    reason = sentence(verdict.reason) + "."
    found = replace(
        base or nothing(verdict, case, argv, tool),
        verdict=verdict.outcome,
        reason=reason,
        headline=reason if shown is None or base is None else f"{reason} In {shown.id}: {base.headline}",
        command=shlex.join(argv),
        shown_cell=None if shown is None or base is None else shown.id,
        cells=labelled(rows),
        differences=compare(rows),
    )
    # What other cells answer may tell a known fault from its neighbours.
    return replace(found, looks_like=looks_like(found))


def newest(rows: Sequence[CellRow]) -> CellRow | None:
    """The cell that represents all: bad before good, then by torch, Transformers and Python."""
    for verdict in (Outcome.BAD, Outcome.GOOD):
        found = [row for row in rows if row.verdict is verdict and row.folder]
        if found:
            return max(found, key=lambda row: [_version(text) for text in (row.torch, row.transformers, row.python)])
    return None


def _version(text: str | None) -> Version:
    """A version to order by; one that is none comes first."""
    try:
        return Version(text or "0")
    except InvalidVersion:
        return Version("0")


def bring_scripts(folder: Path, found: Answer) -> None:
    """Copy the scripts of the cell that represents all to the folder of the table.

    Raises:
        EvidenceError: they cannot be written.
    """
    place = next((row.folder for row in found.cells or () if row.id == found.shown_cell), None)
    for name, text in scripts_of(folder / place, found).items() if place else ():
        paths.write(folder / name, text)


def read_answer(folder: Path) -> Answer | None:
    """The answer of a run; None where it left none.

    Raises:
        UsageError: it is of another shape.
    """
    path = folder / NAME
    try:
        return read(path) if path.is_file() else None
    except RecordError as error:
        raise UsageError(f"{path} cannot be read ({error}).") from None


def nothing(verdict: Verdict, case: Case, argv: tuple[str, ...], tool: str) -> Answer:
    """An answer with every part absent."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    header = Header(case=case, cell=Cell(""), kit_sha256="", tool=tool, command=argv, started=started)
    return answer(Judgement(verdict), {}, header)
