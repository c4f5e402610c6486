"""Whether a number that the model holds is what makes the origin bad: a negative variance, a scale of 0.

Two experiments, both on the module of the origin. Given other inputs, it is bad in the same place: so the inputs do not
decide. With one number of its own replaced (by its magnitude, a 0 by 1), it is finite there: so that number does. How
the code is run again is the caller's: a pass of the model, a generation, steps of a training.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.load import Loaded
from ..observe.tape import plain, written_by
from ..observe.watch import Address, OpCall, StopPass, Visitor, Watch, aside, of_this_thread, watched
from ..values.figures import is_float, scalar, tensors_in
from ..values.nest import rebuild
from .passes import Place

MECHANISMS = frozenset(("invalid", "divide_by_zero"))
"""Those of an argument that an operator is not defined for; of any other, the size of all numbers decides."""

Other = Callable[[Tensor], Tensor]
Changed = AbstractContextManager[Any]
"""What is changed while the code runs."""
Value = Callable[[Changed], Optional[float]]
"""The element of the origin where the code is run again with such a change, by the operator's address: what feeds it
may be another one there. None where the operator did not run so.
"""


def decisive(loaded: Loaded, module: str, call: Optional[int], value: Value) -> Optional[dict[str, Any]]:
    """The number of the module that decides: its tensor, index and value, what makes it good ``instead``, and whether
    it is as the file has it. None where it is not one number alone, or the inputs have a part in it.

    module: of the origin. call: which call of it that is; None where it is not known. Its other calls are given their
    own inputs: with other ones before it, a generation may end before it comes to it.
    """
    holder = dict(loaded.model.named_modules()).get(module)
    if holder is None:
        return None
    own = [*holder.named_parameters(recurse=False), *holder.named_buffers(recurse=False)]
    held = [(name, tensor.detach()) for name, tensor in own if is_float(tensor) and not tensor.is_meta]
    if not held:
        return None

    for other in OTHERS:
        changed: list[bool] = []
        found = value(_given(holder, call, other, changed))
        if found is None or math.isfinite(found) or not changed:
            return None
    for name, tensor in held:
        index = _one_element(holder, name, tensor, value)
        if index is not None:
            whole, number = f"{module}.{name}" if module else name, scalar(tensor, index)
            return {
                "tensor": whole, "index": index, "value": number, "instead": abs(number) or 1.0,
                "in_file": whole in loaded.from_file,
            }  # fmt: skip
    return None


def in_a_pass(model: nn.Module, again: Callable[[], Any], address: Address, where: Place) -> Value:
    """Of a pass of the model. where: the element of the origin."""

    def value(changed: Changed) -> Optional[float]:
        visit, found = watching(address, where.output, where.shape, where.index)
        with changed, watched(model, Watch(visit)):
            again()
        return found[0] if found else None

    return value


def watching(
    address: Address, output: Optional[int], shape: tuple[int, ...], index: tuple[int, ...]
) -> tuple[Visitor, list[float]]:
    """A visitor that ends the run at the operator, and the list into which it puts the element of this result; without
    ``output``, of the first one of this shape.
    """
    found: list[float] = []

    def visit(call: OpCall) -> Any:
        result = call.run()
        if call.address == address:
            results = list(tensors_in(result)) or list(written_by(call.func, call.args, call.kwargs))
            own = results if output is None else results[output : output + 1]
            fitting = [item for item in own if tuple(item.shape) == tuple(shape)]
            if fitting:
                found.append(scalar(plain(fitting[0].detach()), index))
            raise StopPass
        return result

    return visit, found


def _shuffled(tensor: Tensor) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0))
    return tensor.flatten()[order.to(tensor.device)].reshape(tensor.shape)


OTHERS: tuple[Other, ...] = (torch.zeros_like, torch.ones_like, torch.neg, _shuffled)


@contextlib.contextmanager
def _given(module: nn.Module, call: Optional[int], other: Other, changed: list[bool]) -> Iterator[None]:
    """The module is given other numbers in this call, or in all; token ids and the like in another order. ``changed``
    stays empty where it is given no tensor.
    """
    calls, is_here = itertools.count(), of_this_thread()

    def change(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or not tensor.numel():
            return tensor
        changed.append(True)
        return other(tensor) if is_float(tensor) else _shuffled(tensor)

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if not is_here() or (call is not None and next(calls) != call):
            return None
        with aside():
            return rebuild(args, Tensor, change), rebuild(kwargs, Tensor, change)

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _holding(module: nn.Module, name: str, values: Tensor) -> Iterator[None]:
    """Whenever it is called, the module holds these values, also where a pass begins by putting its buffers back."""
    written: list[tuple[Tensor, Tensor]] = []

    def before(_: nn.Module, args: Any) -> None:
        with aside(), torch.no_grad():
            now = getattr(module, name).detach()
            if not torch.equal(now, values):  # a second call must not write to what the first one's gradients need
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


def _one_element(holder: nn.Module, name: str, tensor: Tensor, value: Value) -> Optional[list[int]]:
    """The element that makes it finite where it alone is replaced; None where there is no such one."""
    before = tensor.clone()
    sound = torch.where(before == 0, torch.ones_like(before), before.abs()).flatten()
    places = (sound != before.flatten()).nonzero().flatten()

    def is_finite_with(chosen: Tensor) -> bool:
        values = before.flatten().clone()
        values[chosen] = sound[chosen]
        found = value(_holding(holder, name, values.reshape(before.shape)))
        return found is not None and math.isfinite(found)

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
