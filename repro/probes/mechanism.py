"""What happened at the operator to blame, in IEEE 754's words, by comparison with the same operator in float64.

Names of operators only decide where arithmetic cannot: 1/0 and an overflow both give infinity in float64 too.
"""

import math
from typing import Any, Optional

import torch
from torch import Tensor

from .blame import Origin, Step
from .summary import is_float, tensors_in, widen
from .tape import Op, Ref, rebuild

POLES = frozenset((
    "div", "true_divide", "reciprocal", "rsqrt", "log", "log2", "log10", "log1p", "pow", "floor_divide",
    "remainder", "digamma", "lgamma", "atanh",
))  # fmt: skip
NORMS = frozenset((
    "native_layer_norm", "native_group_norm", "native_batch_norm", "_fused_rms_norm", "rms_norm", "layer_norm",
))  # fmt: skip
PRODUCTS = frozenset((
    "mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "linear", "matmul", "convolution",
))  # fmt: skip
SUMS = frozenset((
    "sum", "mean", "var", "var_mean", "std", "cumsum", "norm", "linalg_vector_norm", "prod",
)) | NORMS  # fmt: skip
FUSED_ATTENTION = "scaled_dot_product"


def limit_of(dtype: torch.dtype) -> float:
    """The largest finite number of a floating dtype."""
    return float(torch.finfo(dtype).max)


def in_float64(step: Step) -> Optional[float]:
    """The value that the same operator gives at the same place, from the same inputs, in float64 on the CPU; None if
    it cannot run so.
    """
    op = step.op

    def wide(ref: Ref) -> Tensor:
        values = ref.tensor().detach().cpu()
        return values.to(torch.float64) if is_float(values) else values.clone()

    try:
        args = rebuild(
            rebuild(op.args, Ref, wide), torch.dtype, lambda dtype: torch.float64 if dtype.is_floating_point else dtype
        )
        kwargs = rebuild(
            rebuild(op.kwargs, Ref, wide),
            torch.dtype,
            lambda dtype: torch.float64 if dtype.is_floating_point else dtype,
        )
        kwargs = {
            name: torch.device("cpu") if isinstance(value, torch.device) else value for name, value in kwargs.items()
        }
        with torch.no_grad():
            results = list(tensors_in(op.func(*args, **kwargs)))
        position = next(
            (
                i
                for i, ref in enumerate(op.outputs)
                if ref.store is step.output.store and ref.shape == step.output.shape
            ),
            0,
        )
        return float(results[position][step.index])
    except Exception:  # noqa: BLE001 - no float64 kernel, or an operator bound to its device: then there is no reference, and none is claimed
        return None


def classify(origin: Origin) -> tuple[str, Optional[float], Optional[str]]:
    """(mechanism, float64 value of the operator, note) for an operator that made a bad value by itself."""
    step = origin.step
    if step is None:
        return "unknown", None, None
    if origin.masked_row:
        return "masked_row", None, "every score of the row is -inf"
    op = step.op
    if FUSED_ATTENTION in op.address.op:
        fused = _fused_attention(step)
        if fused is not None:
            return fused
    reference = in_float64(step)
    limit = limit_of(step.output.dtype)
    if reference is None:
        return (
            "unknown",
            None,
            "the operator cannot be run in float64 on the CPU, so there is nothing to hold it against",
        )
    if math.isnan(reference):
        return "invalid", reference, None
    if math.isinf(reference):
        if op.base_name in POLES and not _quotient_overflows(op, step):
            return "divide_by_zero", reference, None
        return "overflow", reference, "the result is beyond float64 as well"
    if abs(reference) > limit:
        return "overflow", reference, None
    largest = _largest_partial(op)
    if largest is not None and largest > limit:
        return (
            "overflow",
            reference,
            f"the result itself fits; a partial result of up to {largest:.6g} inside the operator does not",
        )
    if step.op.address.op.startswith("aten._to_copy") or step.op.base_name in ("copy", "to"):
        return "unknown", reference, None
    return (
        "kernel",
        reference,
        "from the same finite inputs, float64 arithmetic gives a finite result within the dtype's range",
    )


def _quotient_overflows(op: Op, step: Step) -> bool:
    """A quotient of nonzero numbers that is infinite in float64 overflowed; it did not divide by zero."""
    if op.base_name not in ("div", "true_divide"):
        return False
    refs = op.inputs()
    return len(refs) > 1 and not bool((widen(refs[1].tensor()) == 0).any())


def _largest_partial(op: Op) -> Optional[float]:
    """A bound of the partial results inside products and reductions: sums of magnitudes, in float64; None for other
    operators.
    """
    tensors = [ref.tensor().detach().cpu().to(torch.float64) for ref in op.inputs() if ref.dtype.is_floating_point]
    if not tensors or any(not bool(torch.isfinite(tensor).all()) for tensor in tensors):
        return None
    name = op.base_name
    try:
        if name in PRODUCTS and len(tensors) >= 2 and name != "convolution":
            left, right = tensors[-2].abs(), tensors[-1].abs()
            return float((left @ right).max())
        if name in SUMS:
            values = tensors[0]
            power = 2 if name in NORMS or name in ("var", "var_mean", "std", "norm", "linalg_vector_norm") else 1
            return float((values.abs() ** power).sum(-1).max()) if values.dim() else float(values.abs() ** power)
    except (RuntimeError, IndexError):  # shapes that only the operator itself knows how to multiply
        return None
    return None


def _fused_attention(step: Step) -> Optional[tuple[str, Optional[float], Optional[str]]]:
    """A fused attention kernel, held against softmax(q k^T scale + mask) v in float64, row by row.

    Arguments as in torch.nn.functional.scaled_dot_product_attention: query, key, value of (batch, heads, seq, dim),
    then a mask.
    """
    op = step.op
    refs = [ref.tensor().detach().cpu() for ref in op.inputs()]
    if len(refs) < 3 or len(step.index) != 4:
        return None
    query, key, value = (tensor.to(torch.float64) for tensor in refs[:3])
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (query, key, value)):
        return None
    batch, head, row, channel = step.index
    group = max(query.shape[1] // key.shape[1], 1)
    scale = op.kwargs.get("scale")
    scale = float(scale) if scale is not None else 1.0 / math.sqrt(query.shape[-1])
    scores = (key[batch, head // group] @ query[batch, head, row]) * scale
    raw = float(scores.abs().max()) / scale
    mask = next((tensor for tensor in refs[3:] if tensor.dim() in (2, 4)), None)
    if mask is not None:
        shape = [*query.shape[:3], key.shape[2]]
        line = mask.expand(shape)[batch, head, row]
        scores = torch.where(line, scores, -math.inf) if line.dtype == torch.bool else scores + line.to(torch.float64)
    if bool((scores == -math.inf).all()):
        return "masked_row", None, "no key is left for this query: the mask excludes all of them"
    reference = float((torch.softmax(scores, -1) @ value[batch, head // group])[channel])
    if raw > limit_of(step.output.dtype):
        return "overflow", reference, f"a score of {raw:.6g} before scaling is beyond the dtype"
    if math.isfinite(reference):
        return "kernel", reference, "softmax(q k^T) v in float64 is finite from the same inputs"
    return None


def figures(refs: list[Ref], describe: Any) -> list[dict[str, Any]]:
    """Shape, dtype and figures of some recorded tensors."""
    return [describe(ref.tensor()) for ref in refs]
