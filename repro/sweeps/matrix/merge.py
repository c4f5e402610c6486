"""Joins the tables of several machines, or single runs, into one: the same cell on another platform is another cell."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.encoding import decode
from repro.core.errors import RecordError, UsageError
from repro.core.records import Case, Recipe
from repro.run import output
from repro.run.run import Result
from repro.sweeps.matrix.join import bring_scripts, join
from repro.sweeps.matrix.rows import Row, answered
from repro.sweeps.matrix.run import HEADER, ROW, answers


@dataclass(frozen=True, slots=True)
class _Found:
    """One cell's row, the folder of its run, and the case that was asked."""

    row: Row
    folder: Path
    case: Case


def merge(places: Sequence[Path], out: Path | None) -> Result:
    """One table of every cell below ``places``: folders of matrices or single runs, or folders that hold such.

    Args:
        places: Where to look.
        out: The new folder; None for one below repro-runs/.

    Raises:
        UsageError: there is nothing to join in one of them, they ask different questions, or ``out`` is not empty.
        EvidenceError: ``out`` cannot be written.
    """
    found: list[_Found] = []
    for place in places:
        here = list(_in(place))
        if not here:
            raise UsageError(
                f"{place} holds no cell's {ROW} and no run's verdict.json: there is nothing to join in it."
            )
        found += here
    for other in found[1:]:
        if _question(other.case) != _question(found[0].case):
            raise UsageError(
                f"{found[0].folder} and {other.folder} ask different questions "
                f"({_question(found[0].case)} and {_question(other.case)}): their answers cannot share a table."
            )
    folder = out or paths.run_folder(found[0].case, datetime.now(UTC), "merged")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} is not empty. Give a new folder.")
    folder = paths.make(folder)
    rows = []
    for name, item in zip(_names(found), found, strict=True):
        shutil.copytree(item.folder, folder / name)
        rows.append({**item.row, "id": name, "folder": name if item.row["folder"] is not None else None})
    rows.sort(key=lambda row: str(row["id"]))
    argv = ("repro", "merge", *map(str, places))
    document = join(rows, folder, argv, __version__, found[0].case)
    bring_scripts(folder, document)
    return Result(folder, output.write(folder, document, whole=True))


def _in(place: Path) -> Iterator[_Found]:
    """Every cell in a folder or below it; each folder is taken once, as the outermost thing that it is."""
    if (place / HEADER).is_file():
        case = _case(place / HEADER)
        for folder, data in answers(place):
            if data["row"] is not None:
                yield _Found(data["row"], folder, case)
    elif (place / "evidence.jsonl").is_file() and (place / "verdict.json").is_file():
        yield _single(place)
    elif place.is_dir():
        for inner in sorted(path for path in place.iterdir() if path.is_dir()):
            yield from _in(inner)


def _single(place: Path) -> _Found:
    """A run that belongs to no matrix, as a cell that has the folder's name."""
    document = _json(place / "verdict.json")
    where = document["cell"]
    pins = {name: str(where[name]) for name in ("torch", "transformers") if where[name]}
    recipe = Recipe(place.name, str(where["python"]), str(where["device"]), "a single run", pins)
    seconds = sum(step["seconds"] for step in document["steps"])
    row = answered(recipe, document, seconds, document["command"])
    return _Found(row, place, decode(Case, document["case"]))


def _case(path: Path) -> Case:
    return decode(Case, _json(path).get("case"))


def _json(path: Path) -> dict[str, Any]:
    try:
        return paths.read_object(path)
    except RecordError as error:
        raise UsageError(f"{path} cannot be read ({error}).") from None


def _question(case: Case) -> str:
    """What was asked, without the place where a machine keeps the model, and without the device, which cells choose."""
    # A path of another system than this one is a path all the same.
    kinds = [kind(case.model) for kind in (PurePosixPath, PureWindowsPath)]
    name = next((path.name for path in kinds if path.is_absolute()), case.model)
    parts = [name, case.revision, case.weights, case.dtype, case.attn, *case.prompts]
    return " ".join(str(part) for part in parts if part is not None)


def _names(found: Sequence[_Found]) -> list[str]:
    """A name for each cell: its id; with its platform where several have that id; with a number where even that is
    shared.
    """
    ids = Counter(item.row["id"] for item in found)
    names = [
        item.row["id"] if ids[item.row["id"]] == 1 else f"{item.row['id']}@{_platform(item.row)}" for item in found
    ]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return numbered


def _platform(row: Row) -> str:
    """``macos-arm64``: system and machine, from the words of ``platform.platform()``."""
    system = str(row["platform"]).partition("-")[0].lower()
    return f"{system}-{str(row['machine'] or 'unknown').lower()}"
