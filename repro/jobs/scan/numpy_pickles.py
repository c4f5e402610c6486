"""NumPy's arrays and scalars inside a pickle, from what stands in it.

Source: numpy/_core/src/multiarray/methods.c (``array_reduce``, ``array_setstate``) and descriptor.c
(``arraydescr_reduce``).
"""

import math
from dataclasses import dataclass
from typing import Any

from repro.jobs.scan.arrays import KINDS
from repro.jobs.scan.pickles import Call
from repro.jobs.scan.tensors import size_of

ARRAY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


@dataclass(frozen=True, slots=True)
class Array:
    """``raw`` holds the whole numbers of ``shape``."""

    dtype: str
    big_endian: bool
    fortran: bool
    shape: tuple[int, ...]
    raw: bytes


def array_in(call: Call) -> Array | None:
    """The array or scalar that a call would make; None where it makes something else, or holds no plain numbers."""
    name = str(call.function)
    try:
        if name in ARRAY:
            _, shape, kind, fortran, raw = call.state
        elif name in SCALAR:
            (kind, raw), shape, fortran = call.args, (), False
        else:
            return None
        dtype = KINDS.get(kind.args[0])
        content = raw_bytes(raw)
        if dtype is None or content is None or size_of(dtype, math.prod(shape)) != len(content):
            return None
        return Array(dtype, kind.state[1] == ">", bool(fortran), tuple(map(int, shape)), content)
    except (TypeError, ValueError, AttributeError, IndexError):
        return None


def raw_bytes(value: Any) -> bytes | None:
    """Bytes, also as the protocols write them that have no word for bytes: as a text and its encoding."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, Call) and str(value.function) == "_codecs.encode" and isinstance(value.args, tuple):
        text, encoding = (*value.args, None)[:2]
        if isinstance(text, str) and encoding == "latin1":
            return text.encode("latin1", "replace")
    return None
