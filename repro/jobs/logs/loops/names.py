"""The names on one line that are NaN or Inf, and what on it is not meant so."""

import re
from collections.abc import Sequence

from repro.jobs.logs.patterns import PLACES_OF_A_STEP, Pattern
from repro.jobs.logs.scanning import NONFINITE_WORD

LOOKED_AT = 2000
"""Characters of a line that patterns are tried on: messages start near the front, and a hostile line must not hold up
the search. Of a longer line without a NaN or Inf there, as many are looked at around the first one."""


def window(text: str) -> str:
    """The part of a line that patterns are tried on."""
    if len(text) <= LOOKED_AT or NONFINITE_WORD.search(text, 0, LOOKED_AT):
        return text[:LOOKED_AT]
    far = NONFINITE_WORD.search(text)
    if far is None:
        return text[:LOOKED_AT]
    start = max(0, far.start() - LOOKED_AT // 2)
    return text[start : start + LOOKED_AT]


def without_harmless(text: str, fitting: Sequence[Pattern]) -> tuple[Pattern | None, str]:
    """The first pattern of a harmless part, and the text with blanks in place of all such parts."""
    first = None
    for pattern in fitting:
        if pattern.role == "harmless":
            blanked = pattern.regex.sub(lambda match: " " * len(match.group()), text)
            first = first or (pattern if blanked != text else None)
            text = blanked
    return first, text


def names_on(text: str, fitting: Sequence[Pattern]) -> tuple[dict[str, str], Pattern | None, dict[str, str]]:
    """The names that are NaN or Inf, in their order on the line, the pattern of the first, and where it stands."""
    found: dict[int, tuple[str, str, Pattern, dict[str, str]]] = {}
    for pattern in fitting:
        if pattern.role == "quantity":
            for match in pattern.regex.finditer(text):
                parts = given(match)
                name = pattern.what or parts["what"].strip()
                places = {key: value for key, value in parts.items() if key in PLACES_OF_A_STEP}
                found.setdefault(match.start("value"), (name, kind_of(parts["value"]), pattern, places))
    if not found:
        return {}, None, {}
    named: dict[str, str] = {}
    for place in sorted(found):
        named.setdefault(found[place][0], found[place][1])
    _, _, pattern, places = found[min(found)]
    return named, pattern, places


def kind_of(value: str) -> str:
    """NaN or Inf, however it is spelt."""
    return "NaN" if "nan" in value.lower() else "Inf" if "inf" in value.lower() else value


def given(match: re.Match[str]) -> dict[str, str]:
    """The groups that took part in a match."""
    return {name: value for name, value in match.groupdict().items() if value is not None}
