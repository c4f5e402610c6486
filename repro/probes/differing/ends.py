"""What two ways end with, as probabilities: KL divergence, the likeliest tokens, ranks and entropy."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .held.deviation import apart, wide

MOST_POSITIONS = 256  # of which the probabilities are held side by side, the last ones


def beside(pairs: Sequence[tuple[Tensor, Tensor]], is_logits: bool) -> dict[str, Any]:
    """The figures of what this way and the other way give: one pair for each pass.

    "kl" is that of the other's distribution from this one's, in nats; "rank_correlation" is Spearman's, over the
    vocabulary. All are None where the output is no logits.
    """
    found = [apart(this, other) for this, other in pairs]
    count = sum(this.numel() for this, _ in pairs)
    squares = sum(item.whole**2 * this.numel() for item, (this, _) in zip(found, pairs))
    figures: dict[str, Any] = {
        "rmse": math.sqrt(squares / count) if count else 0.0,
        "max_abs_diff": max((_largest(this, other) for this, other in pairs), default=0.0),
        "mismatched": sum(item.mismatched for item in found),
        "positions": sum(math.prod(this.shape[:-1]) for this, _ in pairs),
        **dict.fromkeys(("kl_mean", "kl_max", "top1_flips", "rank_correlation", "entropy_this", "entropy_other")),
    }
    if not is_logits:
        return figures
    rows = [_rows(this, other) for this, other in pairs]
    this, other = (torch.cat(side)[-MOST_POSITIONS:] for side in zip(*rows))
    finite = torch.isfinite(this).all(-1) & torch.isfinite(other).all(-1)
    this, other = this[finite], other[finite]
    if not len(this):
        return figures
    p, q = this.log_softmax(-1), other.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    figures.update(
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1_flips=int((this.argmax(-1) != other.argmax(-1)).sum()),
        rank_correlation=float(torch.stack([_spearman(a, b) for a, b in zip(this, other)]).mean()),
        entropy_this=float(-(p.exp() * p).sum(-1).mean()),
        entropy_other=float(-(q.exp() * q).sum(-1).mean()),
    )
    return figures


def _rows(this: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    size = this.shape[-1]
    return wide(this).reshape(-1, size)[-MOST_POSITIONS:], wide(other).reshape(-1, size)[-MOST_POSITIONS:]


def _largest(this: Tensor, other: Tensor) -> float:
    difference = (wide(this) - wide(other)).abs()
    finite = difference[torch.isfinite(difference)]
    return float(finite.max()) if finite.numel() else 0.0


def _spearman(one: Tensor, two: Tensor) -> Tensor:
    """Of the ranks; values that are equal share their mean rank, so that rounding to few digits makes no order."""
    a, b = _ranks(one), _ranks(two)
    a, b = a - a.mean(), b - b.mean()
    size = a.norm() * b.norm()
    return (a * b).sum() / size if float(size) > 0 else torch.ones((), dtype=torch.float64)


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).to(torch.float64)
    return (ends - (counts.to(torch.float64) - 1) / 2)[place]


def same(exact: Tensor, this: Tensor, other: Tensor) -> dict[str, float]:
    """The numbers of ``torch._dynamo.utils.same``: the root mean square error of each way against float64."""
    return {"rmse_this": apart(exact, this).whole, "rmse_other": apart(exact, other).whole}
