"""Opens a bundle that may come from a stranger. Nothing in it is run, and nothing is written outside its folder.

Every name is checked before the first file is written, every size before a member is unpacked, and every hash while
it is. What does not agree with the manifest is refused whole: half a bundle is no evidence.
"""

import contextlib
import hashlib
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from repro.core import answer, paths
from repro.core.answer import Answer
from repro.core.errors import EvidenceError, RecordError, UsageError
from repro.core.foreign import check_is_file
from repro.run.bundle import manifest
from repro.run.bundle.manifest import Manifest, Member

MOST_BYTES = 512 * 1024 * 1024
"""Of everything in a bundle, unpacked. One that GitHub takes has 25 MB packed; evidence packs to about a tenth."""
MOST_OF_MANIFEST = 8 * 1024 * 1024
MOST_MEMBERS = 20_000
MOST_RATIO = 200
"""Unpacked to packed, of a member above ``SMALL``. The evidence of large traces reaches 30; a bomb is near 1000."""
SMALL = 1024 * 1024
CHUNK = 1024 * 1024
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Bits of a member's flags: encrypted, strongly encrypted, headers masked. Source: APPNOTE.TXT, section 4.4.4."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle, or the folder of a run, whose files are what they are said to be.

    ``manifest`` is None for the folder of a run, which has none. There the hashes that verdict.json has were checked.
    """

    folder: Path
    answer: Answer
    manifest: Manifest | None = None

    def original_sha256(self, name: str) -> str:
        """The hash of a file as the run wrote it."""
        return self.manifest.originals[name] if self.manifest else paths.sha256(self.folder / name)

    def names(self) -> tuple[str, ...]:
        """The files, with ``/`` between the folders, in order."""
        if self.manifest:
            return tuple(member.name for member in self.manifest.files)
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return tuple(sorted(path.relative_to(self.folder).as_posix() for path in files))

    def read(self, name: str) -> bytes:
        """The content of a file, still as it was when the bundle was opened.

        Raises:
            EvidenceError: it cannot be read, or was changed meanwhile.
        """
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise EvidenceError(f"could not read {self.folder / name}: {error.strerror}.") from error
        member = next((m for m in self.manifest.files if m.name == name), None) if self.manifest else None
        if member is not None and hashlib.sha256(content).hexdigest() != member.sha256:
            raise EvidenceError(f"{self.folder / name} was changed since the bundle was verified. Start again.")
        return content


def open_bundle(place: Path, into: Path) -> Opened:
    """The bundle at ``place``, verified.

    Args:
        place: An archive, which is unpacked; a folder with the manifest of a bundle; or the folder of a run.
        into: Where the archive is unpacked to; must not exist.

    Raises:
        UsageError: there is no such thing at ``place``.
        EvidenceError: it is not what its manifest says, or would write where it must not.
    """
    if place.is_dir():
        if (place / manifest.NAME).exists():
            return _opened(place, _verified_folder(place))
        if not (place / answer.NAME).exists():
            raise UsageError(f"{place} is neither a bundle nor a run: it has no {manifest.NAME} and no {answer.NAME}.")
        return _run_folder(place)
    if not place.exists():
        raise UsageError(f"{place} does not exist. Give a bundle.zip, or the folder of a run.")
    check_is_file(place)
    if place.suffix != ".zip" and (place.parent / answer.NAME).is_file():
        raise UsageError(f"{place} is a file of a run, and no bundle. Give the folder: {place.parent}.")
    return _opened(into, unpack(place, into))


def unpack(archive: Path, into: Path) -> Manifest:
    """Unpack a bundle and verify every member; ``into`` then holds all of it, or does not exist.

    Raises:
        EvidenceError: see ``open_bundle``.
    """
    beside = into.with_name(into.name + ".part")
    try:
        with zipfile.ZipFile(archive) as zipped:
            content, members = _checked(archive, zipped)
            beside.mkdir(parents=True)
            for info, member in members:
                _extract(archive, zipped, info, member, beside / member.name)
            (beside / manifest.NAME).write_bytes(content)
        beside.rename(into)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _refused(archive, f"it is not a complete zip archive ({error})") from None
    except OSError as error:
        raise EvidenceError(f"could not unpack {archive} to {into}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is not there, or there is something in it
            into.parent.rmdir()
    return manifest.read(content)


def _checked(archive: Path, zipped: zipfile.ZipFile) -> tuple[bytes, list[tuple[zipfile.ZipInfo, Member]]]:
    """The manifest, and each member beside its line in it; refuses what no bundle has, before anything is written."""
    infos = zipped.infolist()
    if len(infos) > MOST_MEMBERS:
        raise _refused(archive, f"it has {len(infos)} members; the limit is {MOST_MEMBERS}")
    problem = manifest.wrong_names(info.orig_filename for info in infos)
    if problem is not None:
        raise _refused(archive, problem)
    for info in infos:
        problem = _wrong_member(info)
        if problem is not None:
            raise _refused(archive, f"{info.filename!r} {problem}")
    by_name = {info.filename: info for info in infos}
    own = by_name.pop(manifest.NAME, None)
    if own is None:
        raise _refused(archive, f"it has no {manifest.NAME}")
    if own.file_size > MOST_OF_MANIFEST:
        raise _refused(archive, f"its {manifest.NAME} has {own.file_size} bytes; the limit is {MOST_OF_MANIFEST}")
    content = zipped.read(own)
    said = _manifest(archive, content)
    _same_names(archive, said, set(by_name))
    members = [(by_name[member.name], member) for member in said.files]
    for info, member in members:
        if info.file_size != member.bytes:
            raise _refused(archive, f"{member.name!r} has {info.file_size} bytes, and the manifest says {member.bytes}")
    return content, members


def _wrong_member(info: zipfile.ZipInfo) -> str | None:
    """What a member is that no bundle has."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    rules = (
        (info.flag_bits & ENCRYPTED, "is encrypted"),
        (stat.S_ISLNK(kind), "is a link"),
        (kind not in (0, stat.S_IFREG), "is not a plain file"),
        (info.compress_type not in METHODS, f"is packed by method {info.compress_type}, which no bundle uses"),
        (
            info.file_size > SMALL and info.file_size > MOST_RATIO * info.compress_size,
            f"is said to unpack from {info.compress_size} to {info.file_size} bytes",
        ),
    )
    return next((why for broken, why in rules if broken), None)


