"""Closed forms of tensors that somebody wrote down as one: masks and indices.

A mask has two values, and which of them stands where depends on one index, or on the difference of two.
"""

import math
from typing import Any, Optional

import torch
from torch import Tensor

Rule = dict[str, Any]

FEWEST = 3  # elements below which a list says as much


def closed_form(tensor: Tensor) -> Optional[Rule]:
    """The rule that gives exactly these values: equal steps, one span along a dimension, or a band of diagonals; None
    where there is none.

    Args:
        tensor: Of any shape; values that are NaN or complex have no closed form.
    """
    dense = tensor.detach().cpu()
    if dense.is_complex() or dense.numel() < FEWEST or bool(torch.isnan(dense).any()):
        return None
    values = torch.unique(dense)
    if values.numel() != 2:
        return _steps(dense) if values.numel() > 2 else None
    low, high = values.tolist()
    for inside, outside in sorted(((high, low), (low, high)), key=lambda pair: bool(pair[1])):  # 0 needs no words
        rule = _span(dense, inside, outside) or _band(dense, inside, outside)
        if rule is not None:
            return rule
    return None


def made(rule: Rule, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor of such a rule, as the script makes it."""
    if rule["kind"] == "steps":
        places = torch.arange(math.prod(shape)).to(torch.float64 if dtype.is_floating_point else torch.int64)
        return (rule["start"] + rule["step"] * places).reshape(shape).to(dtype)
    tensor = torch.full(shape, rule["outside"], dtype=dtype)
    if rule["kind"] == "span":
        tensor.narrow(rule["dim"], rule["begin"], rule["end"] - rule["begin"]).fill_(rule["inside"])
        return tensor
    where = torch.ones(shape, dtype=torch.bool)
    where = where if rule["upper"] is None else where.tril(rule["upper"])
    return tensor.masked_fill(where if rule["lower"] is None else where.triu(rule["lower"]), rule["inside"])


def _steps(dense: Tensor) -> Optional[Rule]:
    flat = dense.reshape(-1)[:2].tolist()
    start, step = flat[0], flat[1] - flat[0]
    if not all(math.isfinite(value) for value in (start, step)):
        return None
    return _exact(dense, {"kind": "steps", "start": start, "step": step})


def _span(dense: Tensor, inside: Any, outside: Any) -> Optional[Rule]:
    """Where the value depends on one index alone, and stands at neighbours there."""
    where = dense == inside
    for dim in reversed(range(dense.dim())):
        others = [at for at in range(dense.dim()) if at != dim]
        places = (where.sum(dim=others) if others else where).nonzero().reshape(-1).tolist()
        if places:
            ends = {"dim": dim, "begin": places[0], "end": places[-1] + 1}
            rule = _exact(dense, {"kind": "span", "inside": inside, "outside": outside, **ends})
            if rule is not None:
                return rule
    return None


def _band(dense: Tensor, inside: Any, outside: Any) -> Optional[Rule]:
    """Where the value depends on the difference of the last two indices, and stands at neighbours there."""
    if dense.dim() < 2 or min(dense.shape[-2:]) < 2:
        return None
    rows, columns = dense.shape[-2:]
    places = (dense == inside).reshape(-1, rows, columns)[0].nonzero()
    if not len(places):
        return None
    off = places[:, 1] - places[:, 0]
    lower, upper = int(off.min()), int(off.max())
    ends = {"lower": None if lower <= 1 - rows else lower, "upper": None if upper >= columns - 1 else upper}
    return _exact(dense, {"kind": "band", "inside": inside, "outside": outside, **ends})


def _exact(dense: Tensor, rule: Rule) -> Optional[Rule]:
    return rule if torch.equal(made(rule, tuple(dense.shape), dense.dtype), dense) else None
