"""Packs the probe kit into one file, ``probes.pyz``: the same bytes for the same source, on every machine."""

import hashlib
import io
import zipapp
import zipfile
from dataclasses import dataclass
from pathlib import Path

from repro.core.paths import not_written

NAME = "probes.pyz"
SOURCE = Path(__file__).parents[1] / "probes"
MAIN = b'''"""Runs the probe kit: python probes.pyz --help."""

import sys

from probes.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip archive can hold. Every member carries it: the bytes depend on the source only."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The packed kit: its bytes and their SHA-256."""

    content: bytes
    sha256: str

    def write(self, folder: Path) -> Path:
        """Put the kit into a folder as ``probes.pyz``.

        Raises:
            EvidenceError: it cannot be written.
        """
        path = folder / NAME
        beside = path.with_name(NAME + ".part")
        try:
            beside.write_bytes(self.content)
            beside.chmod(0o755)
            beside.replace(path)
        except OSError as error:
            raise not_written(path, error) from error
        return path


def pack(source: Path = SOURCE) -> Kit:
    """The package ``probes`` and a ``__main__.py`` that calls ``probes.main.main()``, as one archive."""
    plain, archive = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as zipped:
        for name, content in _members(source):
            member = zipfile.ZipInfo(name, EPOCH)
            member.create_system = 3  # Unix on every machine: the field would otherwise tell where it was packed
            member.external_attr = 0o644 << 16
            zipped.writestr(member, content)
    plain.seek(0)
    zipapp.create_archive(plain, archive, interpreter="/usr/bin/env python3")
    return Kit(archive.getvalue(), hashlib.sha256(archive.getvalue()).hexdigest())


def _members(source: Path) -> list[tuple[str, bytes]]:
    """Name in the archive and content of every file of the kit, sorted by name, without compiled files."""
    files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    named = [(f"probes/{path.relative_to(source).as_posix()}", path.read_bytes()) for path in files]
    return sorted([("__main__.py", MAIN), *named])
