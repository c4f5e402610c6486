"""Log patterns, read strictly from TOML: for messages, and for what precedes them on a line."""

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.errors import RecordError

PATTERNS = Path(__file__).parent / "patterns"
HEADS = Path(__file__).parent / "heads.toml"

ROLES = ("example", "text", "skipped", "harmless", "failure", "notice", "crash", "about", "sound")
"""What a line is, in the order in which patterns are tried. ``example``, ``text`` and ``skipped``: the count, text and
index of one failed example. ``harmless``: a count of zero, or NaN in the name of a setting. ``failure``: complete in
itself. ``notice``: a step skipped by a loss scaler. ``crash``: the job ended early. ``about``: what a job says about
itself. ``sound``: an ordinary line of a healthy loop; these are so many that only samples are tested."""
SETTINGS = ("dtype", "layer", "max_length")
GROUPS = frozenset(
    {"example", "index", "nan", "inf", "text", "layer", "step", "epoch", "batch", "rank", "what", "value"}
    | {"model", "total", "kept", "time", "level", *SETTINGS}
)
PLACES = ("start", "front")
FILE_KEYS: dict[str, type] = {"what": str, "source": str, "pattern": list}
PATTERN_KEYS: dict[str, type] = {"name": str, "role": str, "hints": list, "regex": str, "examples": list}
HEAD_KEYS: dict[str, type] = {"name": str, "where": str, "regex": str, "examples": list}


@dataclass(frozen=True, slots=True)
class Example:
    """A line, and the fields that a pattern must extract from it."""

    line: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of message. ``id`` is file stem and name.

    Only lines that contain one of ``hints`` (lower-case ASCII) are tested. Logs are searched for the shortest hints, so
    one that contains another hint costs nothing. ``last``: tried after the others, and never inside a multi-line text.
    """

    id: str
    role: str
    hints: tuple[str, ...]
    regex: re.Pattern[str]
    examples: tuple[Example, ...]
    last: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What precedes a message; ``all_lines``: believed only if nearly every line of the log has it."""

    name: str
    where: str
    all_lines: bool
    regex: re.Pattern[str]
    examples: tuple[Example, ...]


@functools.cache
def patterns(place: Path = PATTERNS) -> tuple[Pattern, ...]:
    """The patterns of a file or of a folder's ``.toml`` files, in the order in which they are tried: by role.

    Raises:
        RecordError: naming file and key, for one that is unknown, missing or of the wrong type.
    """
    found: list[Pattern] = []
    for path in sorted(place.glob("*.toml")) if place.is_dir() else [place]:
        data = _read(path, FILE_KEYS, {"last": bool})
        last = data.get("last", False)
        found += [_pattern(path, number, one, last) for number, one in enumerate(data["pattern"])]
    return tuple(sorted(found, key=lambda one: (_stage(one.role), one.last)))


@functools.cache
def heads(path: Path = HEADS) -> tuple[Head, ...]:
    """Every head, in the order of the file.

    Raises:
        RecordError: as ``patterns``.
    """
    made = []
    for number, data in enumerate(_read(path, {"head": list}, {})["head"]):
        where = f"head[{number}]"
        _check(path, where, data, HEAD_KEYS, {"all_lines": bool})
        if data["where"] not in PLACES:
            raise RecordError(f"{path}: '{where}.where' must be one of {', '.join(PLACES)}, got {data['where']!r}.")
        regex, examples = _regex(path, where, data["regex"], 0), _examples(path, where, data["examples"])
        made.append(Head(data["name"], data["where"], data.get("all_lines", False), regex, examples))
    return tuple(made)


def _stage(role: str) -> int:
    """Exact roles first; all from "failure" on share one place."""
    return min(ROLES.index(role), ROLES.index("failure"))


def _pattern(path: Path, number: int, data: Any, last: bool) -> Pattern:
    where = f"pattern[{number}]"
    _check(path, where, data, PATTERN_KEYS, {})
    if data["role"] not in ROLES:
        raise RecordError(f"{path}: '{where}.role' must be one of {', '.join(ROLES)}, got {data['role']!r}.")
    hints = data["hints"]
    if not hints or not all(isinstance(hint, str) and len(hint) >= 3 and _plain(hint) for hint in hints):
        raise RecordError(
            f"{path}: '{where}.hints' must be texts of three or more lower-case ASCII characters, got {hints!r}."
        )
    return Pattern(
        id=f"{path.stem}/{data['name']}",
        role=data["role"],
        hints=tuple(hints),
        regex=_regex(path, where, data["regex"], re.IGNORECASE),
        examples=_examples(path, where, data["examples"]),
        last=last,
    )


def _plain(hint: str) -> bool:
    return hint.isascii() and hint == hint.lower()


def _regex(path: Path, where: str, text: str, flags: int) -> re.Pattern[str]:
    try:
        made = re.compile(text, flags)
    except re.error as error:
        raise RecordError(f"{path}: '{where}.regex' is not a regular expression: {error}.") from error
    unknown = sorted(set(made.groupindex) - GROUPS)
    if unknown:
        raise RecordError(f"{path}: '{where}.regex' names {', '.join(unknown)}; known are {', '.join(sorted(GROUPS))}.")
    return made


def _examples(path: Path, where: str, given: list[Any]) -> tuple[Example, ...]:
    if not given:
        raise RecordError(f"{path}: '{where}.examples' is empty: give at least one line and its fields.")
    made = []
    for number, data in enumerate(given):
        _check(path, f"{where}.examples[{number}]", data, {"line": str, "fields": dict}, {})
        made.append(Example(data["line"], data["fields"]))
    return tuple(made)


def _read(path: Path, keys: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecordError(f"{path}: it cannot be read as TOML: {error}.") from error
    _check(path, "", data, keys, optional)
    return data


def _check(path: Path, where: str, data: Any, keys: Mapping[str, type], optional: Mapping[str, type]) -> None:
    """Raise for a key that is unknown, missing or of the wrong type."""
    for problem in _problems(where, data, {**keys, **optional}, keys):
        raise RecordError(f"{path}: {problem}.")


def _problems(where: str, data: Any, known: Mapping[str, type], needed: Mapping[str, type]) -> Iterator[str]:
    if not isinstance(data, dict):
        yield f"'{where}' must be a table, got {data!r}"
        return
    dot = f"{where}." if where else ""
    for key, value in data.items():
        if key not in known:
            yield f"unknown key '{dot}{key}'; known are {', '.join(known)}"
        elif not isinstance(value, known[key]):
            yield f"'{dot}{key}' must be {known[key].__name__}, got {value!r}"
    yield from (f"'{dot}{key}' is missing" for key in needed if key not in data)
