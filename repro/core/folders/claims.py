"""A folder is taken for one question: it is new, or it holds that very question about the same files."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from msgspec import field

from repro.core.encoding import SCHEMA, Record, encode
from repro.core.errors import EvidenceError, RecordError, UsageError
from repro.core.folders.inputs import changed
from repro.core.locks import names_in
from repro.core.paths import read_record, write

OF_A_SWEEP = frozenset({"host.log", "row.json"})
"""What a sweep has put into the folder of a run that it starts."""
NAMED = 3
"""How many of the files that stand in the way are named."""

SIBLINGS = 10_000
"""As many folders beside one are looked at."""


class Claim(Record, frozen=True, kw_only=True):
    """What a folder of many runs was made for: the command that asks it, without the folder.

    ``inputs``: what identifies the files that it reads, as ``repro.core.folders.seen`` gives it.
    """

    command: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


C = TypeVar("C", bound=Claim)


def check_unused(folder: Path, *others: str) -> None:
    """Refuse a folder that holds any file but its lock, what a sweep puts there, and those of these names: it is not
    ours to write over.

    Raises:
        UsageError: it does; the message names some of it.
        EvidenceError: it cannot be looked into.
    """
    try:
        found = sorted(name for name in names_in(folder) - {*OF_A_SWEEP, *others} if _has_files(folder / name))
    except OSError as error:
        raise EvidenceError(f"could not look into {folder}: {error.strerror}. Give another with --out.") from error
    if not found:
        return
    more = ", ..." if len(found) > NAMED else ""
    raise UsageError(
        f"--out {folder} is no run folder, and not empty (it holds {', '.join(found[:NAMED])}{more}): what is there "
        "might be written over. Give a new folder."
    )


def unused(folder: Path) -> Path:
    """The folder itself where it is unused, else the first unused of its numbered siblings: "out-2", "out-3", ...

    Raises:
        EvidenceError: one of them cannot be looked into.
    """
    for found in (folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, SIBLINGS))):
        try:
            if not found.exists():
                return found
            if found.is_dir():
                check_unused(found)
                return found
        except UsageError:
            continue
        except OSError as error:
            raise EvidenceError(f"could not look into {found}: {error.strerror}. Give another folder.") from error
    raise EvidenceError(f"{folder} and {SIBLINGS - 2} folders beside it are used. Give another.")


def _has_files(path: Path) -> bool:
    """Whether there is anything that could be lost: no device holds any, nor does a folder of empty folders."""
    return any(_has_files(inner) for inner in path.iterdir()) if path.is_dir() else path.is_file()


def check_unchanged(before: Mapping[str, str], now: Mapping[str, str], folder: Path) -> None:
    """Refuse to join answers about two states of what is read.

    Raises:
        UsageError: something has changed; the message says what.
    """
    what = changed(before, now)
    if what is not None:
        raise UsageError(
            f"--out {folder} holds answers about other inputs: {what}. Give another folder, or remove that one."
        )


def check_held_still(before: Mapping[str, str], now: Mapping[str, str], folder: Path) -> None:
    """Refuse to conclude from answers of which nobody knows about which state of the files they are.

    Raises:
        EvidenceError: something has changed while it was read; the message says what.
    """
    what = changed(before, now)
    if what is not None:
        raise EvidenceError(
            f"what is read was changed while the run went on: {what}. The answers in {folder} are about both, "
            "and say nothing of one. Run it again in a new folder."
        )


def claim(path: Path, asked: C, what: str) -> C | None:
    """Take a folder for one question, by the file ``path`` in it that says which.

    Args:
        path: The file.
        asked: What is written into it.
        what: What the folder then holds, for the message: "a matrix of".

    Returns:
        The claim of an earlier call with the same question; None where this is the first.

    Raises:
        UsageError: the folder holds another question, the same one about other files, or something else.
        EvidenceError: it cannot be written.
    """
    folder = path.parent
    if not path.exists():
        if any((folder / name).exists() for name in ("verdict.json", "evidence.jsonl")):
            raise UsageError(f"--out {folder} holds another run. Give another folder.")
        check_unused(folder)
        write(path, encode(asked, indent=1) + "\n")
        return None
    try:
        before = read_record(path, type(asked))
    except RecordError as error:
        raise UsageError(f"{path} cannot be read ({error}). Give another folder with --out.") from None
    if before.command != asked.command:
        other = shlex.join(before.command)
        raise UsageError(f"--out {folder} holds {what} another question ({other}). Give another folder.")
    check_unchanged(before.inputs, asked.inputs, folder)
    return before
