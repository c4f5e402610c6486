"""A comparison of two traces in sentences."""

from repro.core.sentences import listed, plain
from repro.core.trace_answers import Changes, OperatorChange, OperatorFigures, OtherDigits

NAMED = 3
"""Modules that a sentence names; the record has them all."""


def sentence(changes: Changes) -> str:
    """The comparison in words, for a report: the first change, where the values go bad, and how much else differs."""
    parts, told = [], set()
    for lead, change in (
        ("The first change: ", changes.first),
        ("The last change up to there: ", changes.nearest if changes.nearest != changes.first else None),
        ("The first that is no longer finite: ", changes.first_nonfinite),
    ):
        if change is not None and (place := _place_key(change)) not in told:
            told.add(place)
            parts.append(f"{lead}{change_words(change)}.")
    if changes.first is None:
        parts.append("No operator that computes is new, gone, of another form or no longer finite.")
        if changes.first_preparing is not None:
            parts.append(f"Of those that make no number, the first: {change_words(changes.first_preparing)}.")
    if changes.first_numeric is not None:
        parts.append(numeric_words(changes.first_numeric))
    parts.extend(_modules(changes))
    parts.append(_counts(changes))
    return " ".join(parts)


def change_words(change: OperatorChange) -> str:
    """One change with both source lines."""
    what = f"{change.op} {_where(change.module, change.module_class, change.call_index)}"
    if change.kind == "gone":
        words = f"{what} is gone ({_line(change.good_source)} in the good version"
        words += f"; the bad one passes {change.bad_source}" if change.bad_source else ""
    elif change.kind == "new":
        words = f"{what} is new ({_line(change.bad_source)} in the bad version"
        words += f"; the good one passes {change.good_source}" if change.good_source else ""
    else:
        return (
            f"{what} {_difference(change)} ({_line(change.good_source)} in the good version,"
            f" {_line(change.bad_source)} in the bad one)"
        )
    words += f"; in its place: {change.instead})" if change.instead else ")"
    if change.kind == "new" and change.bad is not None and (change.bad.nan or change.bad.inf):
        words += f" and gives {_not_finite(change.bad)}"
    return words + (
        f", with the whole of {change.whole_module or 'the model'}" if change.whole_module is not None else ""
    )


def _difference(change: OperatorChange) -> str:
    good, bad = change.good, change.bad
    if good is None or bad is None:
        return "is different"
    parts = []
    if "shape" in change.what:
        parts.append(f"has the shape {_shape(good)} in the good version and {_shape(bad)} in the bad one")
    if "dtype" in change.what:
        parts.append(f"is {good.dtype} in the good version and {bad.dtype} in the bad one")
    if "finite" in change.what:
        parts.append(f"gives {_not_finite(bad)}, and in the good version {_not_finite(good)}")
    return listed(parts)


def _shape(figures: OperatorFigures) -> str:
    return "none" if figures.shape is None else str(list(figures.shape))


def _not_finite(figures: OperatorFigures) -> str:
    counts = [f"{count:,} {word}" for count, word in ((figures.nan, "NaN"), (figures.inf, "Inf")) if count]
    return listed(counts) if counts else "only finite values"


def _where(module: str, class_name: str | None, call_index: int) -> str:
    if call_index < 0:
        return "outside of any module"
    name = "in " + (module or "the model itself")
    called = f", call {call_index + 1}" if call_index else ""
    return name + (f" ({class_name}{called})" if class_name else called)


def _line(source: str | None) -> str:
    return source or "no line known"


def _place_key(change: OperatorChange) -> tuple[str, str, int, str, int]:
    return change.kind, change.module, change.call_index, change.op, change.occurrence


def numeric_words(numeric: OtherDigits) -> str:
    """The first other digits, and whether rounding can be their reason."""
    where = f"{numeric.op} {_where(numeric.module, None, numeric.call_index)} ({_line(numeric.bad_source)})"
    if numeric.exact:
        return f"Other values come first from {where}: whole numbers or truth values, which no rounding explains."
    size = numeric.largest_relative_difference
    if size is None:
        return f"Other digits come first from {where}."
    differ = f"differ by at most {plain(size, 2)} of their size" if size else "are the same"
    return f"Other digits come first from {where}; its minimum and maximum {differ}."


def _modules(changes: Changes) -> list[str]:
    parts = []
    for kind, words in (("new", "new"), ("gone", "gone")):
        found = [item for item in changes.modules if item.kind == kind]
        if found:
            names = [f"{item.module or 'the model'} ({item.bad_class or item.good_class})" for item in found[:NAMED]]
            more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
            parts.append(f"Modules that are {words} as a whole: {', '.join(names)}{more}.")
    renamed = {(item.good_class, item.bad_class): None for item in changes.modules if item.kind == "class"}
    if renamed:
        parts.append("Of another class: " + ", ".join(f"{good} is now {bad}" for good, bad in renamed) + ".")
    return parts


def _counts(changes: Changes) -> str:
    words = (
        f"{changes.aligned:,} operators are in both traces, {changes.only_good:,} only in the good one"
        f" and {changes.only_bad:,} only in the bad one"
    )
    if changes.without_effect:
        words += f"; {changes.without_effect:,} of the changes made the same bytes in another way"
    left = sum(changes.left_out)
    return words + (f"; {left:,} operators were not recorded, and nothing is said about them." if left else ".")
