"""Text out of files: their encoding, and .gz unpacked on the way."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from repro.core.foreign import open_foreign
from repro.jobs.unpacked import Damaged, Unpacked

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""In this order: the mark of UTF-32 starts as that of UTF-16 does."""


def open_bytes(path: Path) -> io.BufferedReader:
    """The bytes of a file, unpacked where its name ends with .gz. A damaged one ends with ``unpacked.Damaged``."""
    stream = open_foreign(path)
    return io.BufferedReader(Unpacked(stream, "gzip")) if path.suffix.lower() == ".gz" else stream


def encoding_of(start: bytes) -> str:
    """By the byte order mark; UTF-8 without one. The mark itself is left out of the text."""
    return next((name for mark, name in MARKS if start.startswith(mark)), "utf-8-sig")


def texts(path: Path, size: int) -> Iterator[tuple[str, bool]]:
    """The text of a file in pieces of at most ``size`` bytes, each with whether it is the last.

    Raises:
        Damaged: it is compressed, and cut or damaged behind the pieces that were given.
    """
    with open_bytes(path) as file:
        raw, damage = file.read1(size), None
        decoder = codecs.getincrementaldecoder(encoding_of(raw))()
        if not raw:
            yield "", True
        while raw:
            try:
                following = file.read1(size)
            except Damaged as error:
                following, damage = b"", error
            last = not following and damage is None
            yield decoder.decode(raw, final=last), last
            raw = following
        if damage is not None:
            raise damage
