"""The sentences that a verdict is given in. Numbers are rounded to six significant digits here, and nowhere before."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.records import number

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
    what = named_mechanism(origin, bisect)
    if what == MECHANISMS.get(mechanism, mechanism):  # no dtype's own spelling stands first
        what = what[:1].upper() + what[1:]
    where = f"{what} in {named_module(origin)}"
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


def named_module(origin: Mapping[str, Any]) -> str:
    """The module of an origin; one outside of all modules is the model's own, or the script's."""
    own = "the script itself" if origin.get("code") == "__main__" else "the model itself"
    return str(origin.get("module") or own)


def named_mechanism(origin: Mapping[str, Any], bisect: Mapping[str, Any]) -> str:
    """The mechanism in words, with the dtype where it is arithmetic."""
    mechanism = str(origin.get("mechanism") or "unknown")
    what, dtype = MECHANISMS.get(mechanism, mechanism), origin_dtype(origin, bisect)
    return f"{dtype} {what}" if dtype is not None and mechanism in ("overflow", "divide_by_zero", "invalid") else what


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


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def unused_prompt(document: Mapping[str, Any]) -> str | None:
    """A sentence where a prompt was given and the model was not asked it, for want of a tokenizer."""
    asked = (document.get("forward") or {}).get("prompts") or []
    if not document["case"]["prompts"] or not asked or any(item.get("input_source") != "seeded" for item in asked):
        return None
    return "the prompt was not used: there is no tokenizer, so the token ids were drawn from a seed."


def sentence(reason: str) -> str:
    """A reason with a capital at its start, unless it starts with a path or a name that has its own spelling."""
    first = reason.split(" ", 1)[0]
    return reason[:1].upper() + reason[1:] if first.isalpha() else reason


def visible(value: str) -> str:
    """``value`` with everything that does not print (control characters, lone surrogates, bidi marks) as escapes:
    nothing in it can move a terminal's cursor, hide text, or look like other text.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)
