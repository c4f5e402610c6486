"""Two experiments on one operator of a whole forward pass: what another precision has there, and whether the fault
goes away without it.
"""

import math
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..observe.watch import Address, OpCall, StopPass, Visitor, Watch, watched
from ..values.figures import finite_mask, is_bad, is_float, scalar, tensors_in, widen
from .walk import LITERAL, UNWRITTEN

# Operators whose non-finite values are meant, or are nobody's yet: they are never repaired.
CHOSEN = tuple("aten." + name + ending for name in sorted(LITERAL | UNWRITTEN) for ending in (".", "_."))


def value_at(
    model: nn.Module, run: Callable[[], Any], address: Address, output: int, index: tuple[int, ...]
) -> Optional[float]:
    """The element ``index`` of the operator's ``output``-th result in this pass; None if the operator or the element
    is not there.
    """
    found: list[float] = []

    def visit(call: OpCall) -> Any:
        result = call.run()
        if call.address == address:
            results = list(tensors_in(result))
            shape = results[output].shape if output < len(results) else ()
            if len(shape) == len(index) and all(at < size for at, size in zip(index, shape)):
                found.append(scalar(results[output], index))
            raise StopPass
        return result

    with watched(model, Watch(visit)):
        run()
    return found[0] if found else None


def without_bad_values(model: nn.Module, run: Callable[[], Any], address: Address) -> Optional[Any]:
    """The model's output when every NaN and Inf that the operator gives is replaced by 0 on the spot; None if it
    never ran.
    """
    met: list[bool] = []

    def visit(call: OpCall) -> Any:
        result = call.run()
        if call.address != address:
            return result
        met.append(True)
        for tensor in tensors_in(result):
            if is_float(tensor):
                repair(tensor)
        return result

    return _watched_output(model, run, visit, met)


def with_only(model: nn.Module, run: Callable[[], Any], address: Address) -> Optional[Any]:
    """The model's output when ``address`` is the only operator that may make bad values; None if it never ran.

    Every other operator that makes a NaN or Inf of finite inputs, or a NaN of inputs that are bad only by -inf, is
    repaired on the spot. What follows from the values of ``address`` is left alone. So a bad output means that this
    operator suffices by itself, also where later ones make the same fault again.
    """
    met: list[bool] = []

    def visit(call: OpCall) -> Any:
        if call.address == address:
            met.append(True)
            return call.run()
        given = [tensor for tensor in tensors_in((call.args, call.kwargs)) if is_float(tensor)]
        sound = all(not bool((torch.isnan(wide) | (wide == math.inf)).any()) for wide in map(widen, given))
        finite_in = sound and not any(map(is_bad, given))
        result = call.run()
        if not sound or call.address.op.startswith(CHOSEN):
            return result
        for tensor in tensors_in(result):
            if is_float(tensor) and (is_bad(tensor) if finite_in else bool(torch.isnan(widen(tensor)).any())):
                repair(tensor)
        return result

    return _watched_output(model, run, visit, met)


def _watched_output(model: nn.Module, run: Callable[[], Any], visit: Visitor, met: list[bool]) -> Optional[Any]:
    """The model's output under a visitor; None if the visitor did not meet its operator."""
    result: list[Any] = []
    with watched(model, Watch(visit)):
        result.append(run())
    return result[0] if met and result else None


def repair(tensor: Tensor) -> Tensor:
    """0 in place of every NaN and Inf, in the operator's own result."""
    return tensor.copy_(
        torch.where(torch.isfinite(tensor), tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
    )


def effect(before: Tensor, after: Optional[Tensor]) -> str:
    """ "repaired", "changed" or "unchanged": what a repair did to the set of bad elements of the model's output."""
    if after is None or after.shape != before.shape:
        return "unchanged"
    bad_before, bad_after = ~finite_mask(before), ~finite_mask(after)
    if not bool(bad_after.any()):
        return "repaired"
    return "unchanged" if torch.equal(bad_before, bad_after) else "changed"


def finite_or_none(value: Optional[float]) -> Optional[float]:
    return value if value is not None and not math.isnan(value) else None
