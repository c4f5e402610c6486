"""Compressed files as the bytes that they hold, up to the last one that can be read.

The standard library's own readers lose what they had unpacked when a file turns out to be cut or damaged: up to a whole
block. Here everything before the damage is given, and only then is it said.
"""

import bz2
import io
import lzma
import zlib
from typing import IO, Protocol

PIECE = 4096
"""Compressed bytes that are unpacked in one go: in damaged data, so much is lost at most."""
LARGEST = 1 << 20
"""Bytes that a piece may become at a time: a file of a few kilobytes may hold gigabytes."""
MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
"""How each format begins."""


class Damaged(EOFError):
    """The file is cut or damaged; everything in front of that place was given."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def format_of(start: bytes) -> str | None:
    """The format that a file with this start is compressed in: gzip, bzip2 or xz."""
    return next((name for magic, name in MAGIC if start.startswith(magic)), None)


class Unpacked(io.RawIOBase):
    """The bytes that a compressed stream holds; several archives one behind the other are one.

    Reading raises ``Damaged`` behind the last byte that could be unpacked, and OSError where the stream itself fails.

    Args:
        stream: Of compressed bytes. It is closed with this.
        kind: As ``format_of`` says.
    """

    def __init__(self, stream: IO[bytes], kind: str) -> None:
        super().__init__()
        self._stream, self._kind = stream, kind
        self._unpacker: _Decompressor | None = None
        self._packed = b""
        self._ready = memoryview(b"")
        self._damage: str | None = None
        self._given = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """The stream too."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # the standard library's type is not public
        """Fill a buffer as far as there are bytes."""
        while not self._ready and self._damage is None:
            unpacked = self._next()
            if unpacked is None:
                return 0
            self._ready = memoryview(unpacked)
        if not self._ready:
            raise Damaged(f"the {self._kind} archive is damaged after {self._given:,} bytes: {self._damage}")
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        self._given += taken
        return taken

    def _next(self) -> bytes | None:
        """Some more bytes, or none of them for now; None at the end."""
        if not self._packed and not self._holds_back():
            self._packed = self._stream.read(PIECE)
        if not self._packed and not self._holds_back():
            if self._unpacker is not None:
                self._damage = "it ends before its end was written"
                return b""
            return None
        if self._unpacker is None:
            self._packed = self._packed.lstrip(b"\0")  # archives on tapes are filled up with zeros
            if not self._packed:
                return b""
            self._unpacker = _unpacker(self._kind)
        try:
            unpacked = self._unpack(self._unpacker)
        except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            self._damage = str(error)
            return b""
        if self._unpacker.eof:
            self._packed, self._unpacker = self._unpacker.unused_data + self._packed, None
        return unpacked

    def _holds_back(self) -> bool:
        """Whether the unpacker has bytes that did not fit into its last answer."""
        return getattr(self._unpacker, "needs_input", True) is False

    def _unpack(self, unpacker: _Decompressor) -> bytes:
        packed, self._packed = self._packed, b""
        unpacked: bytes = unpacker.decompress(packed, LARGEST)  # type: ignore[attr-defined] # each has its own names
        if self._kind == "gzip" and not unpacker.eof:
            self._packed = unpacker.unconsumed_tail  # type: ignore[attr-defined]
        return unpacked


def _unpacker(kind: str) -> _Decompressor:
    if kind == "gzip":
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    return bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor()
