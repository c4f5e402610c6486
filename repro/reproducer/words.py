"""The sentences of a script's docstring: what it shows, whose doing that is, where it was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.core.encoding import number
from repro.core.sentences import plain
from repro.reproducer.frame import Document, model_name


@dataclass(frozen=True, slots=True)
class Shown:
    """What a script shows.

    Args:
        what: The operator as it is called in the script.
        mechanism: In the words of verdict.json.
        seen: "nan", "inf" or "-inf".
        dtype: Of the bad value.
        expected: What wider arithmetic has there; None where it is not known.
        wide: The dtype of that.
        limit: The largest finite number of ``dtype``; None where it is not known.
        attention: Whether the operator is a whole attention, which may mask a row by itself.
        sum_of: Two numbers and a sign, where the operator does nothing else: "55008 + 13376".
    """

    what: str
    mechanism: str
    seen: str
    dtype: str
    expected: float | None = None
    wide: str = "float64"
    limit: float | None = None
    attention: bool = False
    sum_of: str | None = None


def happened(shown: Shown) -> str:
    """The first sentence of a script: what can be seen in it."""
    limit = None if shown.limit is None else plain(shown.limit, 12)
    largest = f"{limit}, the largest {shown.dtype}"
    fits = shown.expected is not None and shown.limit is not None and abs(shown.expected) <= shown.limit
    value = None if shown.expected is None else plain(shown.expected, 12)
    if shown.mechanism == "overflow" and limit is not None:
        if fits:
            return (
                f"{shown.what} gives {shown.seen} in {shown.dtype} where {shown.wide} gives {value} from the same "
                f"inputs: something on the way to the result is beyond {largest}."
            )
        if shown.sum_of is not None:
            return f"{shown.sum_of} is beyond {largest}, so {shown.what} gives {shown.seen}."
        result = "the result" if value is None else f"the result, {value} in {shown.wide},"
        return f"{shown.what} gives {shown.seen}: {result} is beyond {largest}."
    if shown.mechanism == "masked_row":
        if shown.attention:
            return f"{shown.what} gives {shown.seen} for a query whose keys are all masked out."
        return f"{shown.what} gives {shown.seen}: the softmax of a row that is -inf throughout is 0 / 0."
    if shown.mechanism == "divide_by_zero":
        return f"{shown.what} gives {shown.seen}: a division by zero, or the pole of a function."
    if shown.mechanism == "invalid":
        return f"{shown.what} gives {shown.seen}: an invalid operation such as inf - inf, 0 * inf or 0 / 0."
    if value is not None and shown.mechanism == "kernel":
        return f"{shown.what} gives {shown.seen} where {shown.wide} gives {value} from the same finite inputs."
    return f"{shown.what} gives {shown.seen} from finite inputs."


def is_right(shown: Shown) -> bool:
    """Whether IEEE 754 leaves the operator no other answer: then it is no fault of who wrote the operator."""
    if shown.mechanism == "overflow":
        return shown.expected is not None and shown.limit is not None and abs(shown.expected) > shown.limit
    if shown.mechanism == "masked_row":
        return not shown.attention
    if shown.mechanism == "divide_by_zero":
        return True
    return shown.mechanism == "invalid" and shown.expected is not None and shown.expected != shown.expected


CAUSES = {"overflow": "its inputs are too large for {dtype}", "masked_row": "it was given a row without a single key"}


def cause_of(shown: Shown) -> str:
    """What was wrong with what an operator was given."""
    return CAUSES.get(shown.mechanism, "its inputs leave it no other answer").format(dtype=shown.dtype)


def whose(shown: Shown, document: Document) -> str:
    """Whether the operator is to blame, where that is known; empty where it is not."""
    if is_right(shown):
        return f"The operator is right, and this is not a PyTorch bug: {cause_of(shown)}."
    owner = (document.get("owner") or {}).get("project")
    if owner == "pytorch":
        return "No model is needed: the operator alone does it."
    return "" if owner is None else "This is not reported as a PyTorch bug."


def found_in(document: Document) -> str:
    """Model, module, source line and element, as far as they are known."""
    origin: Mapping[str, Any] = document.get("origin") or {}
    model = document["model"]
    names = [str(model["class"]), model_name(document)] if model.get("class") else [model_name(document)]
    weights = f" with random weights (seed {model.get('seed')})" if model.get("weights") == "random" else ""
    where = f"{names[0]} ({names[1]})" if len(names) > 1 else names[0]
    source = str(origin.get("source") or "")
    if document.get("script") and not origin.get("module") and source.startswith(f"{where}:"):
        return f"Found in {source}."  # a line of the script itself
    parts = [str(origin[key]) for key in ("module", "source") if origin.get(key)]
    if origin.get("token_index") is not None:
        token = origin.get("token")
        parts.append(f"token {origin['token_index']}" + (f" {token!r}" if isinstance(token, str) else ""))
    if origin.get("channel_index") is not None:
        parts.append(f"channel {origin['channel_index']}")
    return f"Found in {where}{weights}{': ' if parts else ''}{', '.join(parts)}."


def generated(document: Document) -> str:
    """Who wrote the script."""
    return f"Generated by repro-kit {document['tool']}."


def value_of(expected: Any) -> tuple[float | None, str]:
    """A reference value of a reduction and its dtype."""
    if not isinstance(expected, Mapping):
        return None, "float64"
    return number(expected.get("value")), str(expected.get("dtype") or "float64")
