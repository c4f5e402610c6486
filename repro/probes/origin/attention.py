"""A fused attention operator, held against softmax(q k^T scale + mask) v in float64, row by row.

Every argument is read by the operator's schema. Where one of them means something else than in
torch.nn.functional.scaled_dot_product_attention, or takes part in a way that cannot be repeated (a dropout), there is
no reference.
"""

import math
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref
from .arithmetic import LOW, limit_of

FUSED_ATTENTION = "scaled_dot_product"
QUERY, KEY, VALUE = "query", "key", "value"
MASKS = ("attn_mask", "attn_bias")
# What does not change the first result: extra results that are asked for.
EXTRA = frozenset(("return_debug_mask", "compute_log_sumexp", "compute_logsumexp"))
KNOWN = frozenset((QUERY, KEY, VALUE, *MASKS, "is_causal", "scale", "enable_gqa", *EXTRA))


@dataclass(frozen=True)
class Row:
    """One query of one head: its scores before and after scaling and masking, and the values they are to weigh."""

    raw: Tensor
    scores: Tensor
    values: Tensor

    @property
    def is_masked(self) -> bool:
        return bool((self.scores == -math.inf).all())


def is_attention(op: Op) -> bool:
    """Whether the operator is a fused attention that is called forward."""
    names = [argument.name for argument in getattr(getattr(op.func, "_schema", None), "arguments", ())]
    return FUSED_ATTENTION in op.address.op and names[:3] == [QUERY, KEY, VALUE]


def row_of(
    op: Op, output: Ref, index: tuple[int, ...], change: Optional[Callable[[Tensor], Tensor]] = None
) -> Optional[Row]:
    """What the element's row is made of; None where an argument says something that is not known here.

    change: applied to query, key and value first.
    """
    given = _given(op)
    if given is None or not op.outputs or output is not op.outputs[0] or len(index) != 4:
        return None
    refs = [given[name] for name in (QUERY, KEY, VALUE)]
    if not all(isinstance(ref, Ref) and len(ref.shape) == 4 for ref in refs):
        return None
    query, key, value = (ref.tensor().detach().cpu().to(torch.float64) for ref in refs)
    if change is not None:
        query, key, value = change(query), change(key), change(value)
    batch, head, row, channel = index
    scale = given["scale"]
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    if key.shape[2] != value.shape[2]:
        return None  # kernels take them all the same, and read what lies behind
    if output.shape[:3] != query.shape[:3] or query.shape[1] % key.shape[1] or query.shape[1] % value.shape[1]:
        return None
    raw = key[batch, head * key.shape[1] // query.shape[1]] @ query[batch, head, row]
    scores = raw * scale
    for name in MASKS:
        mask = given.get(name)
        if mask is not None:
            line = mask.tensor().detach().cpu().expand([*query.shape[:3], key.shape[2]])[batch, head, row]
            if line.dtype == torch.bool:
                scores = torch.where(line, scores, torch.full_like(scores, -math.inf))
            else:  # a mask written as finfo.min is one, too
                low = line <= -LOW * limit_of(line.dtype)
                scores = torch.where(low, torch.full_like(scores, -math.inf), scores + line.to(torch.float64))
    if given["is_causal"]:
        if query.shape[2] != key.shape[2]:
            return None  # kernels differ in which corner the triangle begins
        scores = torch.where(torch.arange(key.shape[2]) <= row, scores, torch.full_like(scores, -math.inf))
    return Row(raw, scores, value[batch, head * value.shape[1] // query.shape[1], :, channel])


def result_of(row: Row) -> float:
    """The element in float64."""
    return float(torch.softmax(row.scores, -1) @ row.values)


def are_finite(op: Op) -> bool:
    """Whether query, key and value are."""
    given = _given(op)
    return given is not None and all(bool(torch.isfinite(given[name].tensor()).all()) for name in (QUERY, KEY, VALUE))


def _given(op: Op) -> Optional[dict[str, Any]]:
    """The arguments by name, with the schema's defaults; None where one that is not known here is set."""
    given: dict[str, Any] = {"scale": None, "is_causal": False}
    for position, argument in enumerate(op.func._schema.arguments):
        value = op.args[position] if position < len(op.args) else op.kwargs.get(argument.name, argument.default_value)
        if argument.name not in KNOWN and value not in (None, 0.0):
            return None
        given[argument.name] = value
    return None if op.unread() else given
