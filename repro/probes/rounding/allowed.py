"""What rounding allows: how far the result of one operator may be from float64 of the same inputs.

Three things add up for each element. The result is rounded to its dtype. What is computed inside is rounded too, and
that moves the result as much as a rounding of the inputs does: this is measured, with the inputs moved at random by one
rounding (Monte Carlo arithmetic; Parker, "Monte Carlo Arithmetic", 1997), and grows with the square root of how many
numbers are added up (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019), or, where these
are equal, with how many they are. And a number far smaller than its neighbours may be off by a rounding of theirs.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from ..values.figures import is_float, tensors_in, unravel
from ..values.nest import items_in, rebuild
from .ordered import one_by_one
from .part import Part
from .reference import Change, in_float64
from .reference import wide as wide_of
from .settings import permitted

FINAL = 0.75
"""Units in the last place by which a result of 16 bits may be off: kernels compute it in float32 and round once, which
is half a unit."""
FUNCTION = 4.0
"""The same of float32 and wider: the vectorised functions of SLEEF, which PyTorch uses, err by up to 3.5 units."""
FLOOR = 4.0
"""Roundings of the whole result's root mean square, by which any element may be off."""
INSIDE = 2.0
"""Times the measured movement, times the square root of the length."""
COARSE = 0.5
"""The same in roundings of the whole result's root mean square, for a first look that measures nothing."""
DRAWS = 4
"""Random movements of the inputs."""
ADDS = {"gelu": lambda x: x.abs(), "erf": torch.ones_like, "logit": torch.ones_like}
"""Functions that add up numbers far larger than their result, with how large these are: gelu is x / 2 (1 + erf), whose
sum is next to nothing where x is low; the CPU's vectorised erf is a formula with an absolute error (Abramowitz and
Stegun, 7.1.26); logit is the logarithm of a quotient near one."""
BY_PRODUCTS = "_euclidean_dist"
"""What torch.cdist runs by default for more than 25 points.
Source: https://docs.pytorch.org/docs/stable/generated/torch.cdist.html (compute_mode)."""
COMPOSED = frozenset(("logit",))  # rounded to the result's dtype inside
WORST = 4.0
"""How far beyond it one element may be before it counts."""
ALL = 0.65
"""The part of it that all elements together may use, as a root mean square; roundings to nearest use 0.46 at most."""
MANY = 64
"""Elements from which on a root mean square says that much."""


PRECISE = frozenset(("cpu", "cuda"))
"""Devices whose kernels of 16 bits compute in float32 and round once, and whose fused attention keeps its scores in
float32 (PyTorch's flash, memory-efficient and CPU kernels). Of others nothing is taken for granted."""


@dataclass(frozen=True)
class Held:
    """One result held against float64.

    ratio: how far it is beyond what rounding allows; above 1 it is no rounding. at: the index of the worst element in
    the part, with its value, float64's, and what rounding allows there. rms: of the error, in units of the dtype's
    epsilon times the reference's root mean square. swallowed: the reference is NaN there and the result a number;
    made: the other way round.
    """

    ratio: float
    at: tuple[int, ...]
    value: float
    reference: float
    rms: float
    allowed: float = 0.0
    swallowed: bool = False
    made: bool = False

    @property
    def is_beyond(self) -> bool:
        return self.ratio > 1 or self.swallowed or self.made


