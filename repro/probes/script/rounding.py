"""A script that is bad though no operator makes a NaN: is any operator further from float64 than rounding explains?

What is left where all of them are within it is the sum of roundings, and no fault of an operator.
"""

import dataclasses
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.source import source_here
from ..observe.tape import unreadable
from ..observe.watch import OUTSIDE, Address, Names, OpCall, Watch, watched_everywhere
from ..program.capture import blank
from ..program.makers import readable_in
from ..reduce.program import functional
from ..rounding.check import Rounding
from ..rounding.mechanism import mechanism_of
from ..values.figures import dtype_name, is_bad, tensors_in, widen
from ..values.nest import rebuild

WRAPPING = frozenset({"add", "sub", "rsub", "mul", "neg", "square", "pow"})
NARROW = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32})
COMPARISONS = frozenset({"sub", "rsub", "equal", "eq", "isclose", "allclose"})
"""Operators that hold two tensors against each other; the last of them in a run is taken for the script's own."""


@dataclass(frozen=True)
class Far:
    """The operator to blame, or else the farthest: how far in units of what rounding allows, and where."""

    address: Address
    source: Optional[str]
    code: Optional[str]
    ratio: float
    dtype: str
    value: float
    reference: float
    index: tuple[int, ...]
    mechanism: str
    note: Optional[str]