def _extract(archive: Path, zipped: zipfile.ZipFile, info: zipfile.ZipInfo, member: Member, path: Path) -> None:
    """One member on disk. No more than its size is ever written, whatever its data would unpack to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.bytes
    with zipped.open(info) as packed, path.open("xb") as file:
        while left and (chunk := packed.read(min(CHUNK, left))):
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
        if left or packed.read(1):
            raise _refused(archive, f"{member.name!r} does not have the {member.bytes} bytes that the manifest says")
    if digest.hexdigest() != member.sha256:
        raise _refused(archive, _another_hash(member, digest.hexdigest()))


def _verified_folder(place: Path) -> Manifest:
    """The manifest of a bundle that was unpacked before, and still is what it says."""
    for path in sorted(place.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise _refused(place, f"{path.relative_to(place).as_posix()!r} is a link or not a plain file")
    own = place / manifest.NAME
    if own.stat().st_size > MOST_OF_MANIFEST:
        raise _refused(place, f"its {manifest.NAME} has more than {MOST_OF_MANIFEST} bytes")
    said = _manifest(place, own.read_bytes())
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    _same_names(place, said, files - {manifest.NAME})
    for member in said.files:
        size = (place / member.name).stat().st_size
        if size != member.bytes:
            raise _refused(place, f"{member.name!r} has {size} bytes, and the manifest says {member.bytes}")
        found = paths.sha256(place / member.name)
        if found != member.sha256:
            raise _refused(place, _another_hash(member, found))
    return said


def _run_folder(place: Path) -> Opened:
    """The folder of a run, held against the hashes that its verdict.json has."""
    opened = _opened(place, None)
    said = (("evidence.jsonl", opened.answer.evidence_sha256), ("probes.pyz", opened.answer.kit_sha256))
    for name, sha256 in said:
        if sha256 and (place / name).is_file() and paths.sha256(place / name) != sha256:
            raise _refused(place, f"{name} does not have the SHA-256 that {answer.NAME} gives")
    return opened


def _manifest(place: Path, content: bytes) -> Manifest:
    try:
        said = manifest.read(content)
    except RecordError as error:
        raise _refused(place, f"its {manifest.NAME} cannot be read: {error}") from None
    total = sum(member.bytes for member in said.files)
    if total > MOST_BYTES:
        raise _refused(place, f"it would unpack to {total} bytes; the limit is {MOST_BYTES}")
    return said


def _same_names(place: Path, said: Manifest, found: set[str]) -> None:
    """Every file of the manifest is there, and no other."""
    names = {member.name for member in said.files}
    if found - names:
        raise _refused(place, f"{min(found - names)!r} is not in its manifest")
    if names - found:
        raise _refused(place, f"{min(names - found)!r} is in its manifest and missing")


def _opened(folder: Path, said: Manifest | None) -> Opened:
    try:
        return Opened(folder, answer.read(folder / answer.NAME), said)
    except RecordError as error:
        raise _refused(folder, f"its {answer.NAME} cannot be read: {error}") from None


def _another_hash(member: Member, found: str) -> str:
    return f"{member.name!r} has the SHA-256 {found[:12]}..., and the manifest says {member.sha256[:12]}..."


def _refused(place: Path, problem: str) -> EvidenceError:
    return EvidenceError(f"{place} is refused: {problem}. Nothing of it was run. Ask its sender for another copy.")
