"""NumPy's .npy and .npz, streamed: NumPy reads the header, the numbers come in pieces, and objects, which are pickles,
are not read at all.

numpy.load would map a .npy file, which ends the process where the file is cut meanwhile, and unpack a member of a .npz
file as a whole.
"""

import io
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Callable

from ..values.figures import unravel
from .contents import Contents, Unreadable
from .opening import open_foreign
from .resolve import first_line

CHUNK_BYTES = 1 << 20
HEADER_BYTES = 1 << 16  # NumPy itself reads at most 10,000 characters of a header that is not trusted
MOST_RATIO = 1_040
# Unpacked to packed: deflate gives at most 1032 to 1, so an archive that is said to give more has members that lie over
# each other. Source: https://www.zlib.net/zlib_tech.html, "Maximum Compression Factor".


def read_npy(path: str, found: Contents) -> None:
    """The array of a .npy file."""
    with open_foreign(path) as stream:
        _array("array", stream.read, os.path.getsize(path), found)


def read_npz(path: str, found: Contents) -> None:
    """The arrays of a .npz file by their names. One that cannot be read does not keep the others from it.

    Raises:
        Unreadable: it is no zip archive, or unpacks to more than one can hold.
    """
    try:
        with open_foreign(path) as opened, zipfile.ZipFile(opened) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_sizes(infos, path)
            for info in infos:
                _member(archive, info, found)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError) as error:
        raise Unreadable(f"it is no whole zip archive ({error}): write it again") from None


def npz_arrays(path: str) -> dict[str, Any]:
    """The arrays of a .npz file by their names, whole.

    Raises:
        Unreadable: it is no zip archive, unpacks to more than one can hold, or holds something else than numbers.
    """
    numpy = _numpy()
    found = {}
    try:
        with open_foreign(path) as opened, zipfile.ZipFile(opened) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_sizes(infos, path)
            for info in infos:
                name = info.filename[: -len(".npy")] if info.filename.endswith(".npy") else info.filename
                with archive.open(info) as member:
                    found[name] = numpy.lib.format.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, IndexError) as error:
        raise Unreadable(f"it is no whole .npz archive of numbers ({first_line(error)}): write it again") from None
    return found


def _check_sizes(infos: list[zipfile.ZipInfo], path: str) -> None:
    """Raises:
    Unreadable: the archive claims to unpack to more than it can hold.
    """
    total = sum(info.file_size for info in infos)
    if total > MOST_RATIO * os.path.getsize(path):
        raise Unreadable(f"it claims to unpack to {total:,} bytes, more than its size can hold: a zip bomb")


def _numpy() -> Any:
    """Raises:
    Unreadable: there is none.
    """
    try:
        import numpy
    except ImportError:
        raise Unreadable(f"NumPy is needed for it, and {sys.executable} has none: pip install numpy") from None
    return numpy


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: Contents) -> None:
    name = info.filename[: -len(".npy")] if info.filename.endswith(".npy") else info.filename
    try:
        if name == info.filename:
            raise Unreadable("it is no .npy array")
        with archive.open(info) as member:
            _array(name, member.read, info.file_size, found)
    except (Unreadable, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        found.unread.append(f"{name!r}: {str(error) or 'it was cut'}")


def _array(place: str, read: Callable[[int], bytes], size: int, found: Contents) -> None:
    """One array of ``size`` bytes with its header.

    Raises:
        Unreadable: it is not whole, or not of numbers.
    """
    numpy = _numpy()
    start = io.BytesIO(read(HEADER_BYTES))
    shape, fortran, dtype = _header(start)
    if dtype.kind in "SUMm":  # texts and times
        return
    if dtype.hasobject or dtype.kind not in "fcbiu":
        raise Unreadable(_why_not(dtype))
    there, needed = size - start.tell(), math.prod(shape) * dtype.itemsize
    if there != needed:
        raise Unreadable(
            f"its shape {list(shape)} in {dtype.name} needs {needed:,} bytes, and {there:,} are there: it was cut, or"
            " is still being written"
        )
    counts, first, done = [0, 0, 0], None, 0
    for piece in _pieces(start.read(), read, CHUNK_BYTES // dtype.itemsize * dtype.itemsize):
        values = numpy.frombuffer(piece, dtype, len(piece) // dtype.itemsize)
        if dtype.kind in "fc" and len(bad := numpy.flatnonzero(~numpy.isfinite(values))):
            first = done + int(bad[0]) if first is None else first
            parts = values[bad].view(values.real.dtype)
            here = (numpy.isnan(parts), parts == math.inf, parts == -math.inf)
            counts = [before + int(kind.sum()) for before, kind in zip(counts, here)]
        done += len(values)
    if done * dtype.itemsize != needed:
        raise Unreadable(f"{done * dtype.itemsize:,} of its {needed:,} bytes could be read: it is being written")
    index = None if first is None else unravel(first, shape[::-1])[::-1] if fortran else unravel(first, shape)
    found.add(place, dtype.name, shape, done * (2 if dtype.kind == "c" else 1), counts, index)


def _header(start: io.BytesIO) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether the first index runs fastest, and dtype, from the bytes that an array begins with."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(start)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(start)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(start)
        else:
            raise Unreadable("version {}.{} of the format is not looked into".format(*version))
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001 - NumPy raises what its parser meets in a damaged header
        raise Unreadable(f"its header is not one of a .npy file: {first_line(error)}") from None
    if any(along < 0 for along in shape):
        raise Unreadable(f"its header is not one of a .npy file: the shape {list(shape)}")
    return shape, fortran, dtype


def _pieces(start: bytes, read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """``start`` and what can be read behind it, in pieces of ``size``; a stream that unpacks may give fewer at once."""
    kept = start
    while True:
        while len(kept) < size and (more := read(size - len(kept))):
            kept += more
        if not kept:
            return
        yield kept[:size]
        kept = kept[size:]


def _why_not(dtype: Any) -> str:
    if dtype.hasobject:
        return "it holds Python objects, which are a pickle and not read: save the numbers as an array of floats"
    if dtype.kind == "V" and dtype.names is None:
        return f"its type is {dtype.str!r}, raw bytes (bfloat16 is saved so): save it as float32"
    return f"its type {str(dtype)[:80]} is not looked into: save the numbers as float32 or float64"
