"""How far two tensors are apart: as a whole, row by row and column by column; and how far rounding may take them.

A row is the last dimension: the channels of one token. A column is one channel of all tokens. NaN agrees with NaN and
Inf with the same Inf; NaN or Inf against a number is a mismatch. The lowest number of a dtype stands for -inf, as masks
are written in either.
"""

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from ...values.figures import is_float, unravel
from .noise import RMS

FINITE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Apart:
    """The deviation of one tensor from another of its shape.

    whole: root of the mean square. rows: the same of each row, with 1 in place of the last dimension. columns: the same
    of each column. scale, heights: the root of the mean square of each row, and column, of the first one. mismatched:
    elements of which one alone is a number, or integers that differ. largest: where the deviation is largest, or the
    first mismatch.
    """

    whole: float
    rows: Tensor
    columns: Tensor
    scale: Tensor
    heights: Tensor
    mismatched: int
    largest: tuple[int, ...]


def wide(tensor: Tensor) -> Tensor:
    """On the CPU in float64, the lowest number of its dtype as -inf."""
    plain = tensor.detach().to("cpu")
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    if plain.dtype not in FINITE:
        return plain.to(torch.float64)
    values = plain.to(torch.float64)
    lowest = torch.finfo(plain.dtype).min
    return values.masked_fill(values == lowest, -torch.inf) if values.numel() and values.min() <= lowest else values


def comparable(this: Tensor, other: Tensor) -> bool:
    """Whether both are numbers of one kind: floating, integers, or truth values."""
    return is_float(this) == is_float(other) and (this.dtype == torch.bool) == (other.dtype == torch.bool)


def apart(this: Tensor, other: Tensor) -> Apart:
    """How far ``other`` is from ``this``; both have one shape."""
    a, b = wide(this), wide(other)
    flat = (a.reshape(-1, 1), b.reshape(-1, 1)) if a.dim() < 1 else (a, b)
    a, b = (item.unsqueeze(0) if item.dim() == 1 else item for item in flat)
    if not a.numel():
        none, flat_none = a.new_zeros(*a.shape[:-1], 1), a.new_zeros(0)
        return Apart(0.0, none, flat_none, none, flat_none, 0, ())
    difference = a - b
    wrong = None
    if not bool(torch.isfinite(difference.sum())):
        alike = (a == b) | (a.isnan() & b.isnan())
        difference = difference.masked_fill(alike, 0.0)
        wrong = ~torch.isfinite(difference)
        difference = difference.masked_fill(wrong, 0.0)
        a = torch.where(torch.isfinite(a), a, torch.zeros_like(a))
    elif not is_float(this):
        wrong = difference != 0
    mismatched = 0 if wrong is None else int(wrong.sum())
    place = wrong.to(torch.uint8).argmax() if wrong is not None and mismatched else difference.abs().argmax()
    index = tuple(unravel(int(place), tuple(difference.shape)))
    squares, sizes = difference.square(), a.square()
    return Apart(
        whole=float(squares.mean().sqrt()),
        rows=squares.mean(-1, keepdim=True).sqrt(),
        columns=_by_column(squares),
        scale=sizes.mean(-1, keepdim=True).sqrt(),
        heights=_by_column(sizes),
        mismatched=mismatched,
        largest=index[len(index) - this.dim() :] if this.dim() else (),
    )


def _by_column(squares: Tensor) -> Tensor:
    return squares.reshape(-1, squares.shape[-1]).mean(0).sqrt()


@dataclass(frozen=True)
class Drift:
    """What rounding did at one place: the deviation of runs that were rounded at random, in the mean square."""

    whole: float
    rows: Tensor
    columns: Tensor
    scale: Tensor
    mismatched: int

    @property
    def relative(self) -> float:
        """Of all rows, as a part of their size: what a row of few elements, none of which happened to move, has."""
        size = self.scale.square().mean().sqrt() if self.scale.numel() else self.scale.new_zeros(())
        return self.whole / float(size) if float(size) > 0 else 0.0

    def and_also(self, other: Optional["Drift"]) -> "Drift":
        """Of two ways: what the one and the other may do, together."""
        if other is None or other.rows.shape != self.rows.shape:
            return self
        rows = (self.rows.square() + other.rows.square()).sqrt()
        whole = (self.whole**2 + other.whole**2) ** 0.5
        columns = self.columns
        if other.columns.shape == columns.shape:
            columns = (columns.square() + other.columns.square()).sqrt()
        return Drift(whole, rows, columns, self.scale, self.mismatched + other.mismatched)


def drift_of(found: Apart) -> Drift:
    return Drift(found.whole, found.rows, found.columns, found.scale, found.mismatched)


@dataclass(frozen=True)
class Ratio:
    """A deviation over what rounding explains: as a whole, and of the row and the column that are furthest off."""

    whole: float
    row: float
    column: float
    mismatched: int
    at: tuple[int, ...]
    channel: int
    drift: float
    unit: float


def held_against(found: Apart, drift: Optional[Drift], unit: float) -> Ratio:
    """The deviation over the drift. unit: the last place of a number near 1 in the coarser of the two dtypes.

    A rounding of the tensor itself is always allowed.
    """
    if not found.rows.numel() or not found.columns.numel():
        return Ratio(0.0, 0.0, 0.0, 0, (), 0, 0.0, unit)
    floor = found.scale * (unit * RMS / 2)
    rows = floor
    size = float(found.scale.square().mean().sqrt())
    whole = size * unit * RMS / 2
    mismatched = found.mismatched
    if drift is not None and drift.rows.shape == found.rows.shape:
        rows = torch.maximum(torch.maximum(drift.rows, found.scale * drift.relative), floor)
        whole = max(whole, drift.whole)
        mismatched = 0 if drift.mismatched else mismatched
    quotient = _over(found.rows, rows)
    worst = int(quotient.argmax())
    columns = torch.maximum(found.heights * (unit * RMS / 2), torch.full_like(found.heights, whole))
    if drift is not None and drift.columns.shape == found.columns.shape:
        columns = torch.maximum(columns, drift.columns)
    upright = _over(found.columns, columns)
    channel = int(upright.argmax())
    return Ratio(
        whole=found.whole / whole if whole > 0 else (torch.inf if found.whole > 0 else 0.0),
        row=float(quotient.reshape(-1)[worst]),
        column=float(upright[channel]),
        mismatched=mismatched,
        at=tuple(unravel(worst, tuple(quotient.shape))),
        channel=channel,
        drift=whole,
        unit=unit,
    )


def _over(found: Tensor, drift: Tensor) -> Tensor:
    return torch.where(found > 0, found / drift, torch.zeros_like(drift))
