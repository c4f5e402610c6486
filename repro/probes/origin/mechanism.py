"""What happened at the operator to blame, in IEEE 754's words, by running it again.

In float64 at the point; where that is infinite, at points near it and at smaller and larger ones; where that is finite,
in the operator's own dtype on inputs that are scaled down. No name of an operator decides anything.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..observe.tape import Ref
from ..values.figures import dtype_name, is_float, widen
from .arithmetic import Again, Tensors
from .arithmetic import limit_of as limit_of
from .attention import are_finite, is_attention, result_of, row_of
from .walk import Origin, Step

Answer = tuple[str, Optional[float], Optional[str]]

NEAR = 2.0**-20  # how far a neighbouring point is: far enough to be another number in any dtype that float64 holds
STEPS_FROM_ZERO = (2.0**-20, 0.25, 1.0, 1024.0)
HUGE = 2.0**1000  # a neighbour of an overflow is at least that large; one of a pole is not
POWERS = (-10, -40, -150, -600, -1000, 10, 40, 150, 600, 1000)
DOWN = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 100)  # powers of two by which inputs are made smaller in their own dtype
ROUNDINGS = 64  # roundings of a sum, each of the size of its magnitudes
AGREE = 0.05  # how far from float64 a scaled-down result may be: rounding of a sum in the narrowest dtype


def in_float64(step: Step, change: Callable[[Tensor], Tensor] = lambda values: values) -> Optional[float]:
    """The value that the same operator gives at the same place, from the same inputs, in float64 on the CPU.

    change: applied to each floating input first. None where the operator cannot run so: no float64 kernel, or bound to
    its device; then there is no reference, and none is claimed.
    """
    return _again(step).value(lambda ref, values: change(values) if is_float(values) else values, wide=True)


def _again(step: Step) -> Again:
    return Again(step.op, step.output, step.index)


def classify(origin: Origin) -> Answer:
    """(mechanism, float64 value of the operator, note) for an operator that made a bad value by itself."""
    step = origin.step
    if step is None:
        return "unknown", None, None
    if origin.literal is not None:
        return "literal", None, literal_note(origin.literal, step.output.dtype)
    if is_attention(step.op):
        return _attention(step)
    if origin.masked_row:
        return "masked_row", None, "every score of the row is -inf"
    if not step.output.dtype.is_floating_point and not step.output.dtype.is_complex:
        return "unknown", None, "the value is not one of a floating dtype"
    reference = in_float64(step)
    limit = limit_of(step.output.dtype)
    if reference is None:
        return (
            "unknown",
            None,
            "the operator cannot be run in float64 on the CPU, so there is nothing to hold it against",
        )
    if math.isnan(reference):
        if _is_finite(_at_most(step, 2.0**200)):
            return "overflow", reference, "float64 arithmetic overflows as well"
        return "invalid", reference, None
    if math.isinf(reference):
        return _infinite(step, reference)
    if abs(reference) > limit:
        return "overflow", reference, None
    mechanism, note = _inside(step, lambda change: in_float64(step, change))
    return mechanism, reference, note


def decided_by_integers(step: Step) -> bool:
    """Whether the operator gives a finite result at this element when the integers that it is given are all 0: whether
    labels, lengths or indices decide. An operator that refuses such integers says nothing.
    """
    if not any(map(_is_integer, step.op.inputs())):
        return False
    value = _again(step).value(lambda ref, values: torch.zeros_like(values) if _is_integer(ref) else values)
    return value is not None and math.isfinite(value)


def _is_integer(ref: Ref) -> bool:
    return not (ref.dtype.is_floating_point or ref.dtype.is_complex or ref.dtype == torch.bool)


def literal_note(number: float, dtype: torch.dtype) -> str:
    """The number, and the limit where it is one that another dtype would hold."""
    given = f"the code gives the number {number:.6g} to the operator"
    return f"{given}; {dtype_name(dtype)} ends at {limit_of(dtype):.6g}" if math.isfinite(number) else given


# --- infinite in float64 as well ---------------------------------------------------------------------------------


def _infinite(step: Step, reference: float) -> Answer:
    """A pole, where points near by are finite; an overflow, where smaller or larger ones are."""
    if _is_finite_near(step):
        return "divide_by_zero", reference, None
    if _is_finite_somewhere(step):
        return "overflow", reference, "float64 arithmetic overflows as well"
    note = "it is infinite for all finite inputs that were tried, near and far: the logarithm of 0, or a division by 0"
    return "divide_by_zero", reference, note


def _is_finite_near(step: Step) -> bool:
    """Whether the operator is finite next to the point: with one operand a little larger or smaller, or with another
    number in place of its zeros.
    """
    again = _again(step)
    for sign in (1.0, -1.0):
        value = _moved(again, lambda number, sign=sign: number * (1 + sign * NEAR), lambda number: number != 0)
        if any(_is_finite(found) and abs(found or 0) < HUGE for found in value):
            return True
        for size in STEPS_FROM_ZERO:
            found = _moved(again, lambda number, to=sign * size: number * 0 + to, lambda number: number == 0)
            if any(map(_is_finite, found)):
                return True
    return False


def _moved(again: Again, to: Callable[..., Any], which: Callable[..., Any]) -> Iterator[Optional[float]]:
    """The value in float64 with one operand after the other changed where ``which`` holds; the Python numbers last."""

    def tensors_of(only: Ref) -> Tensors:
        def change(ref: Ref, values: Tensor) -> Tensor:
            if ref is not only:
                return values
            wide = values if is_float(values) else values.to(torch.float64)
            return torch.where(which(wide), to(wide), wide)

        return change

    refs = {id(ref): ref for ref in again.op.inputs() if ref.dtype != torch.bool}
    for ref in refs.values():
        wide = ref.tensor()
        if bool(which(wide).any()):
            yield again.value(tensors_of(ref), wide=True)
    if any(which(number) for number in again.numbers()):
        yield again.value(None, lambda number: to(float(number)) if which(number) else number, wide=True)


def _is_finite_somewhere(step: Step) -> bool:
    """Whether the operator is finite once all its operands, or one of them, are scaled down or up."""
    again = _again(step)
    refs = again.inputs()
    for only in (None, *refs):
        for power in POWERS:

            def scaled(ref: Ref, values: Tensor, power: int = power, only: Optional[Ref] = only) -> Tensor:
                return values * 2.0**power if is_float(values) and only in (None, ref) else values

            if _is_finite(again.value(scaled, wide=True)):
                return True
    return False


def _at_most(step: Step, size: float) -> Optional[float]:
    """The value in float64 with all inputs scaled down so that none is larger than ``size``; None where none is."""
    largest = _largest(step)
    if largest <= size:
        return None
    return in_float64(step, lambda values: values * (size / largest))


# --- finite in float64, and in the dtype's range -----------------------------------------------------------------


def _inside(step: Step, exact: Callable[[Callable[[Tensor], Tensor]], Optional[float]]) -> tuple[str, str]:
    """(mechanism, note) of a bad value where float64 gives one that the dtype holds: what happened on the way.

    exact: the reference for changed inputs. A partial result that overflows does so for larger inputs, too, and not for
    small ones, where the operator agrees with float64. A kernel that is wrong has no such order.
    """
    again = _again(step)
    from_finite = "from the same finite inputs, float64 arithmetic gives a finite result in the dtype's range"

    def own(factor: float) -> Optional[float]:
        if factor == 1.0:
            return again.value()
        return again.value(lambda ref, values: values * factor if is_float(values) else values)

    once = own(1.0)
    if once is None or math.isfinite(once):
        return "unknown", "float64 gives a finite result here, and so does the operator when it is run again"
    if not _can_overflow(step) or _is_finite(own(1.25)) or _is_finite(own(2.0)):
        return "kernel", from_finite
    finite = None
    for power in DOWN:
        value = own(2.0**-power)
        if value is None or not math.isfinite(value):
            continue
        wanted = exact(functools.partial(torch.mul, other=2.0**-power))
        size = exact(functools.partial(_small_magnitudes, power=power))
        small = f"on inputs 2**{power} times smaller the operator"
        if _agree(value, wanted, size, step.output.dtype):
            partial = "the result fits, a partial result inside the operator does not"
            return "overflow", f"{partial}: {small} agrees with float64"
        finite = finite or f"{small} gives {value:.6g}, and float64 arithmetic something else"
    return ("unknown", finite) if finite else ("kernel", from_finite)


def _small_magnitudes(values: Tensor, power: int) -> Tensor:
    return values.abs() * 2.0**-power


def _agree(value: Optional[float], wanted: Optional[float], size: Optional[float], dtype: torch.dtype) -> bool:
    """Whether a value is float64's up to rounding. size: what float64 gives for the magnitudes of the inputs, which is
    what a sum that cancels is rounded by.
    """
    if value is None or wanted is None:
        return False
    limits = torch.finfo(dtype)
    rounding = limits.eps * ROUNDINGS * abs(size) if size is not None and math.isfinite(size) else 0.0
    return math.isclose(value, wanted, rel_tol=AGREE, abs_tol=max(rounding, limits.tiny))


def _can_overflow(step: Step) -> bool:
    """Whether the inputs are large enough for any partial result to be beyond the dtype: a sum of their cubes, or an
    exponential.
    """
    largest, limit = _largest(step), limit_of(step.output.dtype)
    count = max((math.prod(ref.shape) for ref in step.op.inputs()), default=1)
    return largest > math.log(limit) or max(largest, 1.0) ** 3 * max(count, 1) > limit


def _largest(step: Step) -> float:
    """The largest finite magnitude among the inputs."""
    largest = 0.0
    for ref in _again(step).inputs():
        wide = widen(ref.tensor()).abs()
        wide = wide[torch.isfinite(wide)]
        largest = max(largest, float(wide.max()) if wide.numel() else 0.0)
    return largest


def _is_finite(value: Optional[float]) -> bool:
    return value is not None and math.isfinite(value)


# --- fused attention ---------------------------------------------------------------------------------------------


def _attention(step: Step) -> Answer:
    """A fused attention operator, held against its definition instead of against itself."""

    def exact(change: Optional[Callable[[Tensor], Tensor]] = None) -> Optional[float]:
        row = row_of(step.op, step.output, step.index, change)
        return None if row is None else result_of(row)

    row = row_of(step.op, step.output, step.index)
    if row is None or not are_finite(step.op):
        return "unknown", None, "not all arguments of this attention are known here, so nothing is held against it"
    if row.is_masked:
        return "masked_row", None, "no key is left for this query: the mask excludes all of them"
    reference, limit = result_of(row), limit_of(step.output.dtype)
    if not math.isfinite(reference):
        return "invalid", reference, None
    if abs(reference) > limit:
        return "overflow", reference, None
    mechanism, note = _inside(step, exact)
    raw = float(row.raw.abs().max())
    if mechanism == "overflow" and raw > limit:
        note = f"a score of {raw:.6g} before scaling is beyond the dtype"
    return mechanism, reference, note
