"""The header of a .gguf file: read as untrusted bytes, before the library that believes every count in it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. ``GGUF``, a version, how many tensors and keys there
are, then the keys with their values, then for each tensor its name, sizes, type and where its data begin.
"""

import contextlib
import io
import math
import os
import struct
from dataclasses import dataclass
from typing import Optional

from . import limits
from .opening import open_foreign, shown
from .resolve import CannotResolve

VERSIONS = (2, 3)
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its type
UINT32, STRING, ARRAY = 4, 8, 9
LONGEST_NAME = 65_535  # of a key, by the format; tensors have 64 at most
MOST_DIMENSIONS = 8  # the format has 4, "may change in the future"
DEEPEST_ARRAY = 4
ALIGNMENT = 32  # where general.alignment says nothing else


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: its sizes and its type by ggml's number; ``begin`` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of itself. ``data_start`` is in bytes from the start of the file."""

    version: int
    keys: tuple[str, ...]
    tensors: tuple[StoredTensor, ...]
    data_start: int

    @property
    def numel(self) -> int:
        """Numbers in all tensors together."""
        return sum(tensor.numel for tensor in self.tensors)


class _NoGguf(Exception):
    """The bytes begin as those of another kind of file."""


class _Bad(Exception):
    """The bytes are no header. The message says what was found."""


def read_gguf_header(path: str) -> GgufHeader:
    """The header of the file at ``path``, checked against the file's size.

    Raises:
        CannotResolve: it is no regular file, no GGUF file, or not a whole one.
        OverLimit: it asks for more work than is done without being asked.
    """
    try:
        with open_foreign(path) as stream:
            header = _Reader(stream, os.path.basename(path)).header()
            size = os.fstat(stream.fileno()).st_size
        _check_data(header, size)
    except OSError as error:
        raise CannotResolve(f"{path} cannot be read: {error.strerror or error}.") from None
    except _NoGguf:
        raise CannotResolve(f"{path} is no GGUF file: it does not begin with the letters GGUF.") from None
    except _Bad as error:
        raise CannotResolve(f"{path} is no whole GGUF file: {error}. Download it again.") from None
    return header


class _Reader:
    """Takes one value behind the other; each is there, or the file is cut."""

    def __init__(self, stream: io.BufferedReader, name: str) -> None:
        self._stream = stream
        self._name = name
        self._size = os.fstat(stream.fileno()).st_size
        self._order = "<"
        self._elements = 0

    def header(self) -> GgufHeader:
        if self._stream.read(4) != b"GGUF":
            raise _NoGguf
        version = self._number("I")
        if version and not version & 0xFFFF:  # written with the other order of bytes
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in VERSIONS:
            raise _Bad(f"its version is {version:,}, and versions 2 and 3 are read")
        tensors, keys = self._number("Q"), self._number("Q")
        limits.check(self._name, tensors, limits.TENSORS, "tensors in its header")
        limits.check(self._name, keys, limits.GGUF_KEYS, "keys in its header")
        alignment = ALIGNMENT
        names = []
        for _ in range(keys):
            names.append(self._string(LONGEST_NAME))
            number = self._value(self._number("I"), names[-1])
            if names[-1] == "general.alignment":
                alignment = self._checked_alignment(number)
        stored = tuple(self._tensor() for _ in range(tensors))
        at = self._stream.tell()
        return GgufHeader(version, tuple(names), stored, at + -at % alignment)

    def _tensor(self) -> StoredTensor:
        name = self._string(LONGEST_NAME)
        dimensions = self._number("I")
        if dimensions > MOST_DIMENSIONS:
            raise _Bad(f"{shown(name)} has {dimensions:,} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        kind, begin = self._number("I"), self._number("Q")
        if math.prod(shape) >= 1 << 63:
            raise _Bad(f"the shape of {shown(name)} is {shown(list(shape))}")
        return StoredTensor(name, shape, kind, begin)

    def _value(self, kind: int, key: str, depth: int = 0) -> Optional[int]:
        """Passes over one value; gives it back where it is a 32-bit number."""
        if kind == UINT32:
            return self._number("I")
        if kind in SIZES:
            self._skip(SIZES[kind])
        elif kind == STRING:
            self._skip(self._number("Q"))
        elif kind == ARRAY and depth < DEEPEST_ARRAY:
            inner, count = self._number("I"), self._number("Q")
            self._elements += count
            limits.check(self._name, self._elements, limits.GGUF_ELEMENTS, "elements in the arrays of its header")
            if inner in SIZES:
                self._skip(SIZES[inner] * count)
            else:
                for _ in range(count):
                    self._value(inner, key, depth + 1)
        else:
            raise _Bad(f"the value of {shown(key)} has the type {kind}, which there is not")
        return None

    def _checked_alignment(self, number: Optional[int]) -> int:
        if number is None or not 0 < number <= 1 << 20 or number & (number - 1):
            raise _Bad(f"general.alignment is {number}: expected a power of two")
        return number

    def _string(self, longest: int) -> str:
        length = self._number("Q")
        if length > longest:
            raise _Bad(f"a name in its header has {length:,} bytes")
        return self._take(length).decode("utf-8", "backslashreplace")

    def _number(self, form: str) -> int:
        found: int = struct.unpack(self._order + form, self._take(struct.calcsize(form)))[0]
        return found

    def _take(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise _Bad(f"it ends inside its header, after {self._size:,} bytes")
        return found

    def _skip(self, count: int) -> None:
        if count > self._size - self._stream.tell():
            raise _Bad(f"a value in its header has {count:,} bytes, the whole file has {self._size:,}")
        self._stream.seek(count, os.SEEK_CUR)


def _check_data(header: GgufHeader, size: int) -> None:
    """Every tensor lies in the file, as far as the size of its type is known here."""
    sizes: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(ImportError):  # the conversion says that it is needed
        from gguf import constants

        sizes = {int(kind): size for kind, size in constants.GGML_QUANT_SIZES.items()}
    for tensor in header.tensors:
        block, item = sizes.get(tensor.kind, (0, 0))
        needed = tensor.numel // block * item if block else 0
        if header.data_start + tensor.begin + needed > size:
            raise _Bad(
                f"it is cut: {shown(tensor.name)} ends at byte {header.data_start + tensor.begin + needed:,},"
                f" the file has {size:,}"
            )
