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
    elements of which one alone is a number, or integers that differ.
    """

    whole: float
    rows: Tensor
    columns: Tensor
    scale: Tensor
    heights: Tensor
    mismatched: int


def wide(tensor: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """On the CPU in this dtype, the lowest number of its own as -inf."""
    plain = tensor.detach().to("cpu")
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    if plain.dtype not in FINITE:
        return plain.to(torch.float64)  # integers, exactly
    values = plain.to(dtype)
    lowest = torch.finfo(plain.dtype).min
    return values.masked_fill(values == lowest, -torch.inf) if values.numel() and values.min() <= lowest else values


def _dtype_of(this: Tensor, other: Tensor) -> torch.dtype:
    """That in which their difference is taken: float32 loses nothing of what is told of narrower ones."""
    narrow = (torch.float16, torch.bfloat16, torch.float32)
    return torch.float32 if this.dtype in narrow and other.dtype in narrow else torch.float64


def comparable(this: Tensor, other: Tensor) -> bool:
    """Whether both are numbers of one kind: floating, integers, or truth values."""
    return is_float(this) == is_float(other) and (this.dtype == torch.bool) == (other.dtype == torch.bool)


@dataclass(frozen=True)
class Size:
    """The root of the mean square of each row, and of each column, of a tensor."""

    rows: Tensor
    columns: Tensor


def size_of(this: Tensor) -> Size:
    """Of what is finite in it."""
    values = _lined(wide(this, _dtype_of(this, this)))
    squares = values.square()
    if not bool(torch.isfinite(squares.sum())):
        squares = _lined(wide(this)).square()
        squares = torch.where(torch.isfinite(squares), squares, torch.zeros_like(squares))
    return Size(_by_row(squares), _by_column(squares))


def apart(this: Tensor, other: Tensor, size: Optional[Size] = None) -> Apart:
    """How far ``other`` is from ``this``; both have one shape. size: of ``this``, where it is known."""
    size = size or size_of(this)
    dtype = _dtype_of(this, other)
    difference = _lined(wide(this, dtype)) - _lined(wide(other, dtype))
    wrong = None
    if not bool(torch.isfinite(difference.sum())):
        a, b = _lined(wide(this)), _lined(wide(other))
        difference = (a - b).masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)
        wrong = ~torch.isfinite(difference)
        difference = difference.masked_fill(wrong, 0.0)
    elif not is_float(this):
        wrong = difference != 0
    squares = difference.square()
    whole = float(squares.mean().sqrt()) if squares.numel() else 0.0
    if whole == torch.inf:
        squares = difference.to(torch.float64).square()
        whole = float(squares.mean().sqrt())
    return Apart(
        whole=whole,
        rows=_by_row(squares),
        columns=_by_column(squares),
        scale=size.rows,
        heights=size.columns,
        mismatched=0 if wrong is None else int(wrong.sum()),
    )


def farthest(this: Tensor, other: Tensor) -> tuple[int, ...]:
    """Where the two are farthest apart, or the first place at which one alone is a number."""
    a, b = wide(this), wide(other)
    difference = (a - b).abs().masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)
    place = int(difference.nan_to_num(torch.inf).argmax())
    return tuple(unravel(place, tuple(this.shape)))


def _lined(values: Tensor) -> Tensor:
    """With a dimension of rows, and one of columns."""
    return values.reshape(1, -1) if values.dim() < 2 else values


def _by_row(squares: Tensor) -> Tensor:
    if not squares.numel():
        return squares.new_zeros(*squares.shape[:-1], 1, dtype=torch.float64)
    return squares.mean(-1, keepdim=True).sqrt().to(torch.float64)


def _by_column(squares: Tensor) -> Tensor:
    if not squares.numel():
        return squares.new_zeros(0, dtype=torch.float64)
    return squares.reshape(-1, squares.shape[-1]).mean(0).sqrt().to(torch.float64)


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

    def or_more(self, other: Optional["Drift"]) -> "Drift":
        """The larger of two draws of one way. Where few numbers are near an edge, as acos(1) is, most draws move none
        of them.
        """
        if other is None or other.rows.shape != self.rows.shape or other.columns.shape != self.columns.shape:
            return self
        return Drift(
            max(self.whole, other.whole),
            torch.maximum(self.rows, other.rows),
            torch.maximum(self.columns, other.columns),
            self.scale,
            self.mismatched + other.mismatched,
        )


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
