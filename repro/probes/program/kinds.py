"""Of which kind an operator's inputs are where it makes a bad value: by that two faults of one operator are told apart.

The arccosine of 1.0000001, a cosine that was rounded up, is another fault than that of 3.
"""

import math
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import Ref
from ..origin.arithmetic import Again, same_memory
from ..origin.walk import Step, aligned
from ..values.figures import dtype_name, is_float, scalar, widen

ULPS = 16.0  # that rounding may move a number by in a few operators
MOST = 4  # inputs; an operator on a list of parameters has as many as there are parameters
Kinds = tuple[Any, ...]


def kinds_of(step: Step) -> Optional[Kinds]:
    """For each input its dtype, which one it shares its memory with, and of which size its number is; and whether the
    result is finite as soon as the inputs are moved by a few roundings. None for an operator of many inputs.
    """
    refs = step.op.inputs()
    if len(refs) > MOST:
        return None
    shared = [next(at for at, other in enumerate(refs) if same_memory(ref, other)) for ref in refs]
    sizes = [_size(ref, step) for ref in refs]
    names = [dtype_name(ref.dtype) for ref in refs]
    return (*zip(names, shared, sizes), _is_at_the_edge(step))


def _size(ref: Ref, step: Step) -> Optional[str]:
    """Of the number at the element's own place; where there is none, of the largest one."""
    tensor = ref.tensor()
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    place = aligned(ref, step.output, list(step.index))
    return size_of(_largest(tensor) if place is None else scalar(tensor, place), tensor.dtype)


def _largest(tensor: Tensor) -> float:
    wide = widen(tensor.detach()).abs()
    return float(wide.nan_to_num(math.inf, math.inf, math.inf).max())


def size_of(value: float, dtype: torch.dtype) -> str:
    """A word for how large a number is, as its dtype has it."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "infinite"
    if value == 0:
        return "zero"
    eps = float(torch.finfo(dtype).eps)
    return "rounding" if abs(value) < ULPS * eps else "huge" if abs(value) * eps > 1 else "ordinary"


def _is_at_the_edge(step: Step) -> bool:
    """Whether the operator gives a finite number where its inputs are a little smaller, or a little larger."""
    again = Again(step.op, step.output, step.index)

    def moved(sign: float) -> Optional[float]:
        def move(ref: Ref, values: Tensor) -> Tensor:
            if not is_float(values):
                return values
            return (widen(values) * (1 + sign * ULPS * torch.finfo(values.dtype).eps)).to(values.dtype)

        return again.value(move)

    found = (moved(-1.0), moved(1.0))
    return any(value is not None and math.isfinite(value) for value in found)
