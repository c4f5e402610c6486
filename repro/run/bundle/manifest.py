"""What a bundle says about itself, and which names its members may have. Pure.

The manifest is the one member that no hash covers: it holds the hashes of all others.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated

from msgspec import Meta

from repro.core.encoding import SCHEMA, Record, document, encode, from_text
from repro.core.errors import RecordError

NAME = "MANIFEST.json"
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Bytes = Annotated[int, Meta(ge=0)]
DEVICES = re.compile(r"(?i:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\..*)?")
"""Names that Windows keeps for devices, with any extension.
Source: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
"""
NOT_IN_A_NAME = frozenset('<>:"|?*\\')
"""Characters that Windows allows in no file name, from the same page; ``:`` and ``\\`` also lead to other places."""
LONGEST = 240
"""Characters of a name. Windows takes 260 for a whole path, and some of it is the folder's."""


class Member(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle: its name with ``/`` between the folders, its size in bytes, and its SHA-256."""

    name: str
    bytes: Bytes
    sha256: Sha256


class LeftOut(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the run that is not in the bundle, and why."""

    name: str
    bytes: Bytes
    why: str


class Masked(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is in the bundle without what is private, and the original, which stays with the reporter."""

    name: str
    original_bytes: Bytes
    original_sha256: Sha256


class Manifest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole content of ``MANIFEST.json``. ``command`` gives the run again, ``tool`` is the version that made it."""

    schema: int = SCHEMA
    tool: str
    command: str
    files: tuple[Member, ...]
    left_out: tuple[LeftOut, ...] = ()
    masked: tuple[Masked, ...] = ()

    @property
    def originals(self) -> dict[str, str]:
        """Name -> SHA-256 of each file as the run wrote it, before anything was masked."""
        return {member.name: member.sha256 for member in self.files} | {m.name: m.original_sha256 for m in self.masked}

    def text(self) -> str:
        """MANIFEST.json."""
        return encode(self, indent=1) + "\n"


def read(content: bytes) -> Manifest:
    """The manifest that ``content`` stands for, with names that may be written.

    Raises:
        RecordError: it is not of this schema or shape, or a name in it cannot be right; the message names the place.
    """
    try:
        manifest = document(Manifest, from_text(content.decode("utf-8")))
    except UnicodeDecodeError:
        raise RecordError("no JSON: it is not UTF-8") from None
    problem = wrong_names([*(member.name for member in manifest.files), NAME])
    if problem is not None:
        raise RecordError(problem)
    return manifest


def wrong_names(names: Iterable[str]) -> str | None:
    """What is wrong with the names of an archive's members, where they cannot all be written; else None."""
    taken: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        problem = wrong_name(name)
        if problem is not None:
            return f"the name {name!r} {problem}"
        key = same_place(name)
        if key in taken:
            return f"{taken[key]!r} and {name!r} are one file on some systems"
        taken[key] = name
        folders |= dict.fromkeys((str(parent) for parent in PurePosixPath(key).parents), name)
    both = next((key for key in taken if key in folders), None)
    return None if both is None else f"{taken[both]!r} is a file, and a folder for {folders[both]!r}"


def wrong_name(name: str) -> str | None:
    """Why no file may be written under this name, as what is said of the name; None where it may."""
    parts = name.split("/")
    rules = (
        (not name.isprintable() or NOT_IN_A_NAME & set(name), "holds characters that no file name should have"),
        (name.startswith("/"), "is absolute"),
        ("" in parts or "." in parts, "has an empty part or a '.'"),
        (".." in parts, "leads out of its folder"),
        (any(part.endswith((".", " ")) for part in parts), "has a part that ends in a dot or a space"),
        (any(DEVICES.fullmatch(part) for part in parts), "is that of a device"),
        (len(name) > LONGEST, f"is longer than {LONGEST} characters"),
    )
    return next((why for broken, why in rules if broken), None)


def same_place(name: str) -> str:
    """The same text for two names that some file system takes for one: without case, composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
