"""A run folder as one archive that can be attached to an issue: masked, with the hash of everything in it.

Text is masked; JSON is masked value by value, so that it stays JSON and its numbers stay as they are. The report quotes
the hash of the evidence as it lies on the reporter's machine. So the manifest has both hashes of every masked file.

The archive depends on the files and on the machine's zlib, and on nothing else: sorted names, one date for all.
"""

import dataclasses
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from repro.core.answer import Answer
from repro.core.errors import EvidenceError
from repro.core.paths import not_written
from repro.engine.kit import EPOCH
from repro.report.privacy.machine import Private, scope
from repro.report.privacy.mask import Mask
from repro.run.bundle import manifest
from repro.run.bundle.manifest import LeftOut, Manifest, Masked, Member

NAME = "bundle.zip"
LIMIT = 25_000_000
"""Bytes. GitHub takes attachments of up to 25 MB; megabytes are read as the smaller ones here."""
UNREAD = 16 * LIMIT
"""Bytes. A larger file that can be spared is not even compressed to see whether it would fit."""
OVERHEAD = 600
"""Bytes that a member takes besides its content and its name: two zip headers, and its entries in the manifest."""

NEEDED, KIT, PLOTS, LOGS, OTHER_RELEASES, TENSORS = range(6)
"""How necessary a file is. Nothing of rank ``NEEDED`` is ever left out; of the others the last ones go first."""

