"""A script that is bad though no operator makes a NaN: is any operator further from float64 than rounding explains?

What is left where all of them are within it is the sum of roundings, and no fault of an operator.
"""

from dataclasses import dataclass
from typing import Any, Optional

from ..observe.watch import OUTSIDE, Address, Names, Watch, watched_everywhere
from ..program.capture import blank
from ..rounding.check import Rounding
from ..rounding.mechanism import mechanism_of


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
    """What holding each operator of a script against float64 came to. ``beyond``: whether rounding does not explain
    ``far``.
    """

    judged: int = 0
    not_judged: tuple[str, ...] = ()
    beyond: bool = False
    farthest: Optional[Far] = None

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
            return f"each of {self.judged} operators is within its dtype's own rounding; the farthest is {where}{left}"
        return f"farther from float64 than rounding explains: {where} ({far.value:.6g} against {far.reference:.6g})"


def watched_rounding(corrected: Optional[Address]) -> tuple[Any, Any]:
    """(context around the script, function that gives what was found).

    corrected: an operator whose result is replaced by float64's, rounded to its dtype.
    """
    made = Rounding(whole=True, corrected=corrected)
    return watched_everywhere(Watch(made.visit, OUTSIDE), Names()), lambda: _rounded(made)


def _rounded(made: Rounding) -> Rounded:
    blamed = made.departures[0] if made.departures else None
    shown = blamed or made.farthest
    not_judged = tuple(sorted(made.not_judged))
    if shown is None:
        return Rounded(made.judged, not_judged)
    mechanism, note = mechanism_of(shown) if blamed is not None else ("unknown", None)
    held = shown.held
    far = Far(
        shown.address, shown.source, shown.code, held.ratio, shown.dtype, held.value, held.reference, shown.index,
        mechanism, note,
    )  # fmt: skip
    return Rounded(made.judged, not_judged, blamed is not None, far)
