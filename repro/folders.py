"""Where things are kept: the user's cache, and the folder of a run."""

import contextlib
import os
import re
from datetime import datetime
from pathlib import Path

from repro.errors import EvidenceError
from repro.records import Case

CACHE_VARIABLE = "REPRO_CACHE_DIR"
RUNS = "repro-runs"


def cache_folder() -> Path:
    """The user's cache of this toolkit; the environment variable ``REPRO_CACHE_DIR`` names another."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("repro-kit")).absolute()


def run_folder(case: Case, now: datetime, what: str = "") -> Path:
    """``repro-runs/MODEL-STAMP`` below the current folder: new for every second, readable, free of odd characters.

    ``what`` is a word for runs that are more than one: ``MODEL-matrix-STAMP``.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(case.model).name).strip("-.") or "model"
    stem = Path(RUNS) / f"{name[:60]}-{what}{'-' if what else ''}{now:%Y%m%d-%H%M%S}"
    folder, number = stem, 2
    while folder.exists():
        folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return folder


def make(folder: Path) -> Path:
    """Create the folder of a run.

    Raises:
        EvidenceError: it cannot be created, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvidenceError(
            f"could not create the run folder {folder}: {error.strerror}. Give another folder with --out."
        ) from error
    return folder.absolute()


def relative(folder: Path) -> Path:
    """As it is written from the current folder, where it lies below that."""
    with contextlib.suppress(ValueError):
        return folder.relative_to(Path.cwd())
    return folder


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
        raise EvidenceError(
            f"could not write {path}: {error.strerror}. The evidence recorded before stays; "
            "make room (or give another folder with --out) and run the same command again."
        ) from error
