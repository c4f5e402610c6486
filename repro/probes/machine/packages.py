"""What is installed, and what of it a package requires: from the metadata that each distribution brings.

The standard library reads that metadata but not the language of its requirements (PEP 508), and the library that does
is none that the kit may count on. The part of it that says whether a requirement holds here is read below.
"""

import os
import platform
import re
import sys
from importlib import metadata
from typing import Any, Optional

NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?")
TOKEN = re.compile(r"\s*(?:(\(|\))|(<=|>=|===|==|~=|!=|<|>)|('[^']*'|\"[^\"]*\")|([A-Za-z_][A-Za-z0-9_.]*))")
TOP = re.compile(r"^(\w+)(?:/[^,\n]*)?\.py,", re.MULTILINE)
RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)((?:a|b|rc)\d+)?(?:\+.*)?$")


def canonical(name: str) -> str:
    """A distribution's name as registries compare it: "typing-extensions" of "typing_extensions"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Any]:
    """Canonical name -> distribution, of everything installed; the first on the path is the one that is imported."""
    found: dict[str, Any] = {}
    for distribution in metadata.distributions():
        name: Any = distribution.metadata["Name"]
        if name:  # a folder that an interrupted installation left has none
            found.setdefault(canonical(name), distribution)
    return dict(sorted(found.items()))


def modules(distributions: dict[str, Any]) -> dict[str, str]:
    """Top-level module -> distribution, where their names differ; without modules that several distributions share."""
    found: dict[str, set[str]] = {}
    for name, distribution in distributions.items():
        for module in _top_level(distribution):
            found.setdefault(module, set()).add(name)
    alone = {module: next(iter(names)) for module, names in found.items() if len(names) == 1}
    return {module: name for module, name in sorted(alone.items()) if canonical(module) != name}


def _top_level(distribution: Any) -> set[str]:
    """What of a distribution can be imported: as it says itself, else by the files that it lists."""
    said = (distribution.read_text("top_level.txt") or "").split()
    names = said or TOP.findall(distribution.read_text("RECORD") or "")
    return {name for name in names if not name.startswith("_")}


def closure(package: str, distributions: dict[str, Any]) -> list[str]:
    """Every installed distribution that the package requires, directly or not, sorted, without itself.

    Optional extras count where a requirement asks for them by name.
    """
    seen: set[tuple[str, str]] = set()
    waiting = [(canonical(package), "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name not in distributions:
            continue
        seen.add((name, extra))
        for requirement in distributions[name].requires or []:
            waiting.extend(wanted(requirement, extra))
    return sorted({name for name, _ in seen} - {canonical(package)})


def wanted(requirement: str, extra: str = "") -> list[tuple[str, str]]:
    """(distribution, extra) pairs that a requirement asks for here; none where its marker does not hold."""
    # An address may hold a semicolon itself: there the marker stands behind a space.
    text, _, marker = requirement.partition(" ;" if "@" in requirement.partition(";")[0] else ";")
    found = NAME.match(text)
    if found is None or (marker.strip() and not holds(marker, extra)):
        return []
    name = canonical(found.group(1))
    extras = [canonical(item.strip()) for item in (found.group(2) or "").split(",") if item.strip()]
    return [(name, ""), *((name, item) for item in extras)]


def holds(marker: str, extra: str = "") -> bool:
    """Whether an environment marker is true here. One that cannot be read is taken as true: nothing is left out."""
    try:
        tokens = _tokens(marker)
        value = _either(tokens, {**variables(), "extra": extra})
        return value if not tokens else True
    except (IndexError, KeyError, ValueError):
        return True


def variables() -> dict[str, str]:
    version = sys.implementation.version
    implementation = f"{version.major}.{version.minor}.{version.micro}"
    if version.releaselevel != "final":
        implementation += version.releaselevel[0] + str(version.serial)
    return {
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "implementation_name": sys.implementation.name,
        "implementation_version": implementation,
    }


def _tokens(marker: str) -> list[str]:
    """The words of a marker, last one first."""
    found, place = [], 0
    text = marker.strip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"no marker: {marker!r}")
        found.append(match.group(0).strip())
        place = match.end()
    return found[::-1]


def _either(tokens: list[str], known: dict[str, str]) -> bool:
    value = _both(tokens, known)
    while tokens and tokens[-1] == "or":
        tokens.pop()
        other = _both(tokens, known)
        value = value or other
    return value


def _both(tokens: list[str], known: dict[str, str]) -> bool:
    value = _one(tokens, known)
    while tokens and tokens[-1] == "and":
        tokens.pop()
        other = _one(tokens, known)
        value = value and other
    return value


def _one(tokens: list[str], known: dict[str, str]) -> bool:
    word = tokens.pop()
    if word == "(":
        value = _either(tokens, known)
        if tokens.pop() != ")":
            raise ValueError("a bracket is not closed")
        return value
    operator = tokens.pop()
    if operator == "not":
        operator += " " + tokens.pop()
    other = tokens.pop()
    left, right = (side[1:-1] if side[0] in "'\"" else known[side] for side in (word, other))
    if "extra" in (word, other):
        left, right = canonical(left), canonical(right)
    return _compare(left, operator, right)


def _compare(left: str, operator: str, right: str) -> bool:
    """As versions where both are releases, else as text."""
    if operator == "in":
        return left in right
    if operator == "not in":
        return left not in right
    if operator == "===":
        return left == right
    wildcard = right.endswith(".*")
    a, b = _release(left), _release(right[:-2] if wildcard else right)
    if a is None or b is None:
        return {"==": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
                ">": left > right, ">=": left >= right}[operator]  # fmt: skip
    if _is_early(left) and not wildcard and _padded(a, b) == _padded(b, a):  # 3.15.0a1 comes before 3.15, and is none
        return operator in ("<=", "!=")
    if operator == "~=":
        return _padded(a, b) >= _padded(b, a) and a[: len(b) - 1] == b[:-1]
    if wildcard:
        return (_padded(a, b)[: len(b)] == b) == (operator == "==")
    a, b = _padded(a, b), _padded(b, a)
    return {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator]


def _release(text: str) -> Optional[tuple[int, ...]]:
    found = RELEASE.match(text.strip())
    return tuple(int(part) for part in found.group(1).split(".")) if found else None


def _is_early(text: str) -> bool:
    """Whether a version is one before its release: 3.15.0a1."""
    found = RELEASE.match(text.strip())
    return found is not None and found.group(2) is not None


def _padded(numbers: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return numbers + (0,) * (len(other) - len(numbers))
