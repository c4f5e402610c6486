"""softmax(q k^T scale + mask) v in float64, for whatever fused attention the program calls.

Kernels of one family share their code between dtypes, and with it their faults; so the reference is the formula.
"""

import math
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..origin.arithmetic import LOW, limit_of
from ..origin.attention import FUSED_ATTENTION, KEY, KNOWN, MASKS, QUERY, VALUE

NAMES = (QUERY, KEY, VALUE)


def is_attention(func: Any) -> bool:
    """Whether the operator is a fused attention that is called forward."""
    names = [argument.name for argument in getattr(getattr(func, "_schema", None), "arguments", ())]
    return FUSED_ATTENTION in str(func) and names[:3] == list(NAMES)


def arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Optional[dict[str, Any]]:
    """query, key, value, mask, is_causal and scale of the call; None where one that is not known here is set, or where
    the shapes are none of (batch, heads, length, channels).
    """
    given: dict[str, Any] = {"scale": None, "is_causal": False}
    for position, argument in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name, argument.default_value)
        if argument.name not in KNOWN and value not in (None, 0.0):
            return None
        given[argument.name] = value
    query, key, value = (given[name] for name in NAMES)
    if not all(isinstance(tensor, Tensor) and tensor.dim() == 4 for tensor in (query, key, value)):
        return None
    if key.shape[2] != value.shape[2] or query.shape[1] % key.shape[1] or query.shape[1] % value.shape[1]:
        return None
    if given["is_causal"] and query.shape[2] != key.shape[2]:
        return None  # kernels differ in which corner the triangle begins
    mask = next((given[name] for name in MASKS if given.get(name) is not None), None)
    found = {name: given[name] for name in (*NAMES, "is_causal", "scale")}
    return {**found, "mask": mask}


def part(given: dict[str, Any], examples: list[int], heads: list[int]) -> dict[str, Any]:
    """The same for some examples and some heads of the query, each with a key and value head of its own."""
    query, key, value, mask = (given[name] for name in (*NAMES, "mask"))
    count = query.shape[1]
    if mask is not None:
        mask = mask.expand(*query.shape[:3], key.shape[2])[examples][:, heads]
    found = {
        QUERY: query[examples][:, heads],
        KEY: key[examples][:, [head * key.shape[1] // count for head in heads]],
        VALUE: value[examples][:, [head * value.shape[1] // count for head in heads]],
    }
    return {**given, **found, "mask": mask}


def formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Optional[Tensor],
    is_causal: bool,
    scale: Optional[float],
    jitter: Optional[Callable[[Tensor], Tensor]] = None,
    product: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
) -> Tensor:
    """The result, in the dtype of the query; ``jitter`` is applied to the probabilities, and ``product`` multiplies.

    A row of which every place is masked is NaN here; kernels that write zeros there do so by their definition.
    """
    scores = product(query, key.transpose(-1, -2))
    scores = scores * (1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    if is_causal:
        rows, columns = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(rows, columns, dtype=torch.bool).triu(1), -math.inf)
    weights = torch.softmax(scores, -1)
    return product(weights if jitter is None else jitter(weights), value)


def as_mask(mask: Optional[Tensor]) -> Optional[Tensor]:
    """A mask for float64: what is written as the dtype's lowest number stands for -inf."""
    if mask is None or mask.dtype == torch.bool:
        return mask
    wide = mask.to(torch.float64)
    return wide.masked_fill(wide <= -LOW * limit_of(mask.dtype), -math.inf)


def masked_rows(given: dict[str, Any]) -> Optional[Tensor]:
    """True for each row of which every place is masked, shape (batch, heads, length, 1); None without a mask."""
    mask = as_mask(given["mask"])
    if mask is None:
        return None
    places = mask if mask.dtype == torch.bool else mask > -math.inf
    query, key = given[QUERY], given[KEY]
    places = places.expand(*query.shape[:3], key.shape[2])
    if given["is_causal"]:
        places = places & torch.ones(places.shape[-2:], dtype=torch.bool, device=places.device).tril()
    return ~places.any(-1, keepdim=True)
