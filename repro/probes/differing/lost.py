"""Digits that a formula loses: a module whose arithmetic in the narrow dtype is far from float64 of the same inputs,
though each operator is within its own rounding, and though the function itself hardly moves with its inputs.

E[x^2] - E[x]^2, log(1 + x) and the like subtract numbers that are nearly equal. Where the exact function moves as much
when its inputs are moved by one rounding, the inputs are badly conditioned, and any formula would lose the same digits:
that is no fault of the code. So both are measured.
"""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..values.figures import is_float
from .held.calls import GAVE
from .held.deviation import Ratio, apart, wide
from .held.hold import Pair, Recording, Way
from .inside import Ran, blamed, draws, exact, operators

LEAST = 1e-3
"""Of a result's size: an error below it is not called a loss."""
UNITS = 32.0
"""The same in roundings of the dtype."""
BEYOND = 16.0
"""How many times more than the exact function moves by one rounding of the inputs a formula may be off. No module of 45
sound runs was even asked (docs/diff.md)."""
MOST_ASKED = 8
"""Modules that are asked of float64, those that are off first."""
PART = 4.0
"""The operator that is named makes this part of the loss at least; of one that is larger than the result, of all of
it: what stands behind may make more of it."""


@dataclass(frozen=True)
class Lost:
    """A module that loses digits.

    exact: its result in float64. error: of its own result, over the result's size; moved: the same of the exact
    function where its inputs are moved by one rounding. ran: the operator that loses them, with how many times larger
    it makes the error: its condition.
    """

    pair: Pair
    ratio: Ratio
    exact: Tensor
    error: float
    moved: float
    ran: Optional[Ran]
    condition: Optional[float]


def lost(
    model: nn.Module, this: Way, other: Way, recording: Recording, pairs: list[tuple[Pair, Ratio]]
) -> Optional[Lost]:
    """The first module, in order of running, that loses digits; None where none does, or the other way is no wider."""
    dtype = getattr(torch, other.words, None)
    if not isinstance(dtype, torch.dtype):
        return None
    asked = 0
    for pair, ratio in sorted(pairs, key=lambda row: row[0].order):
        point = pair.this
        if point.side != GAVE or not pair.found.whole or pair.found.whole < LEAST * _size(pair):
            continue
        ours = recording.tensor(point)
        if not is_float(ours) or torch.finfo(ours.dtype).eps <= torch.finfo(dtype).eps:
            continue
        unit = float(torch.finfo(ours.dtype).eps)
        if pair.found.whole < UNITS * unit * _size(pair):
            continue
        found = _measured(model, this, recording, pair, ours, unit)
        if found is not None and found[1] > BEYOND * (found[2] + unit):
            if any(draws(ran.op) for ran in operators(model, this, recording, blamed(pair)[0])):
                return None  # float64 draws other numbers: what comes behind differs for that alone
            ran, condition = _operator(model, this, other, recording, pair, found[1], unit)
            return Lost(pair, ratio, *found, ran, condition)
        asked += 1
        if asked == MOST_ASKED:
            return None
    return None


def _size(pair: Pair) -> float:
    return float(pair.found.scale.square().mean().sqrt())


def _measured(
    model: nn.Module, this: Way, recording: Recording, pair: Pair, ours: Tensor, unit: float
) -> Optional[tuple[Tensor, float, float]]:
    """The exact result, the module's error and the exact function's movement, both over its size; None where it does
    not run so.
    """
    point = pair.this
    try:
        still = exact(model, this, recording, point.call, point)
        moved = exact(model, this, recording, point.call, point, unit)
    except Exception:  # noqa: BLE001 - the model's own code may not run in float64
        return None
    if still is None or moved is None or still.shape != ours.shape:
        return None
    size = float(wide(still).square().mean().sqrt())
    if not size or not torch.isfinite(still).all():
        return None
    return still, apart(still, ours).whole / size, apart(still, moved).whole / size


def _operator(
    model: nn.Module, this: Way, other: Way, recording: Recording, pair: Pair, error: float, unit: float
) -> tuple[Optional[Ran], Optional[float]]:
    """The first operator of the module behind which most of the error is there, and how much larger it makes it."""
    there = {ran.key: ran for ran in operators(model, other, recording, pair.other.call)}
    before = unit
    for ran in operators(model, this, recording, pair.this.call):
        twin = there.get(ran.key)
        if ran.result is None or twin is None or twin.result is None or ran.result.shape != twin.result.shape:
            continue
        size = float(wide(twin.result).square().mean().sqrt())
        found = apart(twin.result, ran.result).whole / size if size else 0.0
        if found > min(error, 1.0) / PART and not ran.is_view:
            return ran, found / before
        before = max(before, found)
    return None, None


def said(found: Lost) -> dict[str, Any]:
    """What is added to the record of the departure."""
    ran = found.ran
    times = "" if found.condition is None or ran is None else f"; {ran.op} makes the error {found.condition:.3g} times"
    times += " larger" if times else ""
    return {
        "mechanism": "cancellation",
        "condition": found.condition,
        "op": None if ran is None else ran.op,
        "occurrence": None if ran is None else ran.occurrence,
        "source": None if ran is None else ran.source,
        "code": None if ran is None else ran.package,
        "excerpt": None if ran is None else ran.excerpt,
        "side": "this",
        "note": f"its result is off by {found.error:.2g} of its size, and float64 of the same inputs moves by "
        f"{found.moved:.2g} of it where they are moved by one rounding{times}",
    }
