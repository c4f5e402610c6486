"""One tensor of a known dtype and shape, out of a stream of bytes into the tally."""

import math
from collections.abc import Callable

from repro.jobs.scan.findings import Tally
from repro.jobs.scan.floats import FORMATS, WHOLE, steps_of, stream, unravel


def size_of(dtype: str, count: int) -> int | None:
    """Bytes of ``count`` elements, or None for a type that is not known here."""
    found = FORMATS.get(dtype)
    item = found.part_bytes * found.parts if found else WHOLE.get(dtype)
    return None if item is None else item * count


def look(
    tally: Tally,
    place: str,
    dtype: str,
    shape: tuple[int, ...],
    read: Callable[[int], bytes],
    *,
    big_endian: bool = False,
    steps: tuple[int, ...] | None = None,
) -> None:
    """Count the bad numbers of a dense tensor. A complex number counts as two: its parts.

    ``steps`` are the elements from one index to the next along each dimension where they do not lie in order of
    their index; the first bad number is the first in the file.

    Raises:
        EOFError: the stream ends before its last number.
    """
    count = math.prod(shape)
    found = stream(read, size_of(dtype, count) or 0, dtype, big_endian=big_endian)
    tally.numbers(place, count * (FORMATS[dtype].parts if dtype in FORMATS else 1))
    if found.first is not None:
        first = str(unravel(found.first, shape, steps or steps_of(shape)))
        tally.hit(place, first, found, dtype)
