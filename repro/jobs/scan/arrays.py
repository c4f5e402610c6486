"""NumPy's .npy and .npz, read without NumPy.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Arrays of Python objects are pickles and
are not read.
"""

import ast
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repro.jobs.scan.findings import Tally, Unreadable
from repro.jobs.scan.floats import steps_of
from repro.jobs.scan.tensors import look, size_of

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
"""Characters: what NumPy itself reads of a file that is not trusted (max_header_size of numpy.load)."""
KINDS = {
    "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128", "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
NO_NUMBERS = re.compile(r"[<>|=][SUaMm]\d*(\[.*\])?")
"""Texts and times."""
MOST_RATIO = 1_040
"""Unpacked to packed: deflate gives at most 1032 to 1, so an archive that is said to give more has members that lie
over each other. Source: https://www.zlib.net/zlib_tech.html, "Maximum Compression Factor"."""


@dataclass(frozen=True, slots=True)
class Header:
    """``dtype`` by torch's name, or None for a type that cannot be looked into, whose ``descr`` then says which."""

    descr: str
    dtype: str | None
    big_endian: bool
    fortran: bool
    shape: tuple[int, ...]


def read_npy(path: Path, tally: Tally) -> None:
    """The array in a .npy file.

    Raises:
        Unreadable: it is not a whole .npy file, or holds something else than numbers.
    """
    with path.open("rb") as file:
        _array("array", file.read, path.stat().st_size, tally)


def read_npz(path: Path, tally: Tally) -> None:
    """The arrays in a .npz file, each by its name. One that cannot be read does not keep the others from it.

    Raises:
        Unreadable: it is no zip archive, or unpacks to more than one can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            total = sum(info.file_size for info in infos)
            if total > MOST_RATIO * path.stat().st_size:
                raise Unreadable(f"it is said to unpack to {total:,} bytes, more than its size can hold: a zip bomb")
            for info in infos:
                _member(archive, info, tally)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError, struct.error) as error:
        raise Unreadable(f"it is no whole zip archive ({error}): write it again") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, tally: Tally) -> None:
    name = info.filename.removesuffix(".npy")
    try:
        if name == info.filename:
            raise Unreadable("it is no .npy array")
        with archive.open(info) as member:
            _array(name, member.read, info.file_size, tally)
    except (Unreadable, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        tally.unread.append(f"{name!r}: {error}")


def _array(place: str, read: Callable[[int], bytes], size: int, tally: Tally) -> None:
    """One array of ``size`` bytes with its header."""
    used, header = read_header(read)
    if header.dtype is None:
        if NO_NUMBERS.fullmatch(header.descr):
            return
        raise Unreadable(_why_not(header.descr))
    needed = size_of(header.dtype, math.prod(header.shape)) or 0
    if needed != size - used:
        raise Unreadable(
            f"its shape {list(header.shape)} in {header.dtype} needs {needed:,} bytes, and {size - used:,} are there:"
            " it was cut, or is still being written"
        )
    try:
        steps = steps_of(header.shape, fortran=header.fortran)
        look(tally, place, header.dtype, header.shape, read, big_endian=header.big_endian, steps=steps)
    except EOFError:
        raise Unreadable("it ends before its last number") from None
    if read(1):  # at the end of a member its checksum is compared
        raise Unreadable(f"it has more than the {size:,} bytes that it is said to have")


def read_header(read: Callable[[int], bytes]) -> tuple[int, Header]:
    """How many bytes the header takes, and what it says.

    Raises:
        Unreadable: it is none.
    """
    start = read(8)
    if len(start) < 8 or not start.startswith(MAGIC):
        raise Unreadable(f"it does not start as a .npy file does, but with {start[:8]!r}")
    length = {1: 2, 2: 4, 3: 4}.get(start[6])
    if length is None:
        raise Unreadable(f"version {start[6]}.{start[7]} of the format is not known")
    size = int.from_bytes(read(length), "little")
    if size > LONGEST_HEADER:
        raise Unreadable(f"its header should have {size:,} bytes, and {LONGEST_HEADER:,} are the most that are read")
    raw = read(size)
    try:
        said = ast.literal_eval(raw.decode("utf-8" if start[6] == 3 else "latin-1").strip())
        if said.keys() != {"descr", "fortran_order", "shape"} or type(said["fortran_order"]) is not bool:
            raise ValueError
        shape = said["shape"]
        if type(shape) is not tuple or any(type(along) is not int or along < 0 for along in shape):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
        raise Unreadable(f"its header is not one of a .npy file: {raw[:60]!r}") from None
    descr = said["descr"]
    word = descr if isinstance(descr, str) else str(descr)
    dtype = KINDS.get(word[1:]) if word[:1] in "<>|=" else None
    return 8 + length + len(raw), Header(word, dtype, word.startswith(">"), said["fortran_order"], shape)


def _why_not(descr: str) -> str:
    if descr.endswith("O"):
        return "it holds Python objects, which are a pickle and not read: save the numbers as an array of floats"
    if re.fullmatch(r"[<>|=]V\d+", descr):
        return f"its type is {descr!r}, raw bytes (bfloat16 is saved so): save it as float32"
    return f"its type {descr[:80]!r} is not looked into: save the numbers as float32 or float64"
