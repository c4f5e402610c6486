"""Where things are kept: the user's cache, and the folder of a run."""

import contextlib
import errno
import hashlib
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from repro.core.encoding import document, from_text
from repro.core.errors import EvidenceError, RecordError
from repro.core.foreign import dead_link, open_foreign, read_foreign
from repro.core.processes.exhausted import exhausted
from repro.core.records import Case

CACHE_VARIABLE = "REPRO_CACHE_DIR"
CONFIG_VARIABLE = "REPRO_CONFIG_DIR"
RUNS = "repro-runs"
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""What a system says where there is no room for more."""
R = TypeVar("R")


def cache_folder() -> Path:
    """The user's cache of this toolkit; the environment variable ``REPRO_CACHE_DIR`` names another."""
    return _named(CACHE_VARIABLE) or _of_user("user_cache_dir")


def config_folder() -> Path:
    """What the user keeps for this toolkit; the environment variable ``REPRO_CONFIG_DIR`` names another folder."""
    return _named(CONFIG_VARIABLE) or _of_user("user_config_dir")


def _named(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named).expanduser().absolute() if named else None


def _of_user(which: str) -> Path:
    """Where the system keeps it."""
    import platformdirs

    return Path(getattr(platformdirs, which)("repro-kit")).absolute()


def run_folder(case: Case, now: datetime, what: str = "") -> Path:
    """``repro-runs/MODEL-STAMP`` below the current folder, created: readable, free of odd characters, and no other's.

    ``what`` is a word for runs that are more than one: ``MODEL-matrix-STAMP``.

    Raises:
        EvidenceError: it cannot be created.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(case.model).name).strip("-.") or "model"
    stem = Path(RUNS) / f"{name[:60]}-{what}{'-' if what else ''}{now:%Y%m%d-%H%M%S}"
    make(stem.parent)
    folder, number = stem, 2
    while True:
        try:
            folder.mkdir()
        except FileExistsError:  # of a run that began in the same second
            folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
        except OSError as error:
            raise _not_made(folder, error) from error
        else:
            return folder


def make(folder: Path) -> Path:
    """Create the folder of a run.

    Raises:
        EvidenceError: it cannot be created, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(folder, error) from error
    return folder.absolute()


def _not_made(folder: Path, error: OSError) -> EvidenceError:
    links = (dead_link(part) for part in (folder, *folder.parents))
    why = next(filter(None, links), None) or error.strerror
    remedy = exhausted(error) or "Give another folder with --out."
    return EvidenceError(f"could not create the run folder {folder}: {why}. {remedy}")


def not_written(path: Path, error: OSError, folder: Path | None = None) -> EvidenceError:
    """What to say, and what to do, where a file of a run could not be written.

    ``folder``: of the run, where that is not the file's own.
    """
    place = folder or path.parent
    if isinstance(error, FileNotFoundError):
        gone = f"the file was removed from {place}" if place.is_dir() else f"the folder {place} was removed"
        return EvidenceError(
            f"could not write {path}: {gone} while the run was writing into it, and what was recorded there is gone. "
            "Run the same command again."
        )
    remedy = (
        "make room (or give another folder with --out)" if error.errno in FULL else "give another folder with --out"
    )
    return EvidenceError(
        f"could not write {path}: {error.strerror or error}. What was recorded before stays; "
        f"{remedy} and run the same command again."
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        RecordError: the file cannot be read, or holds something else.
    """
    try:
        data = from_text(read_foreign(path).decode("utf-8"))
    except OSError as error:
        raise RecordError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise RecordError("no JSON: it is not UTF-8") from None
    if not isinstance(data, dict):
        raise RecordError(f"expected a JSON object, got {type(data).__name__}")
    return data


def read_record(path: Path, kind: type[R]) -> R:
    """The record that a file of the current schema holds.

    Raises:
        RecordError: it cannot be read, or is of another shape; the message names the place.
    """
    return document(kind, read_object(path))


def relative(folder: Path) -> Path:
    """As it is written from the current folder, where it lies below that."""
    with contextlib.suppress(ValueError):
        return folder.relative_to(Path.cwd())
    return folder


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; the file is never whole in memory."""
    with open_foreign(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, text: str) -> None:
    """Write a file of the run whole or not at all.

    Raises:
        EvidenceError: it cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        beside.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
