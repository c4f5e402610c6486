"""What two ways end with, as probabilities: KL divergence, the likeliest tokens, ranks and entropy."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .held.deviation import Apart, apart, wide

MOST_POSITIONS = 32  # of which the probabilities are held side by side, the last ones
RANKED = 1000  # of the likeliest tokens of this way are ranked, at the last RANKED_AT positions
RANKED_AT = 8
FEW = 1 << 20  # elements that are taken in float64


def beside(pairs: Sequence[tuple[Tensor, Tensor]], found: Sequence[Apart], is_logits: bool) -> dict[str, Any]:
    """The figures of what this way and the other way give: one pair for each pass, and
    how far it was ``found`` apart.

    "kl" is that of the other's distribution from this one's, in nats; "rank_correlation" is Spearman's, of the
    likeliest tokens. All are None where the output is no logits.
    """
    count = sum(this.numel() for this, _ in pairs)
    squares = sum(item.whole**2 * this.numel() for item, (this, _) in zip(found, pairs))
    figures: dict[str, Any] = {
        "rmse": math.sqrt(squares / count) if count else 0.0,
        "max_abs_diff": max((_largest(*rows) for rows in map(_rows_of, pairs)), default=0.0),
        "mismatched": sum(item.mismatched for item in found),
        "positions": sum(min(math.prod(this.shape[:-1]), MOST_POSITIONS) for this, _ in pairs),
        **dict.fromkeys(("kl_mean", "kl_max", "top1_flips", "rank_correlation", "entropy_this", "entropy_other")),
    }
    if not is_logits:
        return figures
    rows = [_rows_of(pair) for pair in pairs]
    this, other = (torch.cat(side) for side in zip(*rows))
    finite = torch.isfinite(this).all(-1) & torch.isfinite(other).all(-1)
    this, other = this[finite], other[finite]
    if not len(this):
        return figures
    p, q = this.log_softmax(-1), other.log_softmax(-1)
    ranked = [_likeliest(a, b) for a, b in zip(this[-RANKED_AT:], other[-RANKED_AT:])]
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    figures.update(
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1_flips=int((this.argmax(-1) != other.argmax(-1)).sum()),
        rank_correlation=float(torch.stack([_spearman(a, b) for a, b in ranked]).mean()),
        entropy_this=float(-(p.exp() * p).sum(-1).mean()),
        entropy_other=float(-(q.exp() * q).sum(-1).mean()),
    )
    return figures


def _rows_of(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The last positions of both."""
    this, other = (side.reshape(-1, side.shape[-1])[-MOST_POSITIONS:] if side.dim() else side for side in pair)
    dtype = torch.float64 if this.numel() <= FEW else torch.float32
    return wide(this, dtype), wide(other, dtype)


def _largest(this: Tensor, other: Tensor) -> float:
    difference = (this - other).abs()
    finite = difference[torch.isfinite(difference)]
    return float(finite.max()) if finite.numel() else 0.0


def _likeliest(this: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the tokens that are likeliest in this way."""
    top = this.topk(min(RANKED, len(this))).indices
    return this[top], other[top]


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
