"""Every tensor of a checkpoint, streamed from the file: NaN, infinities, subnormals, zeros, constants, range, and
what would overflow.

Bytes are read (not mapped) into one small buffer that stays in the processor's cache, so that memory does not grow
with the model and a file cut while it is read gives an error, not a SIGBUS. Most chunks cost two passes, a minimum
and maximum and a smallest magnitude; exact counts are taken only in chunks where those say that there is something to
count.
"""

import math
import os
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from .files import WeightFiles, list_weights, load_pickle
from .header import Entry
from .summary import dtype_name, is_float, unravel, widen

CHUNK_BYTES = 1 << 20  # fits a second-level cache; measured fastest among 256 kB, 1, 4 and 16 MB
Progress = Callable[[int, int, str], None]

DTYPES: dict[str, Optional[torch.dtype]] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": getattr(torch, "float8_e4m3fn", None), "F8_E5M2": getattr(torch, "float8_e5m2", None),
}  # fmt: skip
TARGETS = ("float16", "bfloat16", "float32")  # the dtypes for which an overflow is forecast


class Tally:
    """Running figures of one tensor, fed chunk by chunk in order."""

    def __init__(self, name: str, file: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.name, self.file, self.dtype, self.shape = name, file, dtype, shape
        self.seen = 0
        self.min, self.max = math.inf, -math.inf
        self.nan = self.posinf = self.neginf = self.zeros = self.subnormal = 0
        self.first_bad: Optional[int] = None
        self.tiny = torch.finfo(dtype).tiny

    def feed(self, chunk: Tensor) -> None:
        """Count one flat chunk, any floating dtype."""
        values = chunk if chunk.dtype in (torch.float32, torch.float64) else chunk.to(torch.float32)
        low, high = (float(bound) for bound in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            values = self._count_bad(values)
            if values.numel():
                low, high = (float(bound) for bound in torch.aminmax(values))
            else:
                low, high = math.inf, -math.inf
        self.min, self.max = min(self.min, low), max(self.max, high)
        if values.numel():
            magnitude = values.abs()
            if float(magnitude.amin()) < self.tiny:
                zeros = values.numel() - int(torch.count_nonzero(values))
                self.zeros += zeros
                self.subnormal += int(torch.count_nonzero(magnitude < self.tiny)) - zeros
        self.seen += chunk.numel()

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
    def mask_like(self) -> bool:
        """Only -inf and 0: an attention mask that was saved with the weights. Softmax absorbs it, so it is no fault."""
        return self.bad == self.neginf > 0 and self.zeros + self.neginf == self.seen

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


def scan_file(path: str, entries: list[Entry], buffer: bytearray) -> Iterator[Tally]:
    """The tallies of the floating-point tensors of one safetensors file, in file order."""
    whole = torch.frombuffer(buffer, dtype=torch.uint8)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        for entry in entries:
            dtype = DTYPES.get(entry.dtype)
            if dtype is None or entry.end == entry.begin:
                continue
            tally = Tally(entry.name, entry.file, dtype, entry.shape)
            stream.seek(entry.begin)
            left = entry.end - entry.begin
            while left:
                wanted = min(left, len(buffer))
                filled = 0
                while filled < wanted:
                    got = stream.readinto(view[filled:wanted])
                    if not got:
                        raise OSError(f"{path} ends inside tensor {entry.name!r}")
                    filled += got
                tally.feed(whole[:wanted].view(dtype))
                left -= wanted
            yield tally


def scan_tensor(name: str, file: str, tensor: Tensor) -> Tally:
    """The tally of a tensor in memory."""
    tally = Tally(name, file, tensor.dtype, tuple(tensor.shape))
    flat = tensor.detach().reshape(-1)
    step = CHUNK_BYTES // max(flat.element_size(), 1)
    for begin in range(0, flat.numel(), step):
        tally.feed(flat[begin : begin + step])
    return tally


def scan(folder: str, found: WeightFiles, progress: Progress) -> Iterator[Tally]:
    """The tallies of all floating-point tensors of a checkpoint folder.

    Raises:
        OSError: a file ends inside a tensor or cannot be read.
    """
    if found.format == "safetensors":
        total = sum(len(header.entries) for header in found.headers)
        done = 0
        buffer = bytearray(CHUNK_BYTES)
        for header in found.headers:
            for tally in scan_file(header.path, list(header.entries), buffer):
                done += 1
                progress(done, total, "tensors")
                yield tally
    elif found.format == "pickle":
        for name in found.names:
            tensors = load_pickle(os.path.join(folder, name), "cpu")
            for done, (key, tensor) in enumerate(tensors.items(), 1):
                progress(done, len(tensors), "tensors")
                if is_float(tensor) and tensor.numel():
                    yield scan_tensor(key, name, widen(tensor) if tensor.is_complex() else tensor)


def check(folder: str, progress: Progress) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the weights step."""
    found = list_weights(folder)
    tallies: list[Tally] = list(scan(folder, found, progress))
    payload = report(tallies)
    broken = [finding["file"] for finding in found.findings if finding["severity"] == "bad"]
    rows = payload["findings"]
    if rows:
        worst = rows[0]
        return (
            "bad",
            "{} tensor{} not finite; the first is {}: {} NaN, {} +inf, {} -inf, first at {}".format(
                len(rows), " is" if len(rows) == 1 else "s are", worst["tensor"], worst["nan"], worst["posinf"], worst["neginf"],
                worst["first_index"],
            ),
            payload,
        )  # fmt: skip
    if broken:
        return (
            "skip",
            "not all tensors could be read, because of {}; those that could are finite".format(", ".join(broken[:3])),
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


def report(tallies: list[Tally]) -> dict[str, Any]:
    """The payload of the weights step."""
    rows = [tally.row() for tally in tallies]
    finite = [tally for tally in tallies if tally.min <= tally.max]
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
            name: [tally.name for tally in finite if tally.absmax > torch.finfo(getattr(torch, name)).max]
            for name in TARGETS
        },
        "absmax": {"tensor": largest.name, "value": largest.absmax} if largest else None,
        "stats": rows,
    }
