"""Which files are looked at, the reader of each, and what they amount to.

Texts are read here. Files of tensors go to the kit, together, when the texts are done.
"""

import contextlib
import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.core.encoding import SCHEMA
from repro.core.foreign import check_is_file
from repro.core.records import Cell, Outcome, Verdict
from repro.core.sentences import many
from repro.jobs.scan import tensor_files
from repro.jobs.scan.csv_text import read_csv
from repro.jobs.scan.findings import SHOWN, Looked, Tally, Unreadable, clean
from repro.jobs.scan.json_lines import read_json_lines
from repro.jobs.scan.json_text import read_json
from repro.jobs.scan.parquet import read_parquet
from repro.jobs.scan.plain_text import read_plain_text

Reader = Callable[[Path, Tally], None]

READERS: dict[str, Reader] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".txt": read_plain_text,
    ".log": read_plain_text,
}
KINDS = (*READERS, *tensor_files.KINDS)
PACKED = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".log"})
"""Also read with .gz behind their name."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Every file that was looked at, and how many files of other kinds were not, by the end of their name."""

    files: tuple[Looked, ...]
    others: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Bad where one file is bad; nothing found beside a file that could not be read is "could not tell"."""
        total = len(self.files)
        by_outcome = Counter(looked.verdict.outcome for looked in self.files)
        bad, skipped = by_outcome[Outcome.BAD], by_outcome[Outcome.SKIP]
        unread = f"; {skipped:,} could not be read" if skipped else ""
        if bad:
            return Verdict(
                Outcome.BAD, f"{bad:,} of {many(total, 'file')} {'holds' if bad == 1 else 'hold'} a NaN or Inf{unread}"
            )
        if by_outcome[Outcome.GOOD]:
            outcome = Outcome.SKIP if skipped else Outcome.GOOD
            return Verdict(outcome, f"no NaN or Inf in {by_outcome[Outcome.GOOD]:,} of {many(total, 'file')}{unread}")
        if not total:
            return Verdict(Outcome.SKIP, f"no file of a kind that is read ({' '.join(KINDS)})")
        return Verdict(Outcome.SKIP, f"none of {many(total, 'file')} could be read to its end")

    def summary(self, seconds: float) -> Iterator[str]:
        """The answer, what was passed over, and how fast it went."""
        if self.others:
            named = ", ".join(f"{count:,} {suffix}" for suffix, count in list(self.others.items())[:SHOWN])
            total = sum(self.others.values())
            yield f"not looked at, for their kind: {total:,} file{'s' if total != 1 else ''} ({clean(named)})"
        size, verdict = sum(looked.bytes for looked in self.files), self.verdict
        rate = f", {size / 1e6 / seconds:,.0f} MB/s" if seconds > 0 else ""
        yield f"{verdict.outcome.value}: {verdict.reason} ({size / 1e6:,.1f} MB in {seconds:.1f} s{rate})"

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "schema": SCHEMA,
            "command": "scan",
            "verdict": self.verdict.outcome.value,
            "reason": self.verdict.reason,
            "seconds": seconds,
            "files": [looked.as_json() for looked in self.files],
            "not_looked_at": self.others,
        }


def kind_of(path: Path) -> str | None:
    """The end of the name that a reader stands for, without .gz; None where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = suffixes[-2 if packed else -1] if len(suffixes) > packed else ""
    return kind if kind in KINDS and (not packed or kind in PACKED) else None


def scan(
    paths: Sequence[Path],
    cell: Cell,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    told: Callable[[Looked], Any] = lambda looked: None,
) -> Scan:
    """Look at files, and at all files below folders.

    Args:
        paths: Files are looked at whatever the patterns say; one of an unknown kind is "could not tell".
        cell: The interpreter that reads the files of tensors.
        include: Patterns as of a shell; with any, only files whose name or path below its folder fits one.
        exclude: Patterns of files and folders that are left out.
        told: Called with each file when it is done.

    Raises:
        CellError, EvidenceError: there are files of tensors, and the kit cannot be started.
    """
    looked: dict[Path, Looked | None] = {}
    tensors: list[Path] = []
    others: Counter[str] = Counter()

    def done(path: Path, found: Looked) -> None:
        looked[path] = found
        told(found)

    for path, named in _files(paths, include, exclude):
        kind = kind_of(path)
        if kind is None and not named:
            others[path.suffix.lower() or path.name] += 1
            continue
        looked[path] = None  # its place in the list
        if kind in tensor_files.KINDS and os.path.isfile(path):  # noqa: PTH113 - Path.is_file may raise
            tensors.append(path)
        else:
            done(path, look(path))
    tensor_files.read(tensors, cell, lambda path, contents: done(path, _of_tensors(path, contents)))
    return Scan(tuple(found for found in looked.values() if found is not None), dict(others.most_common()))


def look(path: Path) -> Looked:
    """One file that the host reads. Whatever is wrong with it becomes part of the answer."""
    kind = kind_of(path)
    tally, size = Tally(), 0
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise Unreadable("it is no plain file")  # a pipe or a device would never end
        if kind is None:
            raise Unreadable(f"its kind is not known: {' '.join(KINDS)} are read")
        READERS[kind](path, tally)
    except (Unreadable, EOFError) as error:
        tally.unread.append(str(error) or "it was cut")
    except UnicodeError as error:
        tally.unread.append(f"it is no text: {error}")
    except OSError as error:
        tally.unread.append(f"it cannot be read: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - one odd file must not keep all others from being looked at
        tally.unread.append(f"unexpected {type(error).__name__}: {error}; please report it with the file")
    return tally.looked(str(path), kind or path.suffix.lower(), size)


def _of_tensors(path: Path, contents: tensor_files.Contents) -> Looked:
    try:
        size = path.stat().st_size
    except OSError:  # it was taken away meanwhile: what was read of it stands
        size = 0
    return Looked(str(path), path.suffix.lower(), size, contents.numbers, contents.places, contents.unread)


def _files(paths: Sequence[Path], include: Sequence[str], exclude: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Each file once, in order, with whether it was named itself. Links to folders are not followed: they may turn in
    a circle.
    """
    seen: set[Path] = set()
    for top in paths:
        if not top.is_dir():
            if top not in seen:
                with contextlib.suppress(FileNotFoundError):  # `look` says so
                    check_is_file(top)
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
