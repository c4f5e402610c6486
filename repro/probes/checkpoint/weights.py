"""Every tensor of a checkpoint, streamed from the file: NaN, infinities, subnormals, zeros, range, what would overflow.

Each thread reads chunks into one small buffer that stays in its core's cache, so that memory does not grow with the
model, and a file that is cut meanwhile gives an error where a mapped one would kill the process. Most chunks cost a
minimum and maximum and a smallest magnitude; exact counts are taken only in chunks where those say that there is
something to count.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..values.figures import dtype_name, is_float, unravel
from .files import SAFE, WeightFiles, adapter_weights, list_weights, load_pickle
from .header import Entry
from .opening import open_foreign, shown

CHUNK_BYTES = 1 << 21  # stays in a core's own cache between the passes; measured fastest among 0.5, 1, 2 and 4 MiB
PIECE_BYTES = 1 << 24  # what one thread takes at a time
WAITING = 1024  # tensors of which pieces are handed out at once: a file may hold a million small ones
Progress = Callable[[int, int, str], None]

DTYPES: dict[str, Optional[torch.dtype]] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "C64": torch.float32,  # as pairs of reals
    "F8_E4M3": getattr(torch, "float8_e4m3fn", None), "F8_E5M2": getattr(torch, "float8_e5m2", None),
    "F8_E8M0": getattr(torch, "float8_e8m0fnu", None),
}  # fmt: skip
TARGETS = ("float16", "bfloat16", "float32")  # the dtypes for which an overflow is forecast
EXPONENT = 0x7F800000  # the exponent bits of a float32: all zero in a zero and in a subnormal, and nowhere else


@dataclass
class Tally:
    """Figures of one tensor, or of a part of it; parts are added in order. min and max are over the finite elements."""

    name: str
    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    seen: int = 0
    min: float = math.inf
    max: float = -math.inf
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    subnormal: int = 0
    first_bad: Optional[int] = None

    def add(self, part: "Tally") -> None:
        """Take in the part that follows."""
        if self.first_bad is None and part.first_bad is not None:
            self.first_bad = self.seen + part.first_bad
        self.min, self.max = min(self.min, part.min), max(self.max, part.max)
        for count in ("seen", "nan", "posinf", "neginf", "zeros", "subnormal"):
            setattr(self, count, getattr(self, count) + getattr(part, count))

    def feed(self, chunk: Tensor, ours: bool = False) -> None:
        """Count one flat chunk, any floating dtype, that follows what was seen.

        ours: whether the chunk may be overwritten; room for its magnitudes would not fit into the cache beside it.
        """
        values = chunk if chunk.dtype in (torch.float32, torch.float64) else chunk.to(torch.float32)
        low, high = (bound.item() for bound in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._count_bad(values)
            low, high = (bound.item() for bound in torch.aminmax(values)) if values.numel() else (math.inf, -math.inf)
        self.min, self.max = min(self.min, low), max(self.max, high)
        if values.numel():
            magnitude = values.abs_() if ours or values is not chunk else values.abs()
            tiny = torch.finfo(self.dtype).tiny
            if magnitude.amin().item() < tiny:
                self._count_small(values, magnitude, tiny)
        self.seen += chunk.numel()

    def _count_small(self, values: Tensor, magnitude: Tensor, tiny: float) -> None:
        """Zeros and subnormals; for float32 by their bits, which is faster than comparing. Overwrites ``magnitude``."""
        if self.dtype == torch.float32:
            bits = magnitude.view(torch.int32)
            zeros = values.numel() - int(torch.count_nonzero(bits))
            below = values.numel() - int(torch.count_nonzero(bits.bitwise_and_(EXPONENT)))
        else:
            zeros = values.numel() - int(torch.count_nonzero(values))
            below = int(torch.count_nonzero(magnitude < tiny))
        self.zeros += zeros
        self.subnormal += below - zeros

    def _count_bad(self, values: Tensor) -> Tensor:
        """Count the elements that are not finite; returns the finite ones."""
        finite = torch.isfinite(values)
        nan, posinf = int(torch.isnan(values).sum()), int((values == math.inf).sum())
        bad = values.numel() - int(finite.sum())
        self.nan, self.posinf, self.neginf = self.nan + nan, self.posinf + posinf, self.neginf + bad - nan - posinf
        if self.first_bad is None:
            self.first_bad = self.seen + int((~finite).to(torch.uint8).argmax())
        return values[finite]

    @property
    def bad(self) -> int:
        return self.nan + self.posinf + self.neginf

    @property
    def narrow(self) -> bool:
        """Whether its numbers are quantised: a scale beside them makes the weights of them."""
        return torch.empty(0, dtype=self.dtype).element_size() < 2

    @property
    def mask_like(self) -> bool:
        """Only -inf and 0: an attention mask that was saved with the weights. Softmax absorbs it, so it is no fault."""
        return self.bad == self.neginf > 0 < self.zeros and self.zeros + self.neginf == self.seen

    @property
    def absmax(self) -> float:
        return max(abs(self.min), abs(self.max)) if self.min <= self.max else math.nan

    def row(self) -> dict[str, Any]:
        empty = self.min > self.max
        return {
            "tensor": self.name,
            "file": self.file,
            "dtype": dtype_name(self.dtype),
            "shape": list(self.shape),
            "min": math.nan if empty else self.min,
            "max": math.nan if empty else self.max,
            "absmax": self.absmax,
            "nan": self.nan,
            "posinf": self.posinf,
            "neginf": self.neginf,
            "subnormal": self.subnormal,
            "zeros": self.zeros,
            "constant": self.seen > 1 and self.bad == 0 and self.min == self.max,
        }


def scan_file(path: str, entries: list[Entry], dtypes: Mapping[str, Optional[torch.dtype]] = DTYPES) -> Iterator[Tally]:
    """The tallies of the tensors of one safetensors file that have one of ``dtypes``, in file order.

    Raises:
        OSError: the file cannot be read, or ends inside a tensor.
    """
    with _threads() as pool:
        work: deque[tuple[Tally, list[Future[Tally]]]] = deque()
        for entry in entries:
            dtype = dtypes.get(entry.dtype)
            if dtype is not None and entry.end > entry.begin:
                shape = (*entry.shape, 2) if entry.dtype == "C64" else entry.shape
                tally = Tally(entry.name, entry.file, dtype, shape)
                starts = range(entry.begin, entry.end, PIECE_BYTES)
                parts = [pool.submit(_piece, path, tally, at, min(at + PIECE_BYTES, entry.end)) for at in starts]
                work.append((tally, parts))
                if len(work) >= WAITING:
                    yield _whole(*work.popleft())
        while work:
            yield _whole(*work.popleft())


def _whole(tally: Tally, parts: "list[Future[Tally]]") -> Tally:
    for part in parts:
        tally.add(part.result())
    return tally


class _Room(threading.local):
    """A worker's own memory, used again for every chunk: fresh memory would cost as much as the looking."""

    def __init__(self) -> None:
        self.bytes = bytearray(CHUNK_BYTES)
        self.view = memoryview(self.bytes)
        self.chunk = torch.frombuffer(self.bytes, dtype=torch.uint8)