OF_A_RUN = {
    "report.md": NEEDED,
    "report-*.md": NEEDED,
    "report-*/*.md": NEEDED,
    "report.html": NEEDED,
    "reproducer*.py": NEEDED,
    "verdict.json": NEEDED,
    "evidence.jsonl": NEEDED,
    "matrix.json": NEEDED,
    "versions.json": NEEDED,
    "latest.json": NEEDED,
    "search.json": NEEDED,
    "row.json": NEEDED,
    "trials.jsonl": KIT,
    "probes.pyz": KIT,
    "plots/*.png": PLOTS,
    "kit.log": LOGS,
    "host.log": LOGS,
    "tensors/*": TENSORS,
}
"""What is taken from the folder of a run, and from the runs below it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was written: the archive, its size in bytes, and its manifest."""

    path: Path
    bytes: int
    manifest: Manifest

    @property
    def too_large(self) -> bool:
        """Whether even what must be in it is more than an attachment may have."""
        return self.bytes > LIMIT

    @property
    def sentence(self) -> str:
        """How large it is and what was left out."""
        said = f"{NAME} has {self.bytes / 1e6:.1f} MB and {len(self.manifest.files)} files"
        left = self.manifest.left_out
        if left:
            size = sum(item.bytes for item in left) / 1e6
            said += f"; {len(left)} ({size:.1f} MB) were left out, which {manifest.NAME} in it names"
        if self.too_large:
            said += f"; it is above GitHub's limit of {LIMIT / 1e6:.0f} MB, and nothing more can be left out"
        return f"{said}."


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the run: its name in the bundle, where it is, how necessary it is, and its size."""

    name: str
    path: Path
    rank: int
    bytes: int


def bundle(folder: Path, answer: Answer, private: Private) -> Bundle:
    """Write ``bundle.zip`` into the folder of a run, of a matrix or of a search.

    Args:
        folder: Of the run.
        answer: The content of its verdict.json.
        private: What must not be in it.

    Raises:
        EvidenceError: a file cannot be read, or the bundle cannot be written.
    """
    words, keep = scope(answer, private)
    mask = Mask(dataclasses.replace(words, folders=(*words.folders, (str(folder.absolute()), "RUN"))), keep)
    taken: dict[str, bytes] = {}
    masked: list[Masked] = []
    left: list[LeftOut] = []
    room = LIMIT
    for file in sorted(_files(folder, answer, mask), key=lambda file: (file.rank, file.bytes, file.name)):
        problem = _problem(file, folder, taken)
        if answer.private_prompts and file.rank == LOGS:
            problem = "other programs wrote it, and may have quoted a withheld prompt"
        if problem is None:
            original = _read(file.path)
            content = mask.content(file.name, original)
            cost = len(zlib.compress(content, 9)) + OVERHEAD + 4 * len(file.name)
            problem = None if file.rank == NEEDED or cost <= room else _no_room(room)
        if problem is not None:
            left.append(LeftOut(name=file.name, bytes=file.bytes, why=problem))
            continue
        room -= cost
        taken[file.name] = content
        if content != original:
            masked.append(Masked(name=file.name, original_bytes=len(original), original_sha256=_sha256(original)))
    return _write(folder / NAME, taken, masked, left, answer, mask)


def _problem(file: _File, folder: Path, taken: Mapping[str, bytes]) -> str | None:
    """Why a file cannot be in a bundle, whatever room there is."""
    inside = file.path.relative_to(folder)
    if any((folder / part).is_symlink() for part in (inside, *list(inside.parents)[:-1])):
        return "a link, which may lead out of the folder of the run"
    wrong = manifest.wrong_names([*taken, file.name])
    if wrong is not None:
        return wrong
    return _no_room(LIMIT) if file.rank != NEEDED and file.bytes > UNREAD else None


def _no_room(room: int) -> str:
    return f"more than the {max(room, 0) / 1e6:.1f} MB that are left of the {LIMIT / 1e6:.0f} MB of an attachment"


def _files(folder: Path, answer: Answer, mask: Mask) -> Iterator[_File]:
    """Every file that belongs to the run or to one below it; each once."""
    seen: set[Path] = set()
    for place, at_least in _runs(folder, answer):
        if not place.is_relative_to(folder):
            continue  # a verdict.json that this toolkit did not write, as below
        if place != folder and manifest.wrong_name(place.relative_to(folder).as_posix()):
            continue
        for pattern, rank in OF_A_RUN.items():
            for path in sorted(place.glob(pattern)):
                if path not in seen and path.is_file():
                    seen.add(path)
                    name = mask.name(path.relative_to(folder).as_posix())
                    yield _File(name, path, max(rank, at_least), path.stat().st_size)


def _runs(folder: Path, answer: Answer) -> Iterator[tuple[Path, int]]:
    """The folders of runs, and the lowest rank of anything in them."""
    yield folder, NEEDED
    for row in answer.cells or ():
        yield folder / (row.folder or row.id), NEEDED
    for model in answer.comparison.models if answer.comparison else ():
        if model.folder is not None:
            yield folder / model.folder, NEEDED
    versions = answer.versions
    for probe in versions.probes if versions else ():
        beside = versions is not None and probe.version in (versions.last_good, versions.first_bad)
        for run in probe.runs:
            if run.folder is not None:
                yield folder / run.folder, NEEDED if beside else OTHER_RELEASES
    if versions:
        for place in sorted((folder / "traces").glob("*/")):
            yield place, OTHER_RELEASES


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"could not read {path}: {error.strerror}. Without it there is no bundle.") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(
    path: Path,
    taken: Mapping[str, bytes],
    masked: list[Masked],
    left: list[LeftOut],
    answer: Answer,
    mask: Mask,
) -> Bundle:
    """The archive on disk, whole or not at all."""
    names = sorted(taken)
    contents = Manifest(
        tool=answer.tool,
        command=mask.data({"command": answer.command})["command"],
        files=tuple(Member(name=name, bytes=len(taken[name]), sha256=_sha256(taken[name])) for name in names),
        left_out=tuple(sorted(left, key=lambda item: item.name)),
        masked=tuple(sorted(masked, key=lambda item: item.name)),
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        for name, content in ((manifest.NAME, contents.text().encode()), *((name, taken[name]) for name in names)):
            member = zipfile.ZipInfo(name, EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # Unix on every machine: the field would otherwise tell where it was packed
            member.external_attr = 0o100644 << 16
            zipped.writestr(member, content)
    beside = path.with_name(NAME + ".part")
    try:
        beside.write_bytes(packed.getvalue())
        beside.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    return Bundle(path, len(packed.getvalue()), contents)
