"""A part of a call in float64 on the CPU, with its inputs as they were or moved by a rounding."""

import warnings
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..values.figures import is_float, tensors_in
from ..values.nest import rebuild
from .attention import as_mask
from .part import Part

Change = Callable[[Tensor], Tensor]
TO_FLOAT = frozenset(("_softmax", "_log_softmax"))  # their last argument turns float16 into float32, and takes no other


def in_float64(part: Part, change: Optional[Change] = None, as_it_lies: bool = False) -> Optional[list[Tensor]]:
    """The floating results of the part; None where the operator has no float64 kernel on the CPU, or where it does not
    compute in it.

    change: applied to each floating input, in float64, first. as_it_lies: an operator of another library is given
    inputs with the strides that they have, and not contiguous copies: its float64 shares its code, and what that makes
    of strides.
    """

    def make(tensor: Tensor) -> Tensor:
        found = wide(tensor, change)
        return found.contiguous() if part.is_foreign and not as_it_lies else found

    made = run(part, make, torch.float64)
    if made is None or any(tensor.dtype not in (torch.float64, torch.complex128) for tensor in made):
        return None
    return made


def run(part: Part, make: Callable[[Tensor], Tensor], dtype: Optional[torch.dtype] = None) -> Optional[list[Tensor]]:
    """The floating results of the part with other tensors; None where it cannot be run with them.

    dtype: stands for each floating dtype that an argument names; the device is then the CPU.
    """
    args, kwargs = rebuild(part.args, Tensor, make), rebuild(part.kwargs, Tensor, make)
    if dtype is not None:
        args, kwargs = _named(args, dtype), _named(kwargs, dtype)
        if part.name in TO_FLOAT:
            args = (*args[:2], False)
    if part.formula and kwargs.get("mask") is not None:
        kwargs = {**kwargs, "mask": as_mask(part.kwargs["mask"].cpu())}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [tensor for tensor in tensors_in(part.func(*args, **kwargs)) if is_float(tensor)]
    except Exception:  # noqa: BLE001 - no kernel for float64, or none on the CPU: there is no reference
        return None


def wide(tensor: Tensor, change: Optional[Change] = None) -> Tensor:
    """On the CPU, and in float64 where it is floating."""
    values = tensor.detach().cpu()
    if not is_float(values):
        return values
    values = values.to(torch.complex128 if values.is_complex() else torch.float64)
    return values if change is None else change(values)


def _named(nest: Any, dtype: torch.dtype) -> Any:
    def widest(given: torch.dtype) -> torch.dtype:
        return torch.complex128 if given.is_complex else dtype if given.is_floating_point else given

    return rebuild(rebuild(nest, torch.dtype, widest), torch.device, lambda _: torch.device("cpu"))
