"""The safetensors header: read as untrusted bytes, without a library and without mapping the file.

Format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes, one behind the other without holes.
Source: https://huggingface.co/docs/safetensors (format), and its rule that offsets cover the data exactly.
"""

import json
import os
import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

# Bytes for each element. Types that pack several elements into a byte (F4, F6) have no entry: their size is not checked.
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself


class BadHeader(Exception):
    """The file is not a whole safetensors file. The message says what was found."""


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: ``begin`` and ``end`` are bytes from the start of the file."""

    name: str
    file: str
    dtype: str
    shape: Tuple[int, ...]
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
    entries: Tuple[Entry, ...]
    metadata: Dict[str, str]


def _no_duplicates(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadHeader("the header names {!r} twice".format(key))
        found[key] = value
    return found


def read_header(path: str) -> Header:
    """The header of the safetensors file at ``path``, checked against the file's size.

    Raises:
        BadHeader: it is cut, no JSON, does not cover the file, or a tensor's bytes do not fit its shape.
    """
    file_bytes = os.path.getsize(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise BadHeader("the file has {} bytes: less than a header's length field".format(file_bytes))
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES or length > file_bytes - 8:
            pointer = start + stream.read(120)
            if pointer.startswith(b"version https://git-lfs"):
                raise BadHeader("it is a Git LFS pointer, not the file itself: run git lfs pull, or download it again")
            raise BadHeader("the header should have {} bytes, the file has {}".format(length, file_bytes))
        raw = stream.read(length)
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except ValueError as error:
        raise BadHeader("the header is no JSON: {}".format(error)) from None
    if not isinstance(parsed, dict):
        raise BadHeader("the header is a JSON {}, not an object".format(type(parsed).__name__))
    metadata = parsed.pop("__metadata__", None) or {}
    data_start = 8 + length
    entries = sorted((_entry(path, name, about, data_start) for name, about in parsed.items()), key=lambda e: (e.begin, e.end))
    _check_cover(entries, data_start, file_bytes)
    return Header(path, file_bytes, data_start, tuple(entries), metadata)


def _entry(path: str, name: str, about: Any, data_start: int) -> Entry:
    try:
        begin, end = (int(offset) for offset in about["data_offsets"])
        entry = Entry(
            name, os.path.basename(path), str(about["dtype"]), tuple(int(n) for n in about["shape"]), data_start + begin, data_start + end
        )
    except (KeyError, TypeError, ValueError):
        raise BadHeader("the entry of {!r} lacks dtype, shape or data_offsets: {!r}".format(name, about)) from None
    item = ITEM_BYTES.get(entry.dtype)
    if begin < 0 or end < begin or any(size < 0 for size in entry.shape):
        raise BadHeader("the offsets of {!r} are not a range: {} to {}".format(name, begin, end))
    if item is not None and entry.numel * item != end - begin:
        raise BadHeader(
            "{!r} has {} bytes, its shape {} in {} needs {}".format(
                name, end - begin, list(entry.shape), entry.dtype, entry.numel * item
            )
        )
    return entry


def _check_cover(entries: List[Entry], data_start: int, file_bytes: int) -> None:
    at = data_start
    for entry in entries:
        if entry.begin != at:
            word = "a hole" if entry.begin > at else "an overlap"
            raise BadHeader("{} of {} bytes before {!r}".format(word, abs(entry.begin - at), entry.name))
        at = entry.end
    if at > file_bytes:
        cut = [entry.name for entry in entries if entry.end > file_bytes]
        raise BadHeader(
            "the file is cut: its header covers {} bytes, the file has {}; {} of {} tensors are not whole, the first is {!r}".format(
                at, file_bytes, len(cut), len(entries), cut[0]
            )
        )
    if at < file_bytes:
        raise BadHeader("{} bytes behind the last tensor belong to nothing".format(file_bytes - at))