def held(part: Part, number: int, actual: Tensor, reference: Tensor, exact: bool = False) -> Optional[Held]:
    """One floating result of the part held against float64's; None where they cannot be compared.

    number: which of the results. exact: measure what rounding allows even where a coarse bound would do.
    """
    if actual.shape != reference.shape or actual.is_complex() or actual.numel() == 0:
        return None
    wide = actual.detach().cpu().to(torch.float64)
    limit = torch.finfo(actual.dtype)
    undefined = part.undefined
    if undefined is not None and undefined.any():
        defined = ~undefined.cpu().expand(reference.shape)
        wide, reference = torch.where(defined, wide, 0.0), torch.where(defined, reference, 0.0)
    finite = torch.isfinite(wide) & torch.isfinite(reference)
    if not bool(finite.all()):
        odd = _odd(wide, reference, limit)
        if odd is not None:
            return odd
        wide, reference = torch.where(finite, wide, 0.0), torch.where(finite, reference, 0.0)
    error = (wide - reference).abs_()
    size = reference.abs()
    scale = _rms(size)
    inside = _inside(part, actual.dtype)
    final = FINAL if limit.bits < 32 else FUNCTION
    # What a kernel may flush to zero, and one rounding of all.
    floor = FLOOR * inside * scale + _vanishes(part, actual.dtype)
    floor += limit.eps * scale * math.sqrt(_overlapping(part, actual.dtype))
    room = size.mul(final * limit.eps).add_(floor)
    if part.name in ADDS:
        units = float(limit.eps) if part.name in COMPOSED else inside
        room += ADDS[part.name](wide_of(part.args[0])).mul_(FUNCTION * units)
    rms = _rms(error) / (limit.eps * scale + limit.tiny)
    if part.name == BY_PRODUCTS:
        room += _of_products(part, reference, inside)
    coarse = room + COARSE * math.sqrt(part.length) * inside * scale
    if not exact and bool((error <= coarse).all()):
        return _told(error, coarse, wide, reference, rms)
    plain = _of_rounded_numbers(part, number, reference, actual.dtype)
    if plain is not None:
        room += plain
    moved = _moved(part, number, reference, inside)
    if moved is not None:
        room += moved.mul_(INSIDE * math.sqrt(part.length))
    told = _told(error, room, wide, reference, rms)
    plain = _one_way(part, actual.dtype, reference, inside) if told.is_beyond else None
    return told if plain is None else _told(error, room.add_(plain), wide, reference, rms)


def _of_products(part: Part, reference: Tensor, unit: float) -> Tensor:
    """What a distance may be off that is the root of |x|^2 + |y|^2 - 2 x y: the terms are rounded, and those of points
    that are near each other are far larger than what is left of them.
    """
    x, y = (wide_of(tensor).square().sum(-1) for tensor in part.args[:2])
    terms = FUNCTION * unit * math.sqrt(part.length) * (x.unsqueeze(-1) + y.unsqueeze(-2)).cpu()
    square = reference.square()
    below = reference - (square - terms).clamp(min=0.0).sqrt()
    return torch.maximum(below, (square + terms).sqrt() - reference)


def _one_way(part: Part, dtype: torch.dtype, reference: Tensor, unit: float) -> Optional[Tensor]:
    """What a result may be off whose roundings all go one way, as they do where many of its terms are equal: of
    a product it is measured, of another sum of mostly equal numbers half a rounding for each. None where neither is.
    """
    computed = torch.float32 if torch.finfo(dtype).bits < 32 and part.device in PRECISE else dtype
    plain = one_by_one(part, computed)
    if plain is not None and plain.shape == reference.shape:
        off = (plain.to(torch.float64) - reference).nan_to_num_(0.0, 0.0, 0.0).abs_()
        return off.clamp_(min=_rms(off)).mul_(INSIDE)
    if part.length > 1 and any(map(_is_of_equal_numbers, tensors_in((part.args, part.kwargs)))):
        unit = unit if computed == dtype else torch.finfo(computed).eps
        return reference.abs().mul_(unit * max(part.length, _weights_of_each(part)) / 2)
    return None


def _weights_of_each(part: Part) -> int:
    """How many weights of a convolution each of its results meets, at most; 0 for any other operator."""
    if "convolution" not in part.name or len(part.args) < 7:
        return 0
    weight: Tensor = part.args[1]
    return weight.numel() // max(1, weight.shape[1 if part.args[6] else 0])


def _is_of_equal_numbers(tensor: Tensor) -> bool:
    """Whether more than half of it, zeros apart, is one number: that is then the median."""
    if not is_float(tensor) or tensor.is_complex():
        return False
    numbers = tensor.detach()[tensor.detach() != 0]
    return numbers.numel() > MANY and int((numbers == numbers.median()).sum()) > numbers.numel() // 2


def _vanishes(part: Part, dtype: torch.dtype) -> float:
    """What may become zero on the way: a number below the dtype's smallest normal one, and of what may square inside,
    as a norm does, one whose square is.
    """
    tiny = float(torch.finfo(dtype).tiny)
    if part.length == 1:
        return tiny
    computed = torch.finfo(torch.float32 if torch.finfo(dtype).bits < 32 and part.rounds_once else dtype)
    return max(tiny, math.sqrt(float(computed.tiny) * part.length))


