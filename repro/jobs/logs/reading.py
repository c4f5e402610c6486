"""A log as blocks of bytes: decompressed, decoded if need be, cut at line ends, in constant memory.

Nearly every encoding of logs contains ASCII, so their bytes can be searched as they are. UTF-16 and UTF-32 do not, and
are converted to UTF-8. They are recognised by a byte-order mark or, without one, by where the zero bytes are.
"""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from repro.core.errors import UsageError
from repro.core.foreign import check_is_file
from repro.jobs.logs.loops.event_files import Unreadable, is_event_file, scalars
from repro.jobs.unpacked import Damaged, Unpacked, format_of

BLOCK_BYTES = 1 << 20
WANDB = b":W&B"
"""How the binary files of Weights & Biases begin."""
NOT_READ = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"))
"""zstd is not in every Python's standard library, and a .zip holds many files."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
"""Byte-order marks. That of UTF-32 starts with that of UTF-16, so it comes first."""
ASCII_LIKE = "utf-8"


@dataclass(slots=True)
class Source:
    """One open log. ``size``: bytes read so far, after decompression; ``notes``: anything odd about it; ``unread``: why
    it could not be read, though it is a log of a known kind."""

    path: Path
    encoding: str | None = None
    compression: str | None = None
    size: int = 0
    notes: list[str] = field(default_factory=list)
    unread: str | None = None

    def blocks(self) -> Iterator[bytes]:
        """Blocks that end where a line ends, in an encoding that contains ASCII.

        Raises:
            UsageError: the file cannot be opened, or is compressed in a way that is not supported.
        """
        rest, long_lines = b"", 0
        for block in self._decoded() if not is_event_file(self.path) else self._events():
            rest += block
            end = _last_end(rest)
            if end == 0 and len(rest) < BLOCK_BYTES:
                continue
            if end == 0:
                end, long_lines = len(rest), long_lines + 1
            yield rest[:end]
            rest = rest[end:]
        if rest:
            yield rest
        if long_lines:
            self.notes.append(f"lines longer than {BLOCK_BYTES >> 20} MiB were read in pieces ({long_lines} pieces)")

    def _events(self) -> Iterator[bytes]:
        check_is_file(self.path)
        self.encoding = ASCII_LIKE
        try:
            for line in scalars(self.path):
                self.size += len(line)
                yield line
        except Unreadable as error:
            self.unread = str(error)

    def _decoded(self) -> Iterator[bytes]:
        raw = self._raw()
        first = next(raw, b"")
        if first.startswith(WANDB):
            self.unread = "a binary file of wandb: export the run's history as JSON lines with the package wandb"
        mark, found = next(((mark, name) for mark, name in MARKS if first.startswith(mark)), (b"", None))
        encoding = self.encoding or found or _guess(first)
        self.encoding = encoding
        first = first[len(mark) :]
        if codecs.lookup(encoding).name == codecs.lookup(ASCII_LIKE).name:
            yield first
            yield from raw
            return
        decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        yield decoder.decode(first).encode(errors="replace")
        for block in raw:
            yield decoder.decode(block).encode(errors="replace")
        yield decoder.decode(b"", True).encode(errors="replace")

    def _raw(self) -> Iterator[bytes]:
        try:
            with _opened(self) as stream:
                while block := stream.read1(BLOCK_BYTES):
                    self.size += len(block)
                    yield block
        except Damaged as damage:
            # The job was killed while writing, or the copy is incomplete: what came before is still good.
            self.notes.append(str(damage))
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror or error}. Give log files.") from error


def _opened(source: Source) -> io.BufferedReader:
    """The log, unpacked. It is opened once, and never sought in, for it may be a pipe."""
    check_is_file(source.path, pipe=True)
    stream = source.path.open("rb")
    start = stream.peek(8)
    refused = next((name for magic, name in NOT_READ if start.startswith(magic)), None)
    if refused is not None:
        stream.close()
        raise UsageError(f"{source.path} is a {refused} file, which is not supported. Unpack it first.")
    source.compression = format_of(start)
    return (
        stream if source.compression is None else io.BufferedReader(Unpacked(stream, source.compression), BLOCK_BYTES)
    )


def _last_end(data: bytes) -> int:
    r"""The place after the last line end. A ``\r`` at the very end may be half of ``\r\n``, so it does not count."""
    return max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1


def _guess(first: bytes) -> str:
    """UTF-16 without a mark: every other byte of ASCII text is zero."""
    sample = first[:4096]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(sample) >= 4 and max(even, odd) > 0.4 * len(sample[1::2]) and min(even, odd) < 0.1 * len(sample):
        return "utf-16-le" if odd > even else "utf-16-be"
    return ASCII_LIKE
