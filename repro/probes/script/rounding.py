"""A script that is bad though no operator makes a NaN: is any operator further from float64 than its dtype allows?

Each operator is held against itself in float64 on the very same inputs, so it answers for its own error only. What is
left where all of them are within their dtype's rounding is the sum of roundings, and no fault of an operator.
"""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.source import source_here
from ..observe.watch import OUTSIDE, Address, Names, OpCall, Watch, watched_everywhere
from ..origin.mechanism import LINEAR
from ..origin.walk import LITERAL, RANDOM, UNWRITTEN
from ..program.capture import blank
from ..reduce.program import functional
from ..values.figures import dtype_name, is_float, tensors_in, unravel
from ..values.nest import rebuild

# Operators whose result is the rounded true value, up to a few units in the last place. Not here: those that subtract
# inside (GELU's tail, norms), and fused attention, whose error follows the size of its scores.
ROUNDED = frozenset((
    "add", "sub", "mul", "div", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "silu", "sin",
    "cos", "reciprocal", "_softmax", "_to_copy", "square",
))  # fmt: skip
# Operators that only move values, or put in what somebody chose: nothing is rounded.
MOVES = frozenset((
    "cat", "stack", "clone", "index_select", "index", "embedding", "gather", "where", "masked_fill", "contiguous",
    "repeat", "roll", "flip", "select_backward", "copy", "zeros_like", "ones_like", "max", "min", "maximum", "minimum",
    "amax", "amin", "argmax", "topk", "sort", "isfinite", "isnan", "eq", "ne", "lt", "le", "gt", "ge",
    "_local_scalar_dense", "item", "allclose", "equal", "isclose", "bitwise_not", "any", "all", "clamp", "abs",
    "neg", "detach",
)) | LITERAL | UNWRITTEN | RANDOM  # fmt: skip
# In units of the dtype's epsilon times the size of the result (for sums of products: of the sum of magnitudes).
# Kernels round once, which is half a unit; the vectorised functions of SLEEF, which torch uses, err by up to 3.5 units.
# Sums of products in the narrow dtypes are made in float32 on CPU and CUDA. Eight is a factor of two above all of them.
ALLOWED = 8.0


@dataclass(frozen=True)
class Farthest:
    """The operator farthest from float64: how far in units of what its dtype allows, and where."""

    address: Address
    source: Optional[str]
    code: Optional[str]
    ratio: float
    dtype: str
    value: float
    reference: float
    index: tuple[int, ...]


