"""Which files are looked at, and the reader of each."""

import fnmatch
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.core.records import Outcome, Verdict
from repro.jobs.scan.arrays import read_npy, read_npz
from repro.jobs.scan.csv_text import read_csv
from repro.jobs.scan.findings import Looked, Tally, Unreadable
from repro.jobs.scan.json_lines import read_json_lines
from repro.jobs.scan.json_text import read_json
from repro.jobs.scan.parquet import read_parquet
from repro.jobs.scan.safetensors import read_safetensors
from repro.jobs.scan.torch_files import read_torch

Reader = Callable[[Path, Tally], None]

READERS: dict[str, Reader] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".parquet": read_parquet,
}
PACKED = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv"})
"""Also read with .gz behind their name."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Every file that was looked at, and how many files of other kinds were not, by the end of their name."""

    files: tuple[Looked, ...]
    others: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Bad where one file is bad, skip where none could be read; good says which were not."""
        total = len(self.files)
        by_outcome = Counter(looked.verdict.outcome for looked in self.files)
        bad, skipped = by_outcome[Outcome.BAD], by_outcome[Outcome.SKIP]
        unread = f"; {skipped:,} could not be read" if skipped else ""
        if bad:
            return Verdict(
                Outcome.BAD, f"{bad:,} of {total:,} files {'holds' if bad == 1 else 'hold'} a NaN or Inf{unread}"
            )
        if by_outcome[Outcome.GOOD]:
            return Verdict(Outcome.GOOD, f"no NaN or Inf in {by_outcome[Outcome.GOOD]:,} of {total:,} files{unread}")
        if not total:
            return Verdict(Outcome.SKIP, f"no file of a kind that is read ({' '.join(READERS)})")
        return Verdict(Outcome.SKIP, f"none of {total:,} files could be read to its end")


def kind_of(path: Path) -> str | None:
    """The end of the name that a reader stands for, without .gz; None where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = suffixes[-2 if packed else -1] if len(suffixes) > packed else ""
    return kind if kind in READERS and (not packed or kind in PACKED) else None


def scan(
    paths: Sequence[Path],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    told: Callable[[Looked], Any] = lambda looked: None,
) -> Scan:
    """Look at files, and at all files below folders.

    Args:
        paths: Files are looked at whatever the patterns say; one of an unknown kind is "could not tell".
        include: Patterns as of a shell; with any, only files whose name or path below its folder fits one.
        exclude: Patterns of files and folders that are left out.
        told: Called with each file when it is done.
    """
    looked: list[Looked] = []
    others: Counter[str] = Counter()
    for path, named in _files(paths, include, exclude):
        if kind_of(path) is None and not named:
            others[path.suffix.lower() or path.name] += 1
            continue
        looked.append(look(path))
        told(looked[-1])
    return Scan(tuple(looked), dict(others.most_common()))


def look(path: Path) -> Looked:
    """One file. Whatever is wrong with it becomes part of the answer."""
    kind = kind_of(path)
    tally, size = Tally(), 0
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise Unreadable("it is no plain file")  # a pipe or a device would never end
        if kind is None:
            raise Unreadable(f"its kind is not known: {' '.join(READERS)} are read")
        READERS[kind](path, tally)
    except (Unreadable, EOFError, zlib.error) as error:
        tally.unread.append(str(error) or "it was cut")
    except UnicodeError as error:
        tally.unread.append(f"it is no text: {error}")
    except OSError as error:
        tally.unread.append(f"it cannot be read: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - one odd file must not keep all others from being looked at
        tally.unread.append(f"unexpected {type(error).__name__}: {error}; please report it with the file")
    return tally.looked(str(path), kind or path.suffix.lower(), size)


def _files(paths: Sequence[Path], include: Sequence[str], exclude: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Each file once, in order, with whether it was named itself. Links to folders are not followed: they may turn in
    a circle.
    """
    seen: set[Path] = set()
    for top in paths:
        if not top.is_dir():
            if top not in seen:
                seen.add(top)
                yield top, True
            continue
        for folder, folders, names in os.walk(top):
            below = Path(folder).relative_to(top)
            folders[:] = sorted(name for name in folders if not _fits(below / name, exclude))
            for name in sorted(names):
                path = Path(folder) / name
                wanted = not include or _fits(below / name, include)
                if wanted and not _fits(below / name, exclude) and path not in seen:
                    seen.add(path)
                    yield path, False


def _fits(path: Path, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(path.name, pattern) or fnmatch.fnmatchcase(path.as_posix(), pattern) for pattern in patterns
    )
