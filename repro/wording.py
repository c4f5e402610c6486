"""The sentences that a verdict is given in. Numbers are rounded to six significant digits here, and nowhere before."""

from collections.abc import Mapping
from typing import Any

from repro.records import number

MECHANISMS = {
    "overflow": "overflow",
    "divide_by_zero": "division by zero",
    "invalid": "invalid operation (such as inf - inf, 0 * inf or 0/0)",
    "masked_row": "softmax of a fully masked row",
    "bad_weights": "NaN or Inf in a weight",
    "unset_memory": "unset memory",
    "misaligned": "misaligned storage",
    "kernel": "a kernel that disagrees with its reference",
    "unknown": "first bad value",
}


def origin_sentence(origin: Mapping[str, Any], bisect: Mapping[str, Any]) -> str:
    """One sentence that names the place: mechanism, module, operator, source line, element, reference, limit."""
    mechanism = str(origin.get("mechanism") or "unknown")
    what = MECHANISMS.get(mechanism, mechanism)
    dtype = origin_dtype(origin, bisect)
    if dtype is not None and mechanism in ("overflow", "divide_by_zero", "invalid"):
        what = f"{dtype} {what}"
    else:
        what = what[:1].upper() + what[1:]
    where = f"{what} in {origin.get('module') or 'the model itself'}"
    if origin.get("tensor"):
        index = origin.get("tensor_index")
        where += f": {origin['tensor']}" + (f" at {list(index)}" if index else "")
    operator = ", ".join(str(part) for part in (origin.get("op"), origin.get("source")) if part)
    if operator:
        where += f" ({operator})"
    details = [part for part in (_element(origin), _against_reference(origin, bisect, mechanism)) if part]
    if details:
        where += ("; " if origin.get("tensor") else ": ") + "; ".join(details)
    return where + "."


def origin_dtype(origin: Mapping[str, Any], bisect: Mapping[str, Any]) -> str | None:
    """The dtype of the bad output: of the operator where it is known, else of the whole model."""
    output = origin.get("output")
    for found in (output.get("dtype") if isinstance(output, Mapping) else None, bisect.get("dtype")):
        if isinstance(found, str):
            return found.removeprefix("torch.")
    return None


def _element(origin: Mapping[str, Any]) -> str:
    parts = []
    if origin.get("token_index") is not None:
        token = origin.get("token")
        parts.append(f"token {origin['token_index']}" + (f" {token!r}" if isinstance(token, str) else ""))
    if origin.get("head_index") is not None:
        parts.append(f"head {origin['head_index']}")
    if origin.get("channel_index") is not None:
        parts.append(f"channel {origin['channel_index']}")
    return ", ".join(parts)


def _against_reference(origin: Mapping[str, Any], bisect: Mapping[str, Any], mechanism: str) -> str:
    """What other arithmetic has there; the limit only where it is what was passed."""
    value = number(origin.get("reference_value"))
    reference = origin.get("reference")
    dtype = reference.get("dtype") if isinstance(reference, Mapping) else None
    parts = []
    if value is not None:
        parts.append(f"{str(dtype or 'the reference').removeprefix('torch.')} has {plain(value)} there")
    limit = number(origin.get("limit"))
    if limit is None:
        limit = number(bisect.get("limit"))
    if limit is not None and mechanism == "overflow":
        parts.append(f"the limit is {plain(limit)}")
    return ", ".join(parts)


def plain(value: float, digits: int = 6) -> str:
    """A number with so many significant digits, without an exponent where that stays short: 68394.9, 3.4e+38, nan."""
    text = f"{value:.{digits}g}"
    if "e+" in text and abs(value) < 1e9:
        return f"{value:.0f}"
    return text


def sentence(reason: str) -> str:
    """A reason with a capital at its start, unless it starts with a path or a name that has its own spelling."""
    first = reason.split(" ", 1)[0]
    return reason[:1].upper() + reason[1:] if first.isalpha() else reason
