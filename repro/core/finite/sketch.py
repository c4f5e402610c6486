"""What a case ends with in one environment, in few numbers, and how far two environments' are apart."""

import math
from collections.abc import Sequence

from repro.core.encoding import Record
from repro.core.payloads import Section


class Group(Record, frozen=True, kw_only=True):
    """Some rows of an output: how many elements, the root of their mean square (``size``), their projections ``on``
    random directions, and how far rounding moves them (``drift``, a root of a mean square).
    """

    elements: int
    on: tuple[float, ...]
    size: float
    drift: float


class Sketch(Record, frozen=True, kw_only=True):
    """The output of one pass. ``given`` is a digest of its token ids, ``weights`` that of random ones: releases draw
    them in other orders. ``why_not``: why there are no groups of it.

    ``floor``: a rounding of the output itself, as a part of its size. ``limits``: how many times the drift is rounding,
    of the whole and of a group. ``likeliest``: the likeliest token of each row at the end, of logits.
    """

    given: str | None = None
    weights: str | None = None
    output: str | None = None
    shape: tuple[int, ...] = ()
    groups: tuple[Group, ...] = ()
    why_not: str | None = None
    unit: float = 0.0
    floor: float = 0.0
    limits: tuple[float, ...] = ()
    likeliest: tuple[int, ...] = ()


class Sketches(Section, frozen=True, kw_only=True):
    """The sketch step: a sketch of each pass."""

    passes: tuple[Sketch, ...] = ()


class Apart(Record, frozen=True, kw_only=True):
    """Two environments' outputs: ``degree`` is 1 where rounding ends, ``flips`` counts rows whose likeliest token is
    another, of ``rows``. None of it where they cannot be compared: ``why_not``.
    """

    degree: float | None = None
    flips: int = 0
    rows: int = 0
    why_not: str | None = None

    @property
    def agree(self) -> bool:
        return self.degree is not None and self.degree <= 1


def apart(these: Sequence[Sketch], those: Sequence[Sketch]) -> Apart:
    """How far two environments' passes are apart; that of the pass that is farthest."""
    if len(these) != len(those) or not these:
        return Apart(why_not="they were given other inputs")
    found = [_apart(this, other) for this, other in zip(these, those, strict=True)]
    unlike = next((one for one in found if one.why_not is not None), None)
    if unlike is not None:
        return unlike
    return Apart(
        degree=max(one.degree or 0.0 for one in found),
        flips=sum(one.flips for one in found),
        rows=sum(one.rows for one in found),
    )


def _apart(this: Sketch, other: Sketch) -> Apart:
    why = this.why_not or other.why_not
    if why is not None:
        return Apart(why_not=why)
    if this.given != other.given:
        return Apart(why_not="the token ids are others")
    if this.weights != other.weights:
        return Apart(why_not="the random weights are others")
    if this.shape != other.shape or this.output != other.output:
        return Apart(why_not=f"{this.output} {list(this.shape)} and {other.output} {list(other.shape)}")
    coarse = max(this, other, key=lambda sketch: sketch.unit)
    whole, group = coarse.limits
    rows = [_squares(a, b, coarse.floor) for a, b in zip(this.groups, other.groups, strict=True)]
    elements = [one.elements for one in this.groups]
    together = (sum(row[at] * count for row, count in zip(rows, elements, strict=True)) for at in (0, 1))
    degrees = [_root(*together) / whole, *(_root(*row) / group for row in rows)]
    flips = sum(a != b for a, b in zip(this.likeliest, other.likeliest, strict=True))
    return Apart(degree=max(degrees), flips=flips, rows=len(this.likeliest))


def _squares(one: Group, two: Group, floor: float) -> tuple[float, float]:
    """The mean squares of the difference, as it is estimated, and of what rounding makes of both."""
    difference = sum((a - b) ** 2 for a, b in zip(one.on, two.on, strict=True)) / len(one.on) / max(one.elements, 1)
    return difference, max(one.drift**2 + two.drift**2, (floor * one.size) ** 2)


def _root(difference: float, rounding: float) -> float:
    if not difference:
        return 0.0
    return math.sqrt(difference / rounding) if rounding else math.inf
