"""Infinities that the code writes down, and nothing but passes on: a mask over logits, a box that is none.

This is asked by experiment. The pass is made again with a finite number wherever the code writes an infinity, and then
with another one. A place of the output that follows both was written, or added, and not computed.
"""

import functools
import math
from typing import Any, Callable

import torch
from torch import Tensor, nn

from ..values.figures import finite_mask, is_bad, is_float, tensors_in, widen
from .tape import plain, unreadable
from .watch import OpCall, Watch, watched

NUMBERS = (4096.0, 8192.0)  # powers of two, which float16 and bfloat16 hold, and far from what is added to a mask
LIFTS = frozenset(("lift_fresh", "lift_fresh_copy"))  # torch.tensor hands its number to these
LITERAL = LIFTS | frozenset((  # what only passes on a number
    "full", "full_like", "new_full", "fill", "scalar_tensor", "masked_fill", "where", "constant_pad_nd",
))  # fmt: skip
WRITING = LITERAL - LIFTS | frozenset(("index_fill", "scatter", "eq", "ne"))  # of which an argument is the number
Outputs = dict[str, Tensor]


def written_down(model: nn.Module, outputs: Callable[[], Outputs], seen: Outputs, main: str) -> frozenset[str]:
    """The names of the outputs whose only bad values are infinities that the code wrote there.

    The main output counts only where it holds -inf and each of its rows a number too: of a row of -inf, or with +inf,
    nothing can be chosen.

    Args:
        model: The module, with its hooks as they are.
        outputs: Makes the same pass again, and gives its floating outputs by name.
        seen: What they were.
        main: The name of the one that matters most.
    """
    asked = {name: tensor for name, tensor in seen.items() if _may_be_meant(tensor, name == main)}
    if not asked:
        return frozenset()
    again: list[Outputs] = []
    for number in NUMBERS:
        with watched(model, Watch(functools.partial(_run_with, number=number))):
            again.append(outputs())
    return frozenset(name for name, tensor in asked.items() if _follows(tensor, [found.get(name) for found in again]))


def _may_be_meant(tensor: Tensor, is_main: bool) -> bool:
    if tensor.is_complex() or not is_bad(tensor) or bool(torch.isnan(tensor).any()):
        return False
    finite = finite_mask(tensor)
    if not is_main:
        return bool(finite.any())
    return tensor.dim() > 0 and not bool((tensor == math.inf).any()) and bool(finite.any(-1).all())


def _run_with(call: OpCall, number: float) -> Any:
    """The operator's result, with a finite number for each infinity that it is to write."""
    name = call.address.base_name
    if name in WRITING:
        call.args = tuple(_finite(value, number) for value in call.args)
        call.kwargs = {key: _finite(value, number) for key, value in call.kwargs.items()}
    result = call.run()
    if name in LIFTS:
        for tensor in tensors_in(result):
            if is_float(tensor) and unreadable(tensor) is None and is_bad(tensor) and not tensor.is_complex():
                values = plain(tensor)
                values.copy_(torch.where(torch.isinf(values), torch.sign(values) * number, values))
    return result


def _finite(value: Any, number: float) -> Any:
    return math.copysign(number, value) if isinstance(value, float) and math.isinf(value) else value


def _follows(tensor: Tensor, found: list[Any]) -> bool:
    """Whether each infinity is the number of its sign, or that and a much smaller one, each time; the rest finite."""
    if any(other is None or other.shape != tensor.shape or is_bad(other) for other in found):
        return False
    infinite = torch.isinf(tensor)
    sign = torch.sign(tensor[infinite]).double()
    rests = [widen(other[infinite]).double() * sign - number for other, number in zip(found, NUMBERS)]
    step = NUMBERS[1] - NUMBERS[0]
    return bool((rests[0].abs() < step / 2).all() and ((rests[1] - rests[0]).abs() < step / 100).all())
