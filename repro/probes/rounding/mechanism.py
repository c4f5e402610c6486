"""By which mechanism a finite result is wrong: what the operator would have given without one of its arguments, with
another one, at another place, in a narrower dtype, is held against what it gave. What nothing explains is a kernel that
disagrees with its reference.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..values.figures import tensors_in
from .check import Departure
from .part import PRODUCTS, Part
from .reference import in_float64

EXPLAINED = 0.02
"""The share of an error that may be left where something explains it."""
ROUNDED = 0.35
"""Of an epsilon: what rounding to nearest leaves, as a root mean square. It must be well below the error itself."""
ALIKE = 4.0
"""How much larger or smaller than an emulated error one of the same kind may be."""
LEANING = 0.4
"""The mean of an error over its root mean square, up to which it goes both ways."""
TOGETHER = 0.5
"""The correlation from which on two errors go the same way."""
SAME = 0.98
"""The correlation of an error with the numbers that are not in it."""
LONGEST = 1 << 13
"""Numbers that are added up one by one to see what a narrow accumulator would make of them."""
MANTISSA = {"float16": 10, "bfloat16": 7, "TensorFloat-32": 10}
"""Bits behind the leading one of what inputs may be rounded to inside of a kernel."""
EPSILONS = (0.0, 1e-3, 1e-5, 1e-6, 1e-8, 1e-12)
"""Of norms, as layers of PyTorch and Transformers have them by default."""

Found = tuple[str, Optional[str]]


def mechanism_of(departure: Departure) -> Found:
    """(mechanism, a sentence that says what was found)."""
    seen, part = departure.held, departure.part
    if seen.swallowed:
        return "swallowed_nan", f"float64 of the same inputs is NaN there, and the operator gives {seen.value:.6g}"
    if seen.made:
        return "kernel", f"float64 of the same inputs is {seen.reference:.6g}"
    actual, reference = departure.actual, departure.reference
    if part.undefined is not None and bool(part.undefined.any()):
        defined = ~part.undefined.cpu().expand(reference.shape)
        actual, reference = torch.where(defined, actual, 0.0), torch.where(defined, reference, 0.0)
    finite = torch.isfinite(actual) & torch.isfinite(reference)
    actual, reference = torch.where(finite, actual, 0.0), torch.where(finite, reference, 0.0)
    for rule in (_strides, _argument, _untouched, _factor, _elsewhere, _saturated, _narrow):
        found = rule(departure, actual, reference)
        if found is not None:
            return found
    return "kernel", None


def _explains(departure: Departure, actual: Tensor, other: Optional[Tensor], reference: Tensor) -> bool:
    """Whether another result is what the operator gave: as rounding allows, or with next to nothing of the error left,
    where the result that should be is not.
    """
    if other is None or other.shape != actual.shape or not bool(torch.isfinite(other).all()):
        return False
    epsilon = torch.finfo(getattr(torch, departure.dtype)).eps
    size = reference.abs()
    for each in (torch.ones_like(size), 1 / (size + size.mean() * epsilon)):  # as they are, and in roundings of each
        left, error = _norm((actual - other) * each), _norm((actual - reference) * each)
        if left <= EXPLAINED * error or left <= ROUNDED * min(epsilon * _norm(actual * each), 2 * error):
            return True
    return False


def _strides(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """What the operator gives of the same numbers where they lie in another order."""
    part = departure.part
    if not part.is_foreign or all(tensor.is_contiguous() for tensor in tensors_in((part.args, part.kwargs))):
        return None
    made = in_float64(part, as_it_lies=True)
    other = None if made is None or departure.result >= len(made) else made[departure.result]
    if not _explains(departure, actual, other, reference):
        return None
    return "wrong_position", "it ignores the strides of its inputs: of contiguous copies of them it gives other numbers"


# --- another argument --------------------------------------------------------------------------------------------


def _argument(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """An argument that is not taken into account, or another number in its place."""
    for words, name, part in _variants(departure.part):
        made = in_float64(part)
        other = None if made is None or departure.result >= len(made) else made[departure.result]
        if _explains(departure, actual, other, reference):
            return name, words
    return None


def _variants(part: Part) -> Iterator[tuple[str, str, Part]]:
    """The call without each of its arguments that has a default or may be left out, and with other numbers for those
    that are numbers.
    """
    if part.formula:
        yield from _attentions(part)
        return
    schema = part.func._schema  # type: ignore[attr-defined]
    for position, argument in enumerate(schema.arguments):
        keyword = position >= len(part.args)
        if keyword and argument.name not in part.kwargs:
            continue
        value = part.kwargs[argument.name] if keyword else part.args[position]
        optional = str(argument.type) == "Optional[Tensor]"
        if optional and value is not None:
            yield (
                f"it is what the operator gives without {argument.name}",
                "ignored_argument",
                _with(part, position, argument.name, None, keyword),
            )
        elif argument.has_default_value() and value != argument.default_value and not isinstance(value, Tensor):
            yield (
                f"it is what the operator gives without {argument.name}={value}",
                "ignored_argument",
                _with(part, position, argument.name, argument.default_value, keyword),
            )
        elif isinstance(value, bool):
            yield (
                f"it is what the operator gives with {argument.name}={not value}",
                "ignored_argument",
                _with(part, position, argument.name, not value, keyword),
            )
        elif argument.name in ("eps", "epsilon") and isinstance(value, float):
            for other in EPSILONS:
                if other != value:
                    yield (
                        f"it is what the operator gives with {argument.name}={other:g}, and {value:g} was given",
                        "wrong_constant",
                        _with(part, position, argument.name, other, keyword),
                    )


def _attentions(part: Part) -> Iterator[tuple[str, str, Part]]:
    """The same of a fused attention, by its formula."""
    given = part.kwargs
    without: tuple[tuple[str, Any, str], ...] = (
        ("mask", None, "without its mask"),
        ("scale", None, "without scale, by its default"),
        ("scale", 1.0, "with no scale at all"),
        ("is_causal", False, "without is_causal"),
    )
    for name, value, words in without:
        if given[name] is not None and given[name] is not value:
            yield (
                f"it is what the operator gives {words}",
                "ignored_argument",
                replace(part, kwargs={**given, name: value}),
            )
    if given["scale"] is None:
        yield (
            "it is what the operator gives with no scale at all",
            "ignored_argument",
            replace(part, kwargs={**given, "scale": 1.0}),
        )
    if not given["is_causal"] and given["query"].shape[2] == given["key"].shape[2]:
        yield (
            "it is causal, which was not asked for",
            "wrong_constant",
            replace(part, kwargs={**given, "is_causal": True}),
        )


def _with(part: Part, position: int, name: str, value: Any, keyword: bool) -> Part:
    if keyword:
        return replace(part, kwargs={**part.kwargs, name: value})
    args = list(part.args)
    args[position] = value
    return replace(part, args=tuple(args))


# --- another number, another place -------------------------------------------------------------------------------


def _untouched(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """An argument as it was given."""
    for tensor in tensors_in((departure.part.args, departure.part.kwargs)):
        if tensor.shape == actual.shape and torch.equal(tensor.detach().cpu().to(actual.dtype), actual):
            return "kernel", "it gives the very numbers that it was given"
    return None


def _factor(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """All numbers times one factor, or with one number added; not told of one and the same number throughout."""
    square = float((reference * reference).sum())
    if square == 0 or reference.unique().numel() < 2:
        return None
    factor = float((actual * reference).sum()) / square
    if abs(factor) > 1e-6 and _explains(departure, actual, factor * reference, reference):
        return "wrong_constant", f"every number is {factor:.6g} times what float64 gives"
    offset = float((actual - reference).mean())
    if actual.numel() > 2 and _explains(departure, actual, reference + offset, reference):
        return "wrong_constant", f"every number is what float64 gives, and {offset:.6g}"
    return None


def _elsewhere(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """The right numbers at other places: one place along a dimension, or two dimensions in place of each other."""
    for dim in range(actual.dim()):
        size = actual.shape[dim]
        if size < 2:
            continue
        for name, by in (("before", 1), ("behind", -1)):
            rolled = reference.roll(by, dim)
            inner = (slice(1, None) if by == 1 else slice(None, -1),)
            cut = (slice(None),) * dim + inner
            if size > 2 and _explains(departure, actual[cut], rolled[cut], reference[cut]):
                return "wrong_position", f"each number is that of the place {name} it, along dimension {dim}"
            if _explains(departure, actual, rolled, reference):
                return "wrong_position", f"each number is that of the place {name} it, along dimension {dim}"
        for other in range(dim + 1, actual.dim()):
            swapped = reference.transpose(dim, other).reshape(actual.shape)
            if _explains(departure, actual, swapped, reference):
                return "wrong_position", f"dimensions {dim} and {other} stand in place of each other"
    return None


# --- a narrower number -------------------------------------------------------------------------------------------


def _saturated(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """What float64 gives, cut off at the largest or smallest number of the result."""
    high, low = float(actual.max()), float(actual.min())
    beyond = (reference > high * (1 + 1e-6)) | (reference < low)
    if bool(beyond.any()) and not bool(beyond.all()):
        clipped = reference.clamp(low, high)
        if int(beyond.sum()) > 1 and _explains(departure, actual, clipped, reference):
            return "saturation", f"numbers beyond {max(abs(high), abs(low)):.6g} are cut off there"
    return None


def _narrow(departure: Departure, actual: Tensor, reference: Tensor) -> Optional[Found]:
    """Inputs rounded to a narrower dtype, or sums kept in one."""
    for name, bits in MANTISSA.items():
        made = in_float64(departure.part, lambda tensor, bits=bits: _rounded(tensor, bits))  # type: ignore[misc]
        other = None if made is None or departure.result >= len(made) else made[departure.result]
        if other is not None and other.shape == actual.shape:
            left, error = _norm(actual - other), _norm(actual - reference)
            if left < error / 8:
                return "narrow_accumulation", f"it is what inputs rounded to {name} give"
    lost = _left_out(departure, actual - reference)
    if lost is not None:
        return "kernel", f"what is to be added up at place {lost} is left out"
    emulated = _added_up(departure)
    if emulated is None:
        return None
    for name, added in emulated:
        theirs, ours = added - reference, actual - reference
        small, large = sorted((_norm(theirs), _norm(ours)))
        if small > 0 and large / small < ALIKE and _is_alike(theirs, ours):
            return "narrow_accumulation", f"the error is as large as that of a sum kept in {name}"
    return None


def _left_out(departure: Departure, error: Tensor) -> Optional[int]:
    """The place whose numbers a sum does not have."""
    part = departure.part
    if part.name not in ("sum", "mean"):
        return None
    summands = part.args[0].detach().cpu().double().reshape(-1, part.args[0].shape[-1])
    if error.numel() != summands.shape[0] or error.numel() < 3:
        return None
    flat = error.reshape(-1, 1)
    alike = (flat * summands).sum(0).abs() / (_norm(flat) * summands.square().sum(0).sqrt() + 1e-300)
    place = int(alike.argmax())
    return place if float(alike[place]) > SAME else None


def _is_alike(theirs: Tensor, ours: Tensor) -> bool:
    """Whether an error goes both ways, as roundings do, or goes the emulated one's way: a sum that no longer grows."""
    leaning = abs(float(ours.mean())) / math.sqrt(float(ours.square().mean()))
    together = float((theirs * ours).sum()) / (_norm(theirs) * _norm(ours))
    return leaning < LEANING or together > TOGETHER