class Rounding:
    """Collects, while a script runs under ``visit``, which operator is farthest from itself in float64.

    corrected: an operator whose result is replaced by float64's, rounded to its dtype.
    """

    def __init__(self, corrected: Optional[Address] = None) -> None:
        self._corrected = corrected
        self.judged = 0
        self.not_judged: set[str] = set()
        self.farthest: Optional[Farthest] = None

    def visit(self, call: OpCall) -> Any:
        here, func, args, kwargs = call.address, call.func, call.args, call.kwargs
        if not any(is_float(tensor) for tensor in tensors_in((args, kwargs))):
            return call.run()
        expected = self._expected(here, func, args, kwargs)
        result = call.run()
        held = []
        for actual, (reference, size) in zip(tensors_in(result), expected):
            if here == self._corrected:
                actual.copy_(reference)
            held.append(self._hold(here, actual, reference, size))
        if held and all(held):
            self.judged += 1
        elif expected:
            self.not_judged.add(here.op)
        return result

    def _expected(self, here: Address, func: Any, args: Any, kwargs: Any) -> list[tuple[Tensor, Tensor]]:
        """(value, size of what was summed up for it) of each result in float64, before ``func`` may write anything."""
        name = here.base_name
        again = functional(func) if hasattr(func, "_schema") else None
        if name in MOVES or (hasattr(func, "_schema") and any(r.alias_info for r in func._schema.returns)):
            return []
        if name not in ROUNDED | LINEAR or again is None:
            self.not_judged.add(here.op)
            return []
        try:
            values = list(tensors_in(again(*_wide(args), **_wide(kwargs))))
            sizes = list(tensors_in(again(*_wide(args, True), **_wide(kwargs, True)))) if name in LINEAR else values
        except Exception:  # noqa: BLE001 - no float64 kernel on the CPU: not judged
            self.not_judged.add(here.op)
            return []
        return list(zip(values, sizes))

    def _hold(self, here: Address, actual: Tensor, reference: Tensor, size: Tensor) -> bool:
        """Whether a result could be held against its reference. What is no float was not rounded; what is complex or of
        another shape has no distance, nor has a NaN, or an infinity that only one of the two holds.
        """
        if not is_float(actual) or actual.numel() == 0:
            return True
        if actual.is_complex() or actual.shape != reference.shape:
            return False
        wide = actual.detach().cpu().to(torch.float64)
        same = wide == reference  # an additive mask's -inf too
        if not (same | (torch.isfinite(wide) & torch.isfinite(reference))).all():
            return False
        limits = torch.finfo(actual.dtype)
        room = (size.abs() * limits.eps).clamp(min=limits.tiny)
        ratios = torch.where(same, 0.0, (wide - reference).abs() / room)
        at = int(ratios.reshape(-1).argmax())
        ratio = float(ratios.reshape(-1)[at])
        if self.farthest is None or ratio > self.farthest.ratio:
            index = tuple(unravel(at, tuple(actual.shape)))
            value, wanted = float(actual[index]), float(reference[index])
            self.farthest = Farthest(here, *source_here(), ratio, dtype_name(actual.dtype), value, wanted, index)
        return True

    @property
    def is_within(self) -> bool:
        """Whether every operator that was judged is within what its dtype allows."""
        return self.farthest is not None and self.farthest.ratio <= ALLOWED

    def payload(self) -> Optional[dict[str, Any]]:
        if self.farthest is None:
            return None
        far = self.farthest
        return {
            "within": self.is_within,
            "operators": self.judged,
            "not_judged": sorted(self.not_judged),
            "op": far.address.op,
            "module": far.address.module,
            "ratio": far.ratio,
            "allowed": ALLOWED,
            "dtype": far.dtype,
            "value": far.value,
            "reference_value": far.reference,
            "index": list(far.index),
        }

    def origin(self) -> dict[str, Any]:
        """The origin's record: the operator farthest from float64."""
        far = self.farthest
        assert far is not None  # the caller has seen to it
        return {
            **blank(),
            "module": far.address.module,
            "op": far.address.op,
            "call_index": far.address.call_index,
            "occurrence": far.address.occurrence,
            "mechanism": "kernel",
            "code": far.code,
            "source": far.source,
            "element": list(far.index),
            "value": far.value,
            "output": {"dtype": far.dtype},
            "reference_value": far.reference,
            "reference": {"value": far.reference, "dtype": "float64", "scope": "operator"},
            "confirmed": True,
            "confirmed_by": "corrected",
        }

    def words(self) -> str:
        """One sentence."""
        if self.farthest is None:
            return "no operator could be compared with float64"
        far = self.farthest
        where = f"{far.address.op}, {far.ratio:.2g} units of {far.dtype}'s rounding from float64 on the same inputs"
        if self.is_within:
            left = f"; not judged: {', '.join(sorted(self.not_judged))}" if self.not_judged else ""
            return f"each of {self.judged} operators is within its dtype's own rounding; the farthest is {where}{left}"
        return f"farther from float64 than rounding explains: {where} ({far.value:.6g} against {far.reference:.6g})"


def watched_rounding(corrected: Optional[Address]) -> tuple[Any, Any]:
    """(context around the script, function that gives the Rounding)."""
    made = Rounding(corrected)
    return watched_everywhere(Watch(made.visit, OUTSIDE), Names()), lambda: made


def _wide(nest: Any, magnitudes: bool = False) -> Any:
    """The arguments in float64 on the CPU; of numbers their magnitudes, where those are asked for."""

    def widen(tensor: Tensor) -> Tensor:
        values = tensor.detach().cpu()
        wide = values.to(torch.float64) if values.is_floating_point() else values.clone()
        return wide.abs() if magnitudes and wide.is_floating_point() else wide

    def dtype(given: torch.dtype) -> torch.dtype:
        return torch.float64 if given.is_floating_point else given

    on_cpu = rebuild(rebuild(nest, Tensor, widen), torch.dtype, dtype)
    return rebuild(on_cpu, torch.device, lambda _: torch.device("cpu"))
