"""Products whose terms are added up one by one, in the precision of the kernel.

Rounding errors are as likely up as down where the numbers differ, and add up with the square root of how many there
are. Where the terms are equal, as of padding that nobody masks or of constant weights, each step rounds the same way,
and they add up with the count itself. What that comes to is measured, in the plainest order there is.
"""

from dataclasses import replace
from typing import Optional

import torch
from torch import Tensor

from ..values.nest import rebuild
from .part import PRODUCTS, Part

MOST = 1 << 16
"""Terms that are added up one by one; more take seconds."""


def one_by_one(part: Part, dtype: torch.dtype) -> Optional[Tensor]:
    """The part's result by products in this dtype whose terms are added up in their order; None for any other part."""
    known = part.formula or (part.name in PRODUCTS and not set(part.kwargs) - {"alpha", "beta"})
    if not known or part.length > MOST:
        return None
    args, kwargs = rebuild((part.args, part.kwargs), Tensor, lambda tensor: _cast(tensor, dtype))
    made = replace(part, args=args, kwargs=kwargs)
    if part.formula:
        found: Tensor = made.func(*made.args, **made.kwargs, product=_product)
        return found
    left, right, added = PRODUCTS[part.name]
    product = _product(args[left], args[right])
    return product if added is None else kwargs.get("beta", 1) * args[added] + kwargs.get("alpha", 1) * product


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """(..., m, k) and (..., k, n)."""
    total = left.new_zeros(()).expand(*left.shape[:-1], right.shape[-1])
    for at in range(left.shape[-1]):
        total = total + left[..., at : at + 1] * right[..., at : at + 1, :]
    return total
