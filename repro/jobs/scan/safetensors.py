"""safetensors files: the header is read strictly, the tensors in pieces.

Format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes without holes. Source:
https://huggingface.co/docs/safetensors. The kit has a reader of its own, for the host imports nothing of the kit.
"""

import json
import math
from pathlib import Path
from typing import Any

from repro.jobs.scan.findings import Tally, Unreadable
from repro.jobs.scan.tensors import look, size_of

LONGEST_HEADER = 100_000_000
"""Bytes: the limit of the safetensors library itself."""
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


def read_safetensors(path: Path, tally: Tally) -> None:
    """Every tensor of a file, in the order of its bytes.

    Raises:
        Unreadable: the header is none, or does not cover the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(LONGEST_HEADER, size - 8):
            if (start + file.read(16)).startswith(b"version https://git-"):
                raise Unreadable("it is a Git LFS pointer, not the file itself: run git lfs pull")
            raise Unreadable(f"its header should have {length:,} bytes, and the file has {size:,}")
        tensors = _tensors(file.read(length), size - 8 - length)
        for name, dtype, shape, bytes_ in tensors:
            if dtype not in NAMES:
                tally.unread.append(f"{name!r}: its type {dtype!r} is not looked into")
                file.seek(bytes_, 1)
                continue
            look(tally, name, NAMES[dtype], shape, file.read)


def _tensors(raw: bytes, data: int) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape and bytes of each tensor; the file has ``data`` bytes behind its header."""
    try:
        said = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
        said.pop("__metadata__", None)
        entries = sorted((*_pair(about["data_offsets"]), name, about) for name, about in said.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(f"its header is not one of safetensors ({type(error).__name__}: {error})") from None
    found, at = [], 0
    for begin, end, name, about in entries:
        shape, dtype = about.get("shape"), about.get("dtype")
        if not isinstance(shape, list) or not isinstance(dtype, str) or begin != at or end < begin:
            raise Unreadable(f"the header's entry of {name!r} is not one, or leaves a hole before it")
        shape = tuple(_whole(along) for along in shape)
        if size_of(NAMES.get(dtype, ""), math.prod(shape)) not in (None, end - begin):
            raise Unreadable(f"{name!r} has {end - begin:,} bytes, and its shape {list(shape)} in {dtype} needs others")
        found.append((name, dtype, shape, end - begin))
        at = end
    if at != data:
        raise Unreadable(
            f"its header covers {at:,} bytes of tensors, and {data:,} are there: it was cut, or written to"
        )
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _pair(offsets: Any) -> tuple[int, int]:
    begin, end = offsets
    return _whole(begin), _whole(end)


def _whole(number: Any) -> int:
    """A whole number that is not below zero, as it is."""
    if type(number) is not int or number < 0:
        raise Unreadable(f"its header has {number!r} where a whole number must be")
    return number
