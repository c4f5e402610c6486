"""The words of the toolkit as frozen records, and their JSON form.

A record is never changed; a change gives a new record. Numbers stay numbers. Floats that are not finite travel as the
strings "nan", "inf" and "-inf", because JSON has no word for them.
"""

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from repro.core.errors import RecordError

SCHEMA = 1
"""The number of the wire and file formats; raised when a change breaks readers."""

R = TypeVar("R")


class Outcome(enum.Enum):
    """The three answers. "Could not tell" is never folded into the other two."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


class Kind(enum.Enum):
    """What kind of fault a bad run shows; ``CRASH`` also names the reason of a skip."""

    NONFINITE = "nonfinite"
    DIVERGENT = "divergent"
    WEIGHTS = "weights"
    LOAD = "load"
    FILES = "files"
    CRASH = "crash"


class Fault(enum.Enum):
    """The fault that is hunted: a crash is bad only where the crash is it."""

    NONFINITE = "nonfinite"
    CRASH = "crash"


class Ending(enum.Enum):
    """How a step came to its end."""

    ENDED = "ended"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    NOT_RUN = "not_run"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """An answer with its reason, one sentence."""

    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Model, weights source, inputs, dtype, device and settings, as the kit reads them from the plan.

    ``model`` is a Hub id, or the absolute path of a folder, a .gguf file or a script (.py). ``weights`` is "checkpoint"
    or "random:SEED". ``config`` is the path of a configuration that ships with the package (random weights only).
    None for ``device``, ``dtype`` or ``attn`` leaves the choice to the kit, which records it.
    """

    model: str
    revision: str | None = None
    weights: str = "checkpoint"
    config: str | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None
    prompts: tuple[str, ...] = ()
    trust_remote_code: bool = False

    @property
    def is_script(self) -> bool:
        """A script answers by its own exit status; no model is loaded for it."""
        return self.model.endswith(".py") and Path(self.model).is_absolute()


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One environment: the interpreter that runs the kit."""

    python: str


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """What a cell is built from.

    ``python`` is a version such as "3.13", ``pins`` maps each package that is asked for to one exact version, and
    ``why`` is one sentence: what this cell can tell that no other can. ``lock`` is the path of a file with every
    package of the closure, or None where the closure is resolved when the cell is built.
    """

    id: str
    python: str
    device: str
    why: str
    pins: Mapping[str, str]
    lock: str | None = None

    @property
    def words(self) -> str:
        """``Python 3.13, torch 2.9.1, transformers 4.57.3``."""
        named = [f"{name} {self.pins[name]}" for name in ("torch", "transformers") if name in self.pins]
        return ", ".join([f"Python {self.python}", *named])


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the kit is asked: the steps in order, the case, and the folder it may keep things in.

    ``prompts`` says which file of prompts is run, and how. ``trials`` are answers of a reduction that is gone on with,
    by the trial's name; None for one that never ended.
    """

    steps: tuple[str, ...]
    case: Case
    cache: str
    trials: Mapping[str, bool | None] | None = None
    prompts: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a step has no payload: an exception in the kit, or the end of its process."""

    type: str
    message: str
    traceback: str | None = None
    signal: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """A step's answer or failure, whole.

    ``exit_status`` is None while the process that gave the answer goes on. ``payload`` is JSON data as the kit sent it.
    """

    step: str
    ending: Ending
    verdict: Verdict
    seconds: float
    argv: tuple[str, ...]
    cell: Cell
    kit_sha256: str
    exit_status: int | None = None
    stderr_tail: tuple[str, ...] = ()
    payload: Mapping[str, Any] | None = None
    failure: Failure | None = None

    @property
    def fatal(self) -> bool:
        """Nothing behind this step can run."""
        return self.payload is not None and self.payload.get("fatal") is True


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first line of the evidence: what was asked, of whom, with which kit."""

    case: Case
    cell: Cell
    kit_sha256: str
    tool: str
    command: tuple[str, ...]
    started: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ablation:
    """A case with one thing changed, and its verdict."""

    name: str
    change: Mapping[str, Any]
    verdict: Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """Whose fault it is, where the evidence supports an answer; else ``project`` is None and the reason says why.

    ``advice`` says how to call it instead, where the call is at fault.
    """

    project: str | None
    reason: str
    advice: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What the observations of one run amount to."""

    verdict: Verdict
    kind: Kind | None
    headline: str
    origin: Mapping[str, Any] | None
    ablations: tuple[Ablation, ...]
    workarounds: tuple[str, ...]


def to_json(value: object) -> Any:
    """A record, or anything inside one, as data that ``json.dumps(..., allow_nan=False)`` takes."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def encode(value: object, *, indent: int | None = None) -> str:
    """JSON text of a record or of plain data; one line unless ``indent`` is given."""
    return json.dumps(to_json(value), allow_nan=False, indent=indent)


def from_text(text: str) -> Any:
    """JSON data.

    Raises:
        RecordError: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise RecordError(f"no JSON: {error}") from None


def plan_text(plan: Plan) -> str:
    """PLAN.json as the kit reads it."""
    return encode({"schema": SCHEMA, **to_json(plan)}, indent=1)


def number(value: object) -> float | None:
    """The number that JSON data stands for, also where it travels as "nan", "inf" or "-inf"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    return None


def decode(record: type[R], data: object) -> R:
    """The record that JSON data stands for.

    Raises:
        RecordError: a field is missing, unknown, or of another type.
    """
    if not dataclasses.is_dataclass(record):
        raise TypeError(f"{record!r} is no record")
    if not isinstance(data, Mapping):
        raise RecordError(f"expected an object for {record.__name__}, got {type(data).__name__}")
    hints = typing.get_type_hints(record)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise RecordError(f"unknown key {unknown[0]!r} in {record.__name__}: known are {', '.join(hints)}")
    try:
        return record(**{key: _value(hints[key], item, f"{record.__name__}.{key}") for key, item in data.items()})
    except TypeError as error:
        raise RecordError(f"{record.__name__} is not complete: {error}") from None


def _value(hint: Any, data: object, place: str) -> object:
    """``data`` as the type that ``hint`` names; ``place`` is for the message."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        hint = next(item for item in typing.get_args(hint) if item is not types.NoneType)
        return _value(hint, data, place)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(typing.get_args(hint)[0], item, place) for item in data)
    if origin is not None and issubclass(origin, Mapping) and isinstance(data, Mapping):
        return data
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            try:
                return hint(data)
            except ValueError:
                raise RecordError(f"{place}: {data!r} is none of {', '.join(str(m.value) for m in hint)}") from None
        if dataclasses.is_dataclass(hint):
            return decode(hint, data)
        if hint is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        if isinstance(data, hint) and not (hint is not bool and isinstance(data, bool)):
            return data
    raise RecordError(f"{place}: expected {getattr(hint, '__name__', hint)}, got {data!r}")
