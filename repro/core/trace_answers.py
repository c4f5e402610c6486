"""The part of verdict.json that compares two traces: what two versions do differently in the same pass.

These are records, not plain data, so that the JSON Schema describes them and a damaged file is refused like any other.
"""

from repro.core.encoding import Number, Record


class OperatorFigures(Record, frozen=True, kw_only=True):
    """An operator's output. ``min`` and ``max`` are of what is finite."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    min: Number | None = None
    max: Number | None = None
    nan: int | None = None
    inf: int | None = None


class OperatorChange(Record, frozen=True, kw_only=True):
    """One operator that is new, gone or different.

    kind: "new" (only in the bad trace), "gone" (only in the good one) or "different". what: of a different one
    "shape", "dtype", "finite" (it is no longer). whole_module: the outermost module that came or went with it.
    good_source, bad_source: its line; in a trace that does not have it, the line of the nearest operator before it that
    both have. position: how many operators the bad trace has before this place. instead: the operator that the other
    trace has in its place.
    """

    kind: str
    module: str
    call_index: int
    op: str
    occurrence: int
    position: int
    what: tuple[str, ...] = ()
    module_class: str | None = None
    whole_module: str | None = None
    good_source: str | None = None
    bad_source: str | None = None
    good: OperatorFigures | None = None
    bad: OperatorFigures | None = None
    instead: str | None = None


class OtherDigits(Record, frozen=True, kw_only=True):
    """The first operator of the same form, finite in both or in neither, that gave other digits.

    largest_relative_difference: of its minimum and maximum; None where they are none. exact: whole numbers or truth
    values, which no rounding explains.
    """

    module: str
    call_index: int
    op: str
    occurrence: int
    position: int
    exact: bool
    good_source: str | None = None
    bad_source: str | None = None
    largest_relative_difference: float | None = None


class ModuleChange(Record, frozen=True, kw_only=True):
    """A module that is new, gone, or of another class at the same path ("class"); of a tree of them the outermost."""

    kind: str
    module: str
    good_class: str | None = None
    bad_class: str | None = None


class Changes(Record, frozen=True, kw_only=True):
    """The comparison. Where the operators could not be compared, ``sentence`` says why and the rest is empty.

    aligned, only_good, only_bad: operators. without_effect: of those that are new, gone or different, how many made
    bytes that the other trace has as well. first: the earlier of first_structural and first_nonfinite. nearest: the
    last structural change up to first_nonfinite. first_preparing: the first change among operators that make no number.
    left_out: operators that the good and the bad trace did not record; nothing is said about these.
    """

    aligned: int = 0
    only_good: int = 0
    only_bad: int = 0
    without_effect: int = 0
    left_out: tuple[int, int] = (0, 0)
    modules: tuple[ModuleChange, ...] = ()
    first: OperatorChange | None = None
    first_structural: OperatorChange | None = None
    first_nonfinite: OperatorChange | None = None
    nearest: OperatorChange | None = None
    first_preparing: OperatorChange | None = None
    first_numeric: OtherDigits | None = None
    sentence: str = ""
