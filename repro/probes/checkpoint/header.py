"""The safetensors header: read as untrusted bytes, without a library and without mapping the file.

Format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes, one behind the other without
holes. Source: https://huggingface.co/docs/safetensors (format), and its rule that offsets cover the data exactly.
"""

import json
import math
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

from . import limits
from .opening import open_foreign, shown

# Bytes for each element. Types that pack several elements into a byte (F4, F6) have no entry: their size is not
# checked.
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,15}")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
MOST = (1 << 63) - 1  # of a size or an offset: what a signed number of 64 bits holds
TENSORS = "tensors in its header"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself


class BadHeader(Exception):
    """The file is not a whole safetensors file. The message says what was found."""


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: ``begin`` and ``end`` are bytes from the start of the file."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Header:
    path: str
    file_bytes: int
    data_start: int
    entries: tuple[Entry, ...]
    metadata: dict[str, str]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadHeader(f"the header names {shown(key)} twice")
        found[key] = value
    return found


def _parsed(raw: bytes) -> Any:
    """The JSON of a header, as strictly as the library reads it: without NaN, without numbers that float64 does not
    hold, and without halves of surrogate pairs.
    """
    found = json.loads(
        raw.decode("utf-8"),
        object_pairs_hook=_no_duplicates,
        parse_constant=_no_constant,
        parse_int=lambda text: int(_in_range(text)),
        parse_float=lambda text: float(_in_range(text)),
    )
    if SURROGATE.search(raw):
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    return found


def _in_range(text: str) -> str:
    if math.isinf(float(text)):
        raise ValueError(f"{text[:20]}... is beyond any number that the library reads")
    return text


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def read_header(path: str) -> Header:
    """The header of the safetensors file at ``path``, checked against the file's size.

    Raises:
        BadHeader: it is cut, no JSON, does not cover the file, or a tensor's bytes do not fit its shape.
        OverLimit: it names more tensors than are read without being asked.
        OSError: it is no regular file, or cannot be read.
    """
    with open_foreign(path) as stream:
        file_bytes = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        if len(start) < 8:
            raise BadHeader(f"the file has {file_bytes} bytes: less than a header's length field")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES or length > file_bytes - 8:
            pointer = start + stream.read(120)
            if pointer.startswith(b"version https://git-lfs"):
                raise BadHeader("it is a Git LFS pointer, not the file itself: run git lfs pull, or download it again")
            raise BadHeader(f"the header should have {length} bytes, the file has {file_bytes}")
        raw = stream.read(length)
    if len(raw) < length:
        raise BadHeader(f"the file is being written: of {length} bytes of its header, {len(raw)} could be read")
    name = os.path.basename(path)
    limits.check(name, raw.count(b'"data_offsets"'), limits.TENSORS, TENSORS)  # before minutes are spent on reading it
    try:
        found = _parsed(raw)
    except RecursionError:
        raise BadHeader("the header is nested too deeply: a header has three levels") from None
    except ValueError as error:
        raise BadHeader(f"the header is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadHeader(f"the header is a JSON {type(found).__name__}, not an object")
    metadata = found.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeader(f"its __metadata__ is no object of texts: {shown(metadata)}")
    limits.check(name, len(found), limits.TENSORS, TENSORS)
    data_start = 8 + length
    entries = sorted(
        (_entry(path, name, about, data_start) for name, about in found.items()), key=lambda e: (e.begin, e.end)
    )
    _check_cover(entries, data_start, file_bytes)
    return Header(path, file_bytes, data_start, tuple(entries), metadata)


def _entry(path: str, name: str, about: Any, data_start: int) -> Entry:
    said = shown(name)
    if not isinstance(about, dict):
        raise BadHeader(f"the entry of {said} is no object: {shown(about)}")
    for key in ("dtype", "shape", "data_offsets"):
        if key not in about:
            raise BadHeader(f"the entry of {said} lacks dtype, shape or data_offsets: it has no {key}: {shown(about)}")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise BadHeader(f"the dtype of {said} is {shown(dtype)}: expected a name such as 'F32'")
    if not _whole(shape) or len(shape) > limits.DIMENSIONS:
        raise BadHeader(f"the shape of {said} is {shown(shape)}: expected at most {limits.DIMENSIONS} sizes from 0 on")
    if not _whole(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise BadHeader(f"the data_offsets of {said} are {shown(offsets)}: expected the first byte and that behind it")
    begin, end = offsets
    entry = Entry(name, os.path.basename(path), dtype, tuple(shape), data_start + begin, data_start + end)
    item = ITEM_BYTES.get(entry.dtype)
    if item is not None and entry.numel * item != end - begin:
        raise BadHeader(
            f"{said} has {end - begin} bytes,"
            f" its shape {list(entry.shape)} in {entry.dtype} needs {shown(entry.numel * item)}"
        )
    return entry


def _whole(numbers: Any) -> bool:
    """Whether it is a list of whole numbers that a size or an offset can have; what only looks like one is none."""
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number <= MOST for number in numbers)


def _check_cover(entries: list[Entry], data_start: int, file_bytes: int) -> None:
    at = data_start
    for entry in entries:
        if entry.begin != at:
            word = "a hole" if entry.begin > at else "an overlap"
            raise BadHeader(f"{word} of {abs(entry.begin - at)} bytes before {shown(entry.name)}")
        at = entry.end
    if at > file_bytes:
        cut = [entry.name for entry in entries if entry.end > file_bytes]
        raise BadHeader(
            f"the file is cut: its header covers {at} bytes, the file has {file_bytes};"
            f" {len(cut)} of {len(entries)} tensors are not whole, the first is {shown(cut[0])}"
        )
    if at < file_bytes:
        raise BadHeader(f"{file_bytes - at} bytes behind the last tensor belong to nothing")
