"""Joins the tables of several machines, or single runs, into one: the same cell on another platform is another cell."""

import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from repro import __version__
from repro.core import paths
from repro.core.answer import NAME, Answer
from repro.core.encoding import replace
from repro.core.errors import EvidenceError, RecordError, UsageError
from repro.core.locks import FILES as LOCK_FILES
from repro.core.locks import Say, folder_held, is_unused, nobody
from repro.core.records import Case, Recipe
from repro.core.sweep_answers import CellRow
from repro.engine.evidence import NAME as EVIDENCE
from repro.run import output
from repro.run.run import Result
from repro.sweeps.matrix.join import bring_scripts, join, read_answer
from repro.sweeps.matrix.rows import answered
from repro.sweeps.matrix.run import HEADER, ROW, Header, row_files

FOLDER_NAME = re.compile(r"\w[\w.@+ -]{0,99}")
"""What a cell may be called, since its run's folder has that name: nothing that leads to another folder."""
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Found:
    """One cell's row, the folder of its run, and the case that was asked."""

    row: CellRow
    folder: Path
    case: Case


def merge(places: Sequence[Path], out: Path | None, say: Say = nobody) -> Result:
    """One table of every cell below ``places``: folders of matrices or single runs, or folders that hold such.

    Args:
        places: Where to look.
        out: The new folder; None for one below repro-runs/.
        say: Is given the lines that a person should see meanwhile.

    Raises:
        UsageError: there is nothing to join in one of them, a file has another shape, they ask different questions, or
            ``out`` is not empty or is being written.
        EvidenceError: ``out`` cannot be written.
    """
    found: list[_Found] = []
    for place in places:
        here = list(_in(place))
        if not here:
            raise UsageError(f"{place} holds no cell's {ROW} and no run's {NAME}: there is nothing to join in it.")
        found += here
    for other in found[1:]:
        if _question(other.case) != _question(found[0].case):
            raise UsageError(
                f"{found[0].folder} and {other.folder} ask different questions "
                f"({_question(found[0].case)} and {_question(other.case)}): their answers cannot share a table."
            )
    names = _names(found)
    folder = paths.make(out or paths.run_folder(found[0].case, datetime.now(UTC), "merged"))
    command = ("repro", "merge", *map(str, places))
    with folder_held(folder, shlex.join(command), say):
        if not is_unused(folder):
            raise UsageError(f"--out {folder} is not empty. Give a new folder.")
        return _merge(folder, names, found, command)


def _merge(folder: Path, names: Sequence[str], found: Sequence[_Found], command: tuple[str, ...]) -> Result:
    """Each run copied into the folder, and the table of all of them."""
    rows = []
    for name, item in zip(names, found, strict=True):
        try:
            shutil.copytree(item.folder, folder / name, ignore=shutil.ignore_patterns(*LOCK_FILES))
        except OSError as error:
            raise EvidenceError(f"could not copy {item.folder} to {folder / name}: {error}") from error
        rows.append(replace(item.row, id=name, folder=name if item.row.folder is not None else None))
    rows.sort(key=lambda row: row.id)
    answer = join(rows, folder, command, __version__, found[0].case)
    bring_scripts(folder, answer)
    return Result(folder, output.write(folder, answer, whole=True))


def _in(place: Path) -> Iterator[_Found]:
    """Every cell in a folder or below it; each folder is taken once, as the outermost thing that it is."""
    if (place / HEADER).is_file():
        case = _record(place / HEADER, Header).case
        for folder, file in row_files(place):
            if file.row is not None:
                read_answer(folder)  # refused before anything is copied
                yield _Found(file.row, folder, case)
    elif (place / EVIDENCE).is_file() and (place / NAME).is_file():
        yield _single(place)
    elif place.is_dir():
        for inner in sorted(path for path in place.iterdir() if path.is_dir()):
            yield from _in(inner)


def _single(place: Path) -> _Found:
    """A run that belongs to no matrix, as a cell that has the folder's name."""
    answer = _record(place / NAME, Answer)
    where = answer.cell
    pins = {name: pin for name, pin in (("torch", where.torch), ("transformers", where.transformers)) if pin}
    name = re.sub(r"[^\w.@+ -]+", "-", place.absolute().name)[:60].lstrip(" .@+-") or "run"
    recipe = Recipe(name, str(where.python), str(where.device), "a single run", pins)
    row = answered(recipe, answer, sum(step.seconds for step in answer.steps), answer.command)
    return _Found(row, place, answer.case)


def _record(path: Path, kind: type[R]) -> R:
    try:
        return paths.read_record(path, kind)
    except RecordError as error:
        raise UsageError(f"{path} cannot be read ({error}).") from None


def _question(case: Case) -> str:
    """What was asked, without the place where a machine keeps the model, and without the device, which cells choose."""
    given = map(_without_place, case.given.values())
    made = None if case.factory in (None, case.model) else _without_place(str(case.factory))
    parts = [_without_place(case.model), made, case.revision, case.weights, case.dtype, case.attn]
    parts += [*case.prompts, *given, *case.phase_words]
    return " ".join(str(part) for part in parts if part is not None)


def _without_place(name: str) -> str:
    """The last part of a path; a path of another system than this one is a path all the same."""
    kinds = [kind(name) for kind in (PurePosixPath, PureWindowsPath)]
    return next((path.name for path in kinds if path.is_absolute()), name)


def _names(found: Sequence[_Found]) -> list[str]:
    """A name for each cell: its id; with its platform where several have that id; with a number where even that is
    shared.

    Raises:
        UsageError: one of them is no name of a folder.
    """
    ids = Counter(item.row.id for item in found)
    seen: Counter[str] = Counter()
    numbered = []
    for item in found:
        name = item.row.id if ids[item.row.id] == 1 else f"{item.row.id}@{_platform(item.row)}"
        if not FOLDER_NAME.fullmatch(name):
            raise UsageError(f"{item.folder}: the cell's id {name!r} is no name for a folder. Correct it in its {ROW}.")
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return numbered


def _platform(row: CellRow) -> str:
    """``macos-arm64``: system and machine, from the words of ``platform.platform()``."""
    words = ((row.platform or "unknown").partition("-")[0], row.machine or "unknown")
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "", word).lower()[:20] for word in words)