@dataclass(frozen=True)
class Rounded:
    """What holding each operator of a script against float64 came to.

    beyond: whether rounding does not explain ``far``. of_itself: those whose float64 is their own, in float64 already
    or of a library of the program's. wrapped: the first operation on integers beyond their dtype. drawn: those
    of ``not_judged`` that draw random numbers. apart: how far the two tensors that were compared last are from each
    other, in units of the coarsest dtype of the run. nonfinite: whether an operator got or gave a NaN or Inf, of which
    float64 of the same operator is no judge.
    """

    judged: int = 0
    not_judged: tuple[str, ...] = ()
    of_itself: tuple[str, ...] = ()
    wrapped: Optional[str] = None
    drawn: tuple[str, ...] = ()
    apart: Optional[float] = None
    beyond: bool = False
    farthest: Optional[Far] = None
    nonfinite: bool = False

    @property
    def is_within(self) -> bool:
        """Whether every operator that was judged is within what rounding allows."""
        return self.farthest is not None and not self.beyond

    def payload(self) -> Optional[dict[str, Any]]:
        if self.farthest is None:
            return None
        far = self.farthest
        return {
            "within": self.is_within,
            "operators": self.judged,
            "not_judged": list(self.not_judged),
            "of_itself": list(self.of_itself),
            "wrapped": self.wrapped,
            "drawn": list(self.drawn),
            "apart": self.apart,
            "nonfinite": self.nonfinite,
            "op": far.address.op,
            "module": far.address.module,
            "ratio": far.ratio,
            "allowed": 1.0,
            "dtype": far.dtype,
            "value": far.value,
            "reference_value": far.reference,
            "index": list(far.index),
        }

    def origin(self) -> dict[str, Any]:
        """The origin's record."""
        far = self.farthest
        assert far is not None  # the caller has seen to it
        return {
            **blank(),
            "module": far.address.module,
            "op": far.address.op,
            "call_index": far.address.call_index,
            "occurrence": far.address.occurrence,
            "mechanism": far.mechanism,
            "note": far.note,
            "code": far.code,
            "source": far.source,
            "element": list(far.index),
            "value": far.value,
            "ratio": far.ratio,
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
        where = f"{far.address.op}, {far.ratio:.2g} times what rounding of {far.dtype} allows"
        if self.is_within:
            left = f"; not judged: {', '.join(self.not_judged)}" if self.not_judged else ""
            left += f"; {self.wrapped}" if self.wrapped else ""
            return f"each of {self.judged} operators is within its dtype's own rounding; the farthest is {where}{left}"
        return f"farther from float64 than rounding explains: {where} ({far.value:.6g} against {far.reference:.6g})"


def watched_rounding(corrected: Optional[Address]) -> tuple[Any, Any]:
    """(context around the script, function that gives what was found).

    corrected: an operator whose result is replaced by float64's, rounded to its dtype.
    """
    made = Compared(Rounding(whole=True, corrected=corrected))
    return watched_everywhere(Watch(made.visit, OUTSIDE), Names()), made.rounded


class Compared:
    """Holds each operator against float64, and remembers how far the two tensors are apart that were compared last."""

    def __init__(self, made: Rounding) -> None:
        self._made = made
        self._drawn: set[str] = set()
        self._apart: Optional[tuple[float, float]] = None  # the difference, and the largest magnitude
        self._coarsest = 0.0
        self._nonfinite = False
        self._wrapped: Optional[str] = None

    def visit(self, call: OpCall) -> Any:
        pair = list(readable_in(call.args)) if call.address.base_name in COMPARISONS else []
        if len(pair) == 2 and pair[0].shape == pair[1].shape and not any(item.is_complex() for item in pair):
            one, two = (widen(item.detach()).double() for item in pair)
            both = torch.isfinite(one) & torch.isfinite(two)
            if bool(both.any()):
                largest = float(torch.maximum(one[both].abs(), two[both].abs()).max())
                self._apart = float((one[both] - two[both]).abs().max()), largest
        if _is_in_a_comparison():  # what torch.testing computes to word its message is none of the script's
            return call.run()
        if torch.Tag.nondeterministic_seeded in getattr(call.func, "tags", ()):
            self._drawn.add(call.address.op)
        before = _wide(call) if self._wrapped is None and call.address.base_name in WRAPPING else None
        result = self._made.visit(call)
        for tensor in readable_in([result]):
            self._coarsest = max(self._coarsest, torch.finfo(tensor.dtype).eps)
        given = readable_in([call.args, call.kwargs, result])
        self._nonfinite = self._nonfinite or any(map(is_bad, given))
        if before is not None:
            self._wrapped = _wrapped(call, before, result)
        return result

    def rounded(self) -> Rounded:
        """What was found."""
        found, apart = _rounded(self._made), None
        if self._apart is not None and self._apart[1] > 0 and self._coarsest > 0:
            apart = self._apart[0] / (self._apart[1] * self._coarsest)
        drawn = tuple(name for name in found.not_judged if name in self._drawn)
        return dataclasses.replace(found, drawn=drawn, apart=apart, nonfinite=self._nonfinite, wrapped=self._wrapped)


def _is_in_a_comparison() -> bool:
    """Whether torch.testing calls the operator, with nothing but PyTorch and this kit in between."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        names = frame.f_globals.get("__name__", "").split(".")
        if names[:2] == ["torch", "testing"]:
            return True
        if names[0] not in ("torch", __name__.split(".")[0]):
            return False
        frame = frame.f_back
    return False


def _wide(call: OpCall) -> Any:
    """The arguments of an operation on integers alone, in int64, which holds what narrower ones make; None where the
    operation is another one.
    """
    tensors = list(tensors_in((call.args, call.kwargs)))
    if not tensors or any(tensor.dtype not in NARROW or unreadable(tensor) is not None for tensor in tensors):
        return None
    return rebuild(call.args, Tensor, lambda tensor: tensor.detach().long())


def _wrapped(call: OpCall, before: Any, result: Any) -> Optional[str]:
    """What is said of integers that went beyond their dtype; None where they did not.

    before: the arguments in int64. Source: PyTorch computes integers modulo 2 to the power of their bits.
    """
    again = functional(call.func)
    seen = next((tensor for tensor in tensors_in(result) if tensor.dtype in NARROW), None)
    if again is None or seen is None:
        return None
    right = again(*before, **call.kwargs)
    wrong = seen.long() != right
    if not bool(wrong.any()):
        return None
    at = wrong.reshape(-1).nonzero()[0]
    told, real = int(seen.reshape(-1)[at]), int(right.reshape(-1)[at])
    where = source_here()[0]
    return f"{call.address.op} in {dtype_name(seen.dtype)} ({where}) gives {told} where {real} is right"


def _rounded(made: Rounding) -> Rounded:
    blamed = made.departures[0] if made.departures else None
    shown = blamed or made.farthest
    not_judged, of_itself = (
        tuple(sorted(names)) for names in (made.not_judged, {**made.of_float64, **made.of_libraries})
    )
    if shown is None:
        return Rounded(made.judged, not_judged, of_itself)
    mechanism, note = mechanism_of(shown) if blamed is not None else ("unknown", None)
    held = shown.held
    far = Far(
        shown.address, shown.source, shown.code, held.ratio, shown.dtype, held.value, held.reference, shown.index,
        mechanism, note,
    )  # fmt: skip
    return Rounded(made.judged, not_judged, of_itself, beyond=blamed is not None, farthest=far)
