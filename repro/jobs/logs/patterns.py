"""Log patterns, read strictly from TOML: for messages, and for what precedes them on a line."""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repro.core.encoding import Record, decode
from repro.core.errors import RecordError

PATTERNS = Path(__file__).parent / "patterns"
HEADS = Path(__file__).parent / "heads.toml"

ROLES = (
    "harmless", "example", "text", "skipped", "failure", "notice", "crash", "about", "quantity", "place", "sound",
)  # fmt: skip
"""What a line is. ``harmless``: a count of zero, or NaN in the name of a setting; what it matches is taken out of the
line before the others look. ``example``, ``text`` and ``skipped``: the count, text and index of one failed example.
``failure``: complete in itself. ``notice``: a step skipped by a loss scaler. ``crash``: the job ended early. ``about``:
what a job says about itself. ``quantity``: a name with NaN or Inf as its value; each match on a line counts. ``place``:
the step or epoch of a line with such a value. ``sound``: an ordinary line of a healthy loop; these are so many that
only samples are tested."""
SETTINGS = ("dtype", "layer", "max_length")
PLACES_OF_A_STEP = ("step", "epoch", "batch", "chunk")
GROUPS = (
    "example", "index", "nan", "inf", "text", "rank", "what", "value", "model", "total", "failed", "kept", "attempted",
    "scale", "skipped", "steps", "time", "level", *PLACES_OF_A_STEP, *SETTINGS,
)  # fmt: skip
PLACES = ("start", "front")
NO_PARTS: Mapping[str, str] = {}
T = TypeVar("T")


class Example(Record, frozen=True, forbid_unknown_fields=True):
    """A line, and the fields that a pattern must extract from it."""

    line: str
    fields: dict[str, str]


class _Pattern(Record, frozen=True, forbid_unknown_fields=True):
    """A pattern as its file has it."""

    name: str
    role: str
    hints: tuple[str, ...]
    regex: str
    examples: tuple[Example, ...]
    what: str | None = None
    tells: bool = False
    ends: bool = False


class _Patterns(Record, frozen=True, forbid_unknown_fields=True):
    """A file of patterns."""

    what: str
    source: str
    pattern: tuple[_Pattern, ...]
    last: bool = False
    parts: dict[str, str] | None = None
    """Pieces of expressions that several patterns share; ``<<name>>`` stands for one."""


class _Head(Record, frozen=True, forbid_unknown_fields=True):
    """A head as its file has it."""

    name: str
    where: str
    regex: str
    examples: tuple[Example, ...]
    all_lines: bool = False


class _Heads(Record, frozen=True, forbid_unknown_fields=True):
    """The file of heads."""

    head: tuple[_Head, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of message. ``id`` is file stem and name.

    Only lines that contain one of ``hints`` (lower-case ASCII) are tested. Logs are searched for the shortest hints, so
    one that contains another hint costs nothing. ``last``: tried after the others, and never inside a multi-line text.
    ``what`` is the name of a quantity that the line itself does not name. ``tells``: a log with such a line says how
    its job went, so it can be good. ``ends``: its hints are not searched for; it is tried on the lines at both ends of
    a log, where such a message stands, and on those that are found for another reason.
    """

    id: str
    role: str
    hints: tuple[str, ...]
    regex: re.Pattern[str]
    examples: tuple[Example, ...]
    last: bool = False
    what: str | None = None
    tells: bool = False
    ends: bool = False


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
        data = _read(path, _Patterns)
        found += [_pattern(path, f"pattern[{number}]", one, data) for number, one in enumerate(data.pattern)]
    return tuple(sorted(found, key=lambda one: (_stage(one.role), one.last)))


@functools.cache
def heads(path: Path = HEADS) -> tuple[Head, ...]:
    """Every head, in the order of the file.

    Raises:
        RecordError: as ``patterns``.
    """
    made = []
    for number, data in enumerate(_read(path, _Heads).head):
        place = f"head[{number}]"
        _one_of(path, f"{place}.where", data.where, PLACES)
        made.append(Head(data.name, data.where, data.all_lines, _regex(path, place, data, 0), data.examples))
    return tuple(made)


def _stage(role: str) -> int:
    """Exact roles first; all from "failure" on share one place."""
    return min(ROLES.index(role), ROLES.index("failure"))


def _pattern(path: Path, place: str, data: _Pattern, file: _Patterns) -> Pattern:
    _one_of(path, f"{place}.role", data.role, ROLES)
    sought = data.role != "place"  # a place is looked for only on lines that another pattern has found
    if (sought and not data.hints) or not all(
        len(hint) >= 3 and hint.isascii() and hint == hint.lower() for hint in data.hints
    ):
        wanted = "texts of three or more lower-case ASCII characters"
        raise RecordError(f"{path}: {place}.hints: expected {wanted}, got {list(data.hints)}.")
    regex = _regex(path, place, data, re.IGNORECASE, file.parts or NO_PARTS)
    return Pattern(
        f"{path.stem}/{data.name}",
        data.role,
        data.hints,
        regex,
        data.examples,
        file.last,
        data.what,
        data.tells,
        data.ends,
    )


def _one_of(path: Path, place: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise RecordError(f"{path}: {place}: expected one of {', '.join(known)}, got {given!r}.")


def _regex(
    path: Path, place: str, data: _Pattern | _Head, flags: int, parts: Mapping[str, str] = NO_PARTS
) -> re.Pattern[str]:
    """The compiled expression of a pattern that has examples, with its parts put in."""
    if not data.examples:
        raise RecordError(f"{path}: {place}.examples: expected at least one line with its fields, got none.")
    expression = data.regex
    for name, part in reversed([*parts.items()]):  # a part may hold those that stand above it
        expression = expression.replace(f"<<{name}>>", f"(?:{part})")
    try:
        made = re.compile(expression, flags)
    except re.error as error:
        raise RecordError(f"{path}: {place}.regex: not a regular expression: {error}.") from error
    for name in made.groupindex:
        _one_of(path, f"{place}.regex: group", name, GROUPS)
    return made


def _read(path: Path, kind: type[T]) -> T:
    try:
        return decode(kind, tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecordError(f"{path}: it cannot be read as TOML: {error}.") from error
    except RecordError as error:
        raise RecordError(f"{path}: {error}.") from error
