"""The entries of the catalogue as records, read from their files strictly: an unknown key is an error that names it."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from repro.core.errors import RecordError
from repro.diagnosis.known.fingerprint import FLAGS, PATTERNS, RANGES, Conditions

KNOWN = Path(__file__).with_name("data")
FAULT_KEYS: dict[str, type] = {
    "issues": list, "title": str, "what": str, "outcome": str, "fingerprint": dict, "test": dict,
}  # fmt: skip
TEST_KEYS: dict[str, type] = {
    "neighbours": list, "question": str, "command": str, "verdict": str,
    "ablation": str, "cell": dict, "key": str, "is": str, "by_hand": str,
}  # fmt: skip
DOCUMENTED_KEYS: dict[str, type] = {
    "model": list, "model_type": list, "dtype": list, "source": str, "says": str, "instead": str,
}  # fmt: skip
OUTCOMES = ("bug", "not a bug")
WAYS = ("ablation", "cell", "key", "by_hand")
"""How a test is answered: by a change on the loaded model, another environment, a value of verdict.json, a person."""
CELL_KEYS = (*RANGES, "device", "platform")
CONDITIONS: dict[str, type] = {
    **dict.fromkeys(PATTERNS, list),
    **dict.fromkeys(RANGES, str),
    **dict.fromkeys(FLAGS, bool),
}


@dataclass(frozen=True, slots=True)
class FurtherTest:
    """The further test. ``how`` is one of WAYS; ``wanted`` is what it gives if the fault is this one."""

    question: str
    neighbours: tuple[str, ...]
    how: str
    what: str | Mapping[str, str]
    wanted: str
    command: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """One known fault. ``id`` is the stem of its file; ``title`` is its thread's own, where that was read."""

    id: str
    issues: tuple[str, ...]
    title: str | None
    what: str
    outcome: str
    fingerprint: Conditions
    test: FurtherTest


@dataclass(frozen=True, slots=True)
class Documented:
    """What one model's documentation rules out: patterns of the model's id and type, and dtypes."""

    id: str
    model: tuple[str, ...]
    model_type: tuple[str, ...]
    dtype: tuple[str, ...]
    source: str
    says: str
    instead: str


@functools.cache
def faults(folder: Path = KNOWN / "faults") -> tuple[Fault, ...]:
    """The catalogue, in order of the files' names.

    Raises:
        RecordError: naming file and key, for what is unknown, missing or of another kind.
    """
    found = tuple(_fault(path) for path in sorted(folder.glob("*.toml")))
    ids = {fault.id for fault in found}
    for fault in found:
        for name in fault.test.neighbours:
            if name not in ids:
                raise RecordError(
                    f"{folder / fault.id}.toml: 'test.neighbours' names {name!r}, and there is no such file."
                )
    return found


@functools.cache
def documented(folder: Path = KNOWN / "documented") -> tuple[Documented, ...]:
    """What models' own documentation rules out.

    Raises:
        RecordError: as ``faults``.
    """
    found = []
    for path in sorted(folder.glob("*.toml")):
        data = _read(path, DOCUMENTED_KEYS, optional=("model", "model_type"))
        if not data.get("model") and not data.get("model_type"):
            raise RecordError(f"{path}: 'model' or 'model_type' must say which models it is about.")
        lists = {key: _texts(path, key, data.get(key, [])) for key in ("model", "model_type", "dtype")}
        found.append(Documented(id=path.stem, **{**data, **lists}))
    return tuple(found)


def _fault(path: Path) -> Fault:
    data = _read(path, FAULT_KEYS, optional=("title", "outcome"))
    outcome = data.get("outcome", OUTCOMES[0])
    if outcome not in OUTCOMES:
        raise RecordError(f"{path}: 'outcome' must be one of {', '.join(OUTCOMES)}, got {outcome!r}.")
    return Fault(
        id=path.stem,
        issues=_texts(path, "issues", data["issues"]),
        title=data.get("title"),
        what=data["what"],
        outcome=outcome,
        fingerprint=_conditions(path, "fingerprint", data["fingerprint"]),
        test=_test(path, data["test"]),
    )


def _test(path: Path, data: Mapping[str, Any]) -> FurtherTest:
    _check(path, data, TEST_KEYS, "test.", optional=("command", "verdict", "is", *WAYS))
    ways = [way for way in WAYS if way in data]
    if len(ways) != 1:
        raise RecordError(f"{path}: 'test' must have one of {', '.join(WAYS)}, got {', '.join(ways) or 'none'}.")
    how = ways[0]
    answer = {"ablation": "verdict", "cell": "verdict", "key": "is"}.get(how)
    if answer is not None and answer not in data:
        raise RecordError(f"{path}: 'test.{answer}' is missing: what {how!r} gives if the fault is this one.")
    if answer == "verdict" and data["verdict"] not in ("good", "bad"):
        raise RecordError(f"{path}: 'test.verdict' must be good or bad, got {data['verdict']!r}.")
    if how == "cell":
        cell = dict.fromkeys(CELL_KEYS, str)
        _check(path, data["cell"], cell, "test.cell.", optional=CELL_KEYS)
        _ranges(path, "test.cell", data["cell"])
    return FurtherTest(
        question=data["question"],
        neighbours=_texts(path, "test.neighbours", data["neighbours"]),
        how=how,
        what=data[how],
        wanted="" if answer is None else data[answer],
        command=data.get("command"),
    )


def _conditions(path: Path, place: str, data: Mapping[str, Any]) -> Conditions:
    _check(path, data, CONDITIONS, f"{place}.", optional=tuple(CONDITIONS))
    if not data:
        raise RecordError(f"{path}: {place!r} must have a condition: this one fits every run.")
    _ranges(path, place, data)
    return {
        key: _texts(path, f"{place}.{key}", value) if isinstance(value, list) else value for key, value in data.items()
    }


def _ranges(path: Path, place: str, data: Mapping[str, Any]) -> None:
    for key in RANGES:
        try:
            SpecifierSet(data.get(key, ""))
        except InvalidSpecifier:
            raise RecordError(
                f"{path}: '{place}.{key}' must be a range such as '>=2.0,<2.5', got {data[key]!r}."
            ) from None


def _texts(path: Path, key: str, value: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(item, str) and item for item in value):
        raise RecordError(f"{path}: {key!r} must be a list of texts, got {value!r}.")
    return tuple(value)


def _read(path: Path, keys: Mapping[str, type], optional: tuple[str, ...]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as TOML: {error}.") from None
    _check(path, data, keys, "", optional)
    return data


def _check(
    path: Path, data: Mapping[str, Any], keys: Mapping[str, type], place: str, optional: tuple[str, ...]
) -> None:
    """Every key known, every needed one there, every value of its type."""
    for key in sorted(data.keys() - keys.keys()):
        raise RecordError(f"{path}: unknown key {place + key!r}; known: {', '.join(keys)}.")
    for key, kind in keys.items():
        if key not in data and key not in optional:
            raise RecordError(f"{path}: {place + key!r} is missing.")
        if key in data and not isinstance(data[key], kind):
            raise RecordError(f"{path}: {place + key!r} must be of type {kind.__name__}, got {data[key]!r}.")