_room = _Room()


def _piece(path: str, whole: Tally, begin: int, end: int) -> Tally:
    """The tally of the bytes from ``begin`` to ``end`` of a file."""
    part = Tally(whole.name, whole.file, whole.dtype, whole.shape)
    with open_foreign(path, buffering=0) as stream:
        stream.seek(begin)
        while begin < end:
            wanted = min(end - begin, CHUNK_BYTES)
            filled = 0
            while filled < wanted:
                got = stream.readinto(_room.view[filled:wanted])
                if not got:
                    raise OSError(f"{path} ends inside tensor {shown(whole.name)}")
                filled += got
            part.feed(_room.chunk[:wanted].view(whole.dtype), ours=True)
            begin += wanted
    return part


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many workers as PyTorch has threads, each of which uses one: none waits for another behind every operator."""
    count = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)  # the workers' setting reaches the BLAS of the whole process


def scan_tensor(name: str, file: str, tensor: Tensor) -> Tally:
    """The tally of a tensor in memory."""
    tally = Tally(name, file, tensor.dtype, tuple(tensor.shape))
    with _one_thread():
        for piece in _pieces(tensor.detach()):
            tally.feed(piece)
    return tally


@contextmanager
def _one_thread() -> Iterator[None]:
    """A chunk is little work for an operator: on a busy machine its threads wait for each other ten times as long."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The elements in order of their index, in flat pieces; one that does not lie in that order is copied."""
    if not tensor.numel():
        return
    if tensor.is_contiguous():
        tensor = tensor.reshape(-1)
    size = tensor.numel() * tensor.element_size()
    if size <= CHUNK_BYTES:
        yield tensor.reshape(-1)
        return
    rows = max(1, len(tensor) * CHUNK_BYTES // size)
    for begin in range(0, len(tensor), rows):
        part = tensor[begin : begin + rows]
        yield from _pieces(part[0] if rows == 1 else part)


def scan(folder: str, found: WeightFiles, progress: Progress) -> Iterator[Tally]:
    """The tallies of all floating-point tensors of a checkpoint folder.

    Raises:
        OSError: a file cannot be read.
    """
    total = sum(len(header.entries) for header in found.headers)
    done = 0
    for header in found.headers:
        part = os.path.dirname(os.path.relpath(header.path, folder))
        for tally in scan_file(header.path, list(header.entries)):
            done += 1
            progress(done, total, "tensors")
            yield _of_part(part, tally)
    for name in found.names if found.format == "pickle" else ():
        if name.endswith(SAFE):
            continue  # a part of a pipeline; its header was read
        tensors = load_pickle(os.path.join(folder, name), "cpu")
        part, file = os.path.split(name)
        for done, (key, tensor) in enumerate(tensors.items(), 1):
            progress(done, len(tensors), "tensors")
            if is_float(tensor) and tensor.numel():
                yield _of_part(
                    part, scan_tensor(key, file, torch.view_as_real(tensor) if tensor.is_complex() else tensor)
                )


def _of_part(part: str, tally: Tally) -> Tally:
    """The same, under the name that a tensor has in a pipeline: that of its part before its own."""
    return replace(tally, name=f"{part}.{tally.name}", file=f"{part}/{tally.file}") if part else tally


def check(
    folder: str, progress: Progress, stored_as: Optional[Mapping[str, str]] = None, adapter: Optional[str] = None
) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the weights step.

    stored_as: other names of tensors, in the user's own file. adapter: a folder with more of them.
    """
    found = list_weights(folder)
    tallies: list[Tally] = list(scan(folder, found, progress))
    if adapter is not None:
        beside = adapter_weights(adapter)
        tallies += scan(adapter, beside, progress)
        found.findings += beside.findings
    payload = report(tallies)
    broken = [finding["file"] for finding in found.findings if finding["severity"] != "note"]
    rows = payload["findings"]
    for row in rows:
        row["stored_as"] = (stored_as or {}).get(row["tensor"])
    if rows:
        worst = rows[0]
        own = f" ({worst['stored_as']} in the file)" if worst["stored_as"] else ""
        reason = (
            f"{len(rows)} tensor{' is' if len(rows) == 1 else 's are'} not finite; the first is {worst['tensor']}{own}:"
            f" {worst['nan']} NaN, {worst['posinf']} +inf, {worst['neginf']} -inf, first at {worst['first_index']}"
        )
        return "bad", reason, payload
    if broken:
        return (
            "skip",
            "{} could be read, because of {}{}".format(
                "not all tensors" if tallies else "no tensor",
                ", ".join(broken[:3]),
                "; those that could are finite" if tallies else "",
            ),
            payload,
        )
    if not tallies:
        return "skip", f"there are no floating-point tensors in {folder}", payload
    reason = "{} tensors, all finite, largest magnitude {:.6g} in {}".format(
        len(tallies), payload["absmax"]["value"], payload["absmax"]["tensor"]
    )
    for dtype in TARGETS:
        count = len(payload["overflows_in"][dtype])
        if count:
            reason += f"; {count} would overflow in {dtype}"
    return "good", reason, payload


def overflows(value: float, dtype: torch.dtype) -> bool:
    """Whether a finite number becomes infinite in ``dtype``: 65519.9 rounds to float16's largest, 65520 does not."""
    return bool(torch.isinf(torch.tensor(value, dtype=torch.float64).to(dtype)))


def report(tallies: list[Tally]) -> dict[str, Any]:
    """The payload of the weights step."""
    rows = [tally.row() for tally in tallies]
    finite = [tally for tally in tallies if tally.min <= tally.max and not tally.narrow] or [
        tally for tally in tallies if tally.min <= tally.max
    ]
    largest = max(finite, key=lambda tally: tally.absmax, default=None)
    return {
        "tensors": len(tallies),
        "parameters": sum(tally.seen for tally in tallies),
        "bytes": sum(tally.seen * torch.empty(0, dtype=tally.dtype).element_size() for tally in tallies),
        "findings": [
            {**tally.row(), "first_index": unravel(tally.first_bad or 0, tally.shape)}
            for tally in tallies
            if tally.bad and not tally.mask_like
        ],
        "masks": [tally.name for tally in tallies if tally.mask_like],
        "subnormal": sum(tally.subnormal for tally in tallies),
        "zero_tensors": [tally.name for tally in tallies if tally.seen and tally.zeros == tally.seen],
        "constant_tensors": sum(bool(row["constant"]) for row in rows),
        "overflows_in": {
            name: [tally.name for tally in finite if overflows(tally.absmax, getattr(torch, name))] for name in TARGETS
        },
        "absmax": {"tensor": largest.name, "value": largest.absmax} if largest else None,
        "stats": rows,
    }
