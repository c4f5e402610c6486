"""What happened at the operator to blame, in IEEE 754's words, by comparison with the same operator in float64.

Names of operators only decide where arithmetic cannot: 1/0 and an overflow both give infinity in float64 too.
"""

import math
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref
from ..values.figures import is_float, scalar, tensors_in
from ..values.nest import items_in, rebuild
from .walk import Origin, Step, aligned

# Functions with a pole, and where it is.
POLES = {
    "div": 0.0, "true_divide": 0.0, "reciprocal": 0.0, "rsqrt": 0.0, "log": 0.0, "log2": 0.0, "log10": 0.0,
    "log1p": -1.0, "pow": 0.0, "floor_divide": 0.0, "remainder": 0.0, "digamma": 0.0, "lgamma": 0.0, "atanh": 1.0,
}  # fmt: skip
LINEAR = frozenset((
    "mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "linear", "matmul", "convolution", "sum", "mean", "cumsum",
))  # fmt: skip
SQUARES = frozenset((
    "native_layer_norm", "native_group_norm", "native_batch_norm", "_fused_rms_norm", "rms_norm", "layer_norm",
    "var", "var_mean", "std", "norm", "linalg_vector_norm",
))  # fmt: skip
# Operators without partial results: if float64 disagrees with one of these, its kernel is wrong.
ELEMENTWISE = frozenset((
    "add", "sub", "mul", "div", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "silu", "gelu",
    "erf", "sin", "cos", "pow", "reciprocal", "where", "clamp", "maximum",
    "minimum", "softmax", "log_softmax", "_softmax", "_log_softmax",
))  # fmt: skip
FUSED_ATTENTION = "scaled_dot_product"


def limit_of(dtype: torch.dtype) -> float:
    """The largest finite number of a floating dtype."""
    return float(torch.finfo(dtype).max)


def in_float64(step: Step, change: Callable[[Tensor], Tensor] = lambda values: values) -> Optional[float]:
    """The value that the same operator gives at the same place, from the same inputs, in float64 on the CPU.

    change: applied to each floating input first. None where the operator cannot run so: no float64 kernel, or bound to
    its device; then there is no reference, and none is claimed.
    """
    op = step.op

    def wide(ref: Ref) -> Tensor:
        values = ref.tensor().detach().cpu()
        if values.is_complex():
            return change(values.to(torch.complex128))
        return change(values.to(torch.float64)) if is_float(values) else values.clone()

    def widest(dtype: torch.dtype) -> torch.dtype:
        return torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else dtype

    def on_cpu(tree: Any) -> Any:
        return rebuild(
            rebuild(rebuild(tree, Ref, wide), torch.dtype, widest), torch.device, lambda _: torch.device("cpu")
        )

    position = next((i for i, ref in enumerate(op.outputs) if ref is step.output), 0)
    try:
        with torch.no_grad():
            results = list(tensors_in(op.func(*on_cpu(op.args), **on_cpu(op.kwargs))))
        return scalar(results[position], step.index)
    except Exception:  # noqa: BLE001 - see above
        return None


def classify(origin: Origin) -> tuple[str, Optional[float], Optional[str]]:
    """(mechanism, float64 value of the operator, note) for an operator that made a bad value by itself."""
    step = origin.step
    if step is None:
        return "unknown", None, None
    op = step.op
    if FUSED_ATTENTION in op.address.op:
        fused = _fused_attention(step)
        if fused is not None:
            return fused
    if origin.masked_row:
        return "masked_row", None, "every score of the row is -inf"
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
        if _at_pole(step):
            return "divide_by_zero", reference, None
        return "overflow", reference, "the result is beyond float64 as well"
    if abs(reference) > limit:
        return "overflow", reference, None
    mechanism, note = _inside(step, limit)
    return mechanism, reference, note


def _inside(step: Step, limit: float) -> tuple[str, str]:
    """(mechanism, note) of a bad value where float64 gives a finite one within the limit: what happened on the way."""
    op = step.op
    numbers = [value for value in _numbers(op) if math.isfinite(value) and abs(value) > limit]
    if numbers:
        return "overflow", f"the number {numbers[0]:.6g} in the model's code is beyond the dtype"
    largest = _largest_partial(step)
    if largest is not None and largest > limit:
        return "overflow", f"the result fits; a partial result of up to {largest:.6g} inside the operator does not"
    if largest is None and op.base_name not in ELEMENTWISE:
        return "unknown", "float64 gives a finite result here; what the operator does inside is not known"
    return "kernel", "from the same finite inputs, float64 arithmetic gives a finite result in the dtype's range"


def _numbers(op: Op) -> list[float]:
    """The Python numbers among an operator's arguments."""
    found = items_in((op.args, op.kwargs), (int, float))
    return [float(number) for number in found if not isinstance(number, bool)]


def _at_pole(step: Step) -> bool:
    """Whether the operator stands at a pole of its function at this element: a divisor of 0, log(0), atanh(1)."""
    op = step.op
    if op.base_name not in POLES:
        return False
    refs = op.inputs()
    divides = op.base_name in ("div", "true_divide", "floor_divide", "remainder")
    if divides and len(refs) < 2:
        return 0.0 in _numbers(op)
    ref = refs[1] if divides else refs[0]
    place = aligned(ref, step.output, list(step.index))
    if place is None:
        return False
    value = scalar(ref.tensor(), place)
    return value == POLES[op.base_name] or (op.base_name == "atanh" and value == -1.0)


def _largest_partial(step: Step) -> Optional[float]:
    """A bound of the partial results inside sums and products, in float64; None for other operators.

    Sums of products: the same operator on magnitudes. Products: on magnitudes of at least 1. Norms: sums of squares.
    """
    name = step.op.base_name
    if name in LINEAR:
        bound = in_float64(step, torch.abs)
        if bound is None or name != "mean":
            return bound
        whole, kept = (math.prod(ref.shape) for ref in (step.op.inputs()[0], step.output))
        return bound * whole / max(kept, 1)
    if name == "prod":
        return in_float64(step, lambda values: values.abs().clamp(min=1))
    if name in SQUARES:
        values = step.op.inputs()[0].tensor().detach().cpu().to(torch.float64)
        return float((values**2).sum(-1).max()) if values.dim() else float(values**2)
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
    # Also where no key is left: kernels take keys and values of two lengths and read what lies behind; this refuses.
    reference = float((torch.softmax(scores, -1) @ value[batch, head // group])[channel])
    if bool((scores == -math.inf).all()):
        return "masked_row", None, "no key is left for this query: the mask excludes all of them"
    if raw > limit_of(step.output.dtype):
        return "overflow", reference, f"a score of {raw:.6g} before scaling is beyond the dtype"
    if math.isfinite(reference):
        return "kernel", reference, "softmax(q k^T) v in float64 is finite from the same inputs"
    return None
