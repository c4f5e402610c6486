"""Whether a number that the model holds is what makes the origin bad: a negative variance, a scale of 0.

Two experiments, both on the module of the origin. Given other inputs, it is bad in the same place: so the inputs do not
decide. With one number of its own replaced (by its magnitude, a 0 by 1), it is finite there: so that number does.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.load import Loaded
from ..observe.tape import plain, written_by
from ..observe.watch import Address, OpCall, StopPass, Watch, aside, watched
from ..values.figures import is_float, scalar, tensors_in
from ..values.nest import rebuild
from .passes import Place

MECHANISMS = frozenset(("invalid", "divide_by_zero"))
"""Those of an argument that an operator is not defined for; of any other, the size of all numbers decides."""

Other = Callable[[Tensor], Tensor]


def decisive(loaded: Loaded, again: Callable[[], Any], address: Address, where: Place) -> Optional[dict[str, Any]]:
    """The number of the module that decides: its tensor, index and value, what makes it good ``instead``, and whether
    it is as the file has it. None where it is not one number alone, or the inputs have a part in it.

    again: the pass. address: of the operator. where: the element of the origin.
    """
    module = address.module
    holder = dict(loaded.model.named_modules()).get(module)
    if holder is None:
        return None

    def value() -> Optional[float]:
        return _value_at(loaded.model, again, address, where)

    def is_finite() -> bool:
        found = value()
        return found is not None and math.isfinite(found)

    for other in OTHERS:
        with _given(holder, other) as changed:
            found = value()
            if found is None or math.isfinite(found) or not changed:
                return None
    for name, tensor in [*holder.named_parameters(recurse=False), *holder.named_buffers(recurse=False)]:
        if not is_float(tensor) or tensor.is_meta:
            continue
        index = _one_element(holder, name, tensor.detach(), is_finite)
        if index is not None:
            whole, held = f"{module}.{name}" if module else name, scalar(tensor.detach(), index)
            return {
                "tensor": whole, "index": index, "value": held, "instead": abs(held) or 1.0,
                "in_file": whole in loaded.from_file,
            }  # fmt: skip
    return None


def _value_at(model: nn.Module, again: Callable[[], Any], address: Address, where: Place) -> Optional[float]:
    """The element in this pass, by the operator's address: what feeds it may be another one here."""
    found: list[float] = []

    def visit(call: OpCall) -> Any:
        result = call.run()
        if call.address == address:
            results = list(tensors_in(result)) or list(written_by(call.func, call.args, call.kwargs))
            if where.output < len(results) and tuple(results[where.output].shape) == tuple(where.shape):
                found.append(scalar(plain(results[where.output].detach()), where.index))
            raise StopPass
        return result

    with watched(model, Watch(visit)):
        again()
    return found[0] if found else None


def _shuffled(tensor: Tensor) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))
    return tensor.flatten()[order.to(tensor.device)].reshape(tensor.shape)


OTHERS: tuple[Other, ...] = (torch.zeros_like, torch.ones_like, torch.neg, _shuffled)


@contextlib.contextmanager
def _given(module: nn.Module, other: Other) -> Iterator[list[bool]]:
    """The module is given other numbers; token ids and the like in another order. The list is empty where it was given
    no tensor.
    """
    changed: list[bool] = []

    def change(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or not tensor.numel():
            return tensor
        changed.append(True)
        return other(tensor) if is_float(tensor) else _shuffled(tensor)

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        with aside():
            return rebuild(args, Tensor, change), rebuild(kwargs, Tensor, change)

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield changed
    finally:
        handle.remove()


@contextlib.contextmanager
def _holding(module: nn.Module, name: str, values: Tensor) -> Iterator[None]:
    """Whenever it is called, the module holds these values, also where a pass begins by putting its buffers back."""
    written: list[tuple[Tensor, Tensor]] = []

    def before(_: nn.Module, args: Any) -> None:
        with aside(), torch.no_grad():
            now = getattr(module, name).detach()
            written.append((now, now.clone()))
            now.copy_(values)

    handle = module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for tensor, was in reversed(written):
                tensor.copy_(was)


def _one_element(holder: nn.Module, name: str, tensor: Tensor, is_finite: Callable[[], bool]) -> Optional[list[int]]:
    """The element that makes it finite where it alone is replaced; None where there is no such one."""
    before = tensor.clone()
    sound = torch.where(before == 0, torch.ones_like(before), before.abs()).flatten()
    places = (sound != before.flatten()).nonzero().flatten()

    def is_finite_with(chosen: Tensor) -> bool:
        values = before.flatten().clone()
        values[chosen] = sound[chosen]
        with _holding(holder, name, values.reshape(before.shape)):
            return is_finite()

    if not places.numel() or not is_finite_with(places):
        return None
    while places.numel() > 1:
        halves = places.tensor_split(2)
        places = next((half for half in halves if is_finite_with(half)), places[:0])
    if not places.numel():
        return None
    index: list[int] = []
    left = int(places[0])
    for size in reversed(before.shape):
        left, at = divmod(left, size)
        index.insert(0, at)
    return index
