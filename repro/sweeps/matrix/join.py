"""Rows of cells, from one machine or several, as one answer: verdict.json and report.md of the whole table."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from repro.core import paths
from repro.core.encoding import to_json
from repro.core.errors import RecordError
from repro.core.records import Case, Cell, Header, Judgement, Verdict
from repro.core.sentences import sentence
from repro.diagnosis.known import looks_like
from repro.report.document import document
from repro.report.render import scripts_of
from repro.sweeps.matrix.rows import Row
from repro.sweeps.matrix.table import matrix_part, matrix_verdict


def join(rows: Sequence[Row], folder: Path, argv: tuple[str, ...], tool: str, case: Case) -> dict[str, Any]:
    """The content of verdict.json for a table of cells.

    The cell that a maintainer would ask for first, the newest of those that are bad (else of those that are good),
    stands for all of them: its steps, origin and environment are the report's. The verdict is the whole table's.

    Args:
        rows: Of the cells.
        folder: The matrix's folder, below which ``row["folder"]`` is each cell's run.
        argv: The command that gives all of it again.
        tool: The version of this toolkit.
        case: What was asked, for the case that no cell could be.
    """
    verdict = matrix_verdict(rows)
    shown = newest(rows)
    base = None if shown is None else read_document(folder / str(shown["folder"]))
    if shown is None or base is None:
        shown, base = None, nothing(verdict, case, argv, tool)
    reason = sentence(verdict.reason) + "."
    headline = reason if shown is None else f"{reason} In {shown['id']}: {base['headline']}"
    content = {
        **base,
        "verdict": verdict.outcome.value,
        "reason": reason,
        "headline": headline,
        "command": shlex.join(argv),
        "shown_cell": None if shown is None else shown["id"],
        **matrix_part(rows),
    }
    # What other cells answer may tell a known fault from its neighbours.
    return {**content, "looks_like": to_json(looks_like(content))}


def newest(rows: Sequence[Row]) -> Row | None:
    """The cell that stands for all: bad before good, then by torch, Transformers and Python."""
    for verdict in ("bad", "good"):
        found = [row for row in rows if row["verdict"] == verdict and row["folder"]]
        if found:
            return max(found, key=lambda row: [_version(row[key]) for key in ("torch", "transformers", "python")])
    return None


def _version(text: object) -> Version:
    """A version to order by; one that is none comes first."""
    try:
        return Version(str(text))
    except InvalidVersion:
        return Version("0")


def bring_scripts(folder: Path, content: Mapping[str, Any]) -> None:
    """Copy the scripts of the cell that stands for all to the folder of the table.

    Raises:
        EvidenceError: they cannot be written.
    """
    place = next((row["folder"] for row in content["cells"] if row["id"] == content["shown_cell"]), None)
    for name, text in scripts_of(folder / str(place), content).items() if place else ():
        paths.write(folder / name, text)


def read_document(folder: Path) -> dict[str, Any] | None:
    """The verdict.json of a run; None where there is none that can be read."""
    try:
        return paths.read_object(folder / "verdict.json")
    except RecordError:
        return None


def nothing(verdict: Verdict, case: Case, argv: tuple[str, ...], tool: str) -> dict[str, Any]:
    """A document with every part absent."""
    judgement = Judgement(verdict, None, verdict.reason, None, (), ())
    started = datetime.now(UTC).isoformat(timespec="seconds")
    header = Header(case=case, cell=Cell(""), kit_sha256="", tool=tool, command=argv, started=started)
    return document(judgement, {}, header, None, argv)
