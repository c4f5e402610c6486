"""The records of a comparison of two traces."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """An operator's output. ``min`` and ``max`` are of what is finite."""

    dtype: str | None
    shape: tuple[int, ...] | None
    min: float | None
    max: float | None
    nan: int | None
    inf: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """One operator that is new, gone or different.

    kind: "new" (only in the bad trace), "gone" (only in the good one) or "different". what: of a different one
    "shape", "dtype", "finite" (it is no longer). whole_module: the outermost module that came or went with it.
    good_source, bad_source: its line; in a trace that does not have it, the line of the nearest operator before it that
    both have. position: how many operators the bad trace has before this place. instead: the operator that the other
    trace has in its place.
    """

    kind: str
    what: tuple[str, ...]
    module: str
    module_class: str | None
    whole_module: str | None
    call_index: int
    op: str
    occurrence: int
    good_source: str | None
    bad_source: str | None
    good: Figures | None
    bad: Figures | None
    position: int
    instead: str | None


@dataclass(frozen=True, slots=True)
class Numeric:
    """The first operator of the same form, finite in both or in neither, that gave other digits.

    largest_relative_difference: of its minimum and maximum; None where they are none. exact: whole numbers or truth
    values, which no rounding explains.
    """

    module: str
    call_index: int
    op: str
    occurrence: int
    good_source: str | None
    bad_source: str | None
    position: int
    largest_relative_difference: float | None
    exact: bool


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """A module that is new, gone, or of another class at the same path ("class"); of a tree of them the outermost."""

    kind: str
    module: str
    good_class: str | None
    bad_class: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """The comparison.

    aligned, only_good, only_bad: operators. without_effect: of those that are new, gone or different, how many made
    bytes that the other trace has as well. first: the earlier of first_structural and first_nonfinite. nearest: the
    last structural change up to first_nonfinite. first_preparing: the first change among operators that make no number.
    left_out: operators that the good and the bad trace did not record; nothing is said about these.
    """

    aligned: int
    only_good: int
    only_bad: int
    without_effect: int
    left_out: tuple[int, int]
    modules: tuple[ModuleChange, ...]
    first: Change | None
    first_structural: Change | None
    first_nonfinite: Change | None
    nearest: Change | None
    first_preparing: Change | None
    first_numeric: Numeric | None
