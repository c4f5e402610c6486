"""Figures of one tensor, taken in float32 or wider; NaN, +inf and -inf counted apart."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .nest import items_in


def widen(tensor: Tensor) -> Tensor:
    """``tensor`` in float32, or float64 if it is that already; complex numbers as pairs of reals.

    Old CPU builds have no float16 kernels for comparisons and sums, and a mean of float16 values overflows by itself.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)


def describe(tensor: Tensor) -> dict[str, Any]:
    """Shape, dtype, min, max, mean of the finite elements ("nan" where there are none), and the counts of the
    others.
    """
    summary: dict[str, Any] = {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype)}
    if not is_float(tensor) or tensor.numel() == 0:
        return summary
    wide = widen(tensor.detach())
    finite = torch.isfinite(wide)
    bad = wide.numel() - int(finite.sum())
    kept = wide if bad == 0 else wide[finite]
    empty = kept.numel() == 0
    summary["min"] = math.nan if empty else float(kept.min())
    summary["max"] = math.nan if empty else float(kept.max())
    summary["mean"] = (
        math.nan if empty else float(kept.mean(dtype=torch.float64) if kept.device.type != "mps" else kept.mean())
    )
    nan = int(torch.isnan(wide).sum()) if bad else 0
    posinf = int((wide == math.inf).sum()) if bad else 0
    summary.update(nan=nan, posinf=posinf, neginf=bad - nan - posinf)
    return summary


def is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


_wrapped = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)


def is_wrapped(tensor: Tensor) -> bool:
    """Whether it stands for others within torch.func's vmap or grad: it has no numbers of its own to be read."""
    return _wrapped is not None and bool(_wrapped(tensor))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")


def finite_mask(tensor: Tensor) -> Tensor:
    """True where an element is finite; a complex one where both its parts are. The tensor's shape."""
    return torch.isfinite(tensor if tensor.is_complex() else widen(tensor))


def is_bad(tensor: Tensor) -> bool:
    """Whether any element is NaN or infinite. A NaN passes through minimum and maximum, which are the quickest look."""
    if not is_float(tensor) or tensor.numel() == 0:
        return False
    low, high = torch.aminmax(widen(tensor.detach()))
    return not (math.isfinite(low.item()) and math.isfinite(high.item()))


def scalar(tensor: Tensor, index: Sequence[int]) -> float:
    """One element as a Python float; of a complex number, the part that is NaN, else the one of larger magnitude."""
    value = tensor[tuple(index)].item()
    if isinstance(value, complex):
        return max(value.real, value.imag, key=lambda part: math.inf if math.isnan(part) else abs(part))
    return float(value)


def tensors_in(nest: Any) -> Iterator[Tensor]:
    """The tensors of a nest, in order."""
    return items_in(nest, Tensor)


def any_bad_in(nest: Any) -> bool:
    """Whether a tensor or a plain number of a nest is NaN or infinite."""
    return any(map(is_bad, tensors_in(nest))) or not all(map(math.isfinite, items_in(nest, float)))


def digest(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    dense = tensor.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{dtype_name(dense.dtype)} {tuple(dense.shape)}".encode())
    if dense.numel():
        flat = dense.reshape(-1).view(torch.uint8) if dense.dtype != torch.bool else dense.reshape(-1).to(torch.uint8)
        storage = bytearray(flat.numel())
        torch.frombuffer(storage, dtype=torch.uint8).copy_(flat)
        sha.update(storage)
    return sha.hexdigest()


def same_values(actual: Tensor, expected: Tensor) -> bool:
    """The same numbers everywhere, two NaNs at the same place counted as equal."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    if torch.equal(actual, expected):
        return True
    if not is_float(actual):
        return False
    a, b = widen(actual), widen(expected)
    return bool(((a == b) | (torch.isnan(a) & torch.isnan(b))).all())


def unravel(flat: int, shape: tuple[int, ...]) -> list[int]:
    """The index of the element that stands at ``flat`` in row-major order."""
    index: list[int] = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return index[::-1]


def first_bad_index(tensor: Tensor) -> list[int]:
    """Index of the first NaN or Inf in row-major order; the tensor must have one."""
    bad = ~finite_mask(tensor.detach())
    return unravel(int(bad.reshape(-1).to(torch.uint8).argmax()), tuple(bad.shape))
