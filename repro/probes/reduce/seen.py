"""What the last operator of a recording shows by itself: the bad value, its mechanism, and whether its inputs are
sound.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Tape
from ..origin.arithmetic import limit_of
from ..origin.attention import is_attention
from ..origin.mechanism import classify, in_float64
from ..origin.outside import literal_in_source
from ..origin.walk import End, Origin, chosen, trace
from ..values.figures import first_bad_index, is_bad, is_float, tensors_in, unravel, widen

MASKED = "masked_row"  # the one mechanism for which -inf in an input is sound, wherever it stands
MASK = frozenset(("neginf",))  # what a mask may hold


@dataclass(frozen=True)
class Seen:
    """What an operator shows at its first bad element that it makes itself.

    value: there. expected: the operator's in float64 from the same inputs, None where it cannot be had. output: which
    of its results. limit: the largest number of its dtype. sound: whether all that is given is finite; the -inf of a
    mask is sound where a masked row is the fault, and in the mask of a fused attention. allowed: of a finite value, how
    far from the expected one it may be.
    """

    mechanism: str
    value: float
    expected: Optional[float]
    output: int
    index: tuple[int, ...]
    limit: float
    sound: bool
    allowed: Optional[float] = None


def last_of(tape: Tape, given: Iterable[Tensor]) -> Optional[Seen]:
    """What the last operator of a recording shows; None where it makes no bad value by itself.

    given: the tensors that came from outside.
    """
    last = tape.ops[-1]
    for position, ref in enumerate(last.outputs):
        values = ref.tensor()
        for index in first_of_each_kind(values):
            origin = chosen(literal_in_source(trace(tape, ref, index)))
            if origin.end is End.BORN and origin.step is not None and origin.step.op is last:
                return _seen(origin, position, list(given))
    return None


def _seen(origin: Origin, position: int, given: list[Tensor]) -> Seen:
    step = origin.step
    assert step is not None  # the caller has seen to it
    mechanism, expected, _ = classify(origin)
    if expected is None and mechanism != MASKED:  # of such a row float64 makes a NaN as well, and that says nothing
        expected = in_float64(step)
    sound = _are_sound(step.op, given, mechanism)
    limit = limit_of(step.output.dtype)
    return Seen(mechanism, step.value, expected, position, tuple(step.index), limit, sound)


def _are_sound(op: Op, given: list[Tensor], mechanism: str) -> bool:
    if is_attention(op):
        return kinds_in(given) <= MASK and not any(is_bad(ref.tensor()) for ref in op.inputs()[:3])
    return kinds_in(given) <= (MASK if mechanism == MASKED else frozenset())


def kinds_in(nest: Any) -> frozenset[str]:
    """Of "nan", "posinf" and "neginf" those that the tensors of a nest hold."""
    found: set[str] = set()
    for tensor in tensors_in(nest):
        if is_bad(tensor):
            wide = widen(tensor)
            masks = {"nan": torch.isnan(wide), "posinf": wide == math.inf, "neginf": wide == -math.inf}
            found.update(kind for kind, mask in masks.items() if bool(mask.any()))
    return frozenset(found)


def first_of_each_kind(tensor: Tensor) -> list[list[int]]:
    """The first NaN, the first +inf and the first -inf, in row-major order; of complex numbers, the first bad one."""
    if not is_float(tensor) or not is_bad(tensor):
        return []
    if tensor.is_complex():
        return [first_bad_index(tensor)]
    wide = widen(tensor.detach()).reshape(-1)
    masks = [mask for mask in (torch.isnan(wide), wide == math.inf, wide == -math.inf) if bool(mask.any())]
    return [unravel(at, tuple(tensor.shape)) for at in sorted(int(mask.to(torch.uint8).argmax()) for mask in masks)]