def _rounded(tensor: Tensor, bits: int) -> Tensor:
    """Each number to ``bits`` bits behind the leading one."""
    mantissa, exponent = torch.frexp(tensor)
    scale = 2.0 ** (bits + 1)
    return torch.ldexp((mantissa * scale).round() / scale, exponent)


def _added_up(departure: Departure) -> Optional[list[tuple[str, Tensor]]]:
    """Of a product or a sum, the same added up one by one in narrower dtypes; None for another operator."""
    part = departure.part
    name = part.name
    dtypes = [torch.float16, torch.bfloat16] if departure.dtype == "float32" else [getattr(torch, departure.dtype)]
    if departure.dtype == "float32":
        dtypes.append(torch.float32)
    if name in PRODUCTS:
        at_left, at_right, at_added = PRODUCTS[name]
        left, right = (part.args[at].detach().cpu().float() for at in (at_left, at_right))
        if left.shape[-1] > LONGEST:
            return None
        found = []
        for dtype in dtypes:
            total = torch.zeros(*left.shape[:-1], right.shape[-1], dtype=dtype)
            for at in range(left.shape[-1]):
                total = (total + (left[..., at : at + 1] * right[..., at : at + 1, :]).to(dtype)).to(dtype)
            made = total.double()
            if at_added is not None:
                made = made * float(part.kwargs.get("alpha", 1)) + part.args[at_added].detach().cpu().double() * float(
                    part.kwargs.get("beta", 1)
                )
            found.append((str(dtype).replace("torch.", ""), made))
        return found
    if name in ("sum", "mean") and len(part.args) > 1 and list(part.args[1] or ()) in ([-1], [part.args[0].dim() - 1]):
        given = part.args[0].detach().cpu().float()
        if given.shape[-1] > LONGEST:
            return None
        found = []
        for dtype in dtypes:
            total = torch.zeros(given.shape[:-1], dtype=dtype)
            for at in range(given.shape[-1]):
                total = (total + given[..., at].to(dtype)).to(dtype)
            made = total.double() / (given.shape[-1] if name == "mean" else 1)
            found.append((str(dtype).replace("torch.", ""), made.reshape(departure.reference.shape)))
        return found
    return None


def _norm(values: Tensor) -> float:
    return math.sqrt(float(values.square().sum()))
