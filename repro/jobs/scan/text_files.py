"""Text out of files: their encoding, and .gz unpacked on the way."""

import codecs
import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

from repro.core.foreign import open_foreign

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""In this order: the mark of UTF-32 starts as that of UTF-16 does."""


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """The bytes of a file, unpacked where its name ends with .gz."""
    with open_foreign(path) as file:
        if path.suffix.lower() == ".gz":
            with gzip.open(file) as unpacked:
                yield unpacked
        else:
            yield file


def encoding_of(start: bytes) -> str:
    """By the byte order mark; UTF-8 without one. The mark itself is left out of the text."""
    return next((name for mark, name in MARKS if start.startswith(mark)), "utf-8-sig")


def texts(path: Path, size: int) -> Iterator[tuple[str, bool]]:
    """The text of a file in pieces of ``size`` bytes, each with whether it is the last."""
    with open_bytes(path) as file:
        raw = file.read(size)
        decoder = codecs.getincrementaldecoder(encoding_of(raw))()
        while raw:
            following = file.read(size)
            yield decoder.decode(raw, final=not following), not following
            raw = following
        if not file.tell():
            yield "", True