def _overlapping(part: Part, dtype: torch.dtype) -> int:
    """How many numbers a transposed convolution adds up in the result's own memory, each rounded to its dtype: the
    CPU's writes one kernel over the other (ATen/native/NaiveConvolutionTranspose2d.cpp).
    """
    if torch.finfo(dtype).bits >= 32 or "convolution" not in part.name or len(part.args) < 7 or not part.args[6]:
        return 0
    return math.prod(-(-size // stride) for size, stride in zip(part.args[1].shape[2:], part.args[3]))


def _inside(part: Part, dtype: torch.dtype) -> float:
    """The epsilon in which a kernel of this dtype computes: for one that is known to round once, float32's; or a larger
    one that somebody allowed.
    """
    limit = torch.finfo(dtype)
    once = limit.bits < 32 and part.rounds_once and part.device in PRECISE
    return max(float(torch.finfo(torch.float32).eps if once else limit.eps), permitted(part, dtype))


def _moved(part: Part, number: int, reference: Tensor, unit: float) -> Optional[Tensor]:
    """How far each element moves, as a root mean square, where the inputs are moved by one rounding."""
    generator = torch.Generator().manual_seed(0)

    def move(values: Tensor, unit: float) -> Tensor:
        signs = torch.randint(2, values.shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        return values * (1 + unit * signs)

    if part.formula and part.device in PRECISE:
        # scores are kept in float32, probabilities in the dtype of the result
        part = replace(part, kwargs={**part.kwargs, "jitter": functools.partial(move, unit=unit)})
        scores = max(torch.finfo(torch.float32).eps, permitted(part, torch.float32))
        change: Change = functools.partial(move, unit=scores)
    else:
        change = functools.partial(move, unit=unit)

    total = torch.zeros_like(reference)
    for _ in range(DRAWS):
        again = in_float64(part, change)
        if again is None or again[number].shape != reference.shape:
            return None
        total += (again[number] - reference).nan_to_num_(0.0, 0.0, 0.0).square_()
    total = total.div_(DRAWS).sqrt_()
    return torch.maximum(total, torch.full_like(total, _rms(total) / 2))


def _of_rounded_numbers(part: Part, number: int, reference: Tensor, dtype: torch.dtype) -> Optional[Tensor]:
    """How far each element moves where plain numbers among the arguments are rounded to the dtype of the tensors, as
    kernels may do; None where there are none.
    """
    if part.formula or not any(items_in((part.args, part.kwargs), float)):
        return None

    def rounded(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float64).to(dtype)) if math.isfinite(value) else value

    args, kwargs = rebuild((part.args, part.kwargs), float, rounded)
    again = in_float64(replace(part, args=args, kwargs=kwargs))
    if again is None or again[number].shape != reference.shape:
        return None
    return (again[number] - reference).nan_to_num_(0.0, 0.0, 0.0).abs_()


def _odd(wide: Tensor, reference: Tensor, limit: torch.finfo) -> Optional[Held]:
    """Where one has a number and the other has none; None where both have none of the same kind, or where the dtype
    cannot hold the reference.
    """
    beyond = reference.abs() > limit.max
    swallowed = torch.isnan(reference) & ~torch.isnan(wide)
    made = torch.isfinite(reference) & ~torch.isfinite(wide) & ~beyond
    saturated = torch.isfinite(wide) & (reference.abs() > 1.01 * limit.max)
    for mask, kind in ((swallowed, "swallowed"), (made, "made"), (saturated, "")):
        if bool(mask.any()):
            at = tuple(int(place[0]) for place in mask.nonzero(as_tuple=True))
            value, wanted = float(wide[at]), float(reference[at])
            return Held(math.inf, at, value, wanted, math.inf, 0.0, kind == "swallowed", kind == "made")
    return None


def _told(error: Tensor, room: Tensor, wide: Tensor, reference: Tensor, rms: float) -> Held:
    """The whole of it, and its worst element."""
    shares = (error / room).reshape(-1)
    flat = int(shares.argmax())
    at = tuple(unravel(flat, tuple(error.shape)))
    together = ALL if error.numel() >= MANY else 1.0
    ratio = max(_rms(error) / (together * _rms(room)), float(shares[flat]) / WORST)
    return Held(ratio, at, float(wide[at]), float(reference[at]), rms, float(room[at]))


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0
