"""Records to JSON and back.

Numbers stay numbers. Floats that are not finite travel as the strings "nan", "inf" and "-inf", because JSON has no word
for them. Decoding is msgspec's: it checks every field against the record's annotations and names the place of what does
not fit. Keys that a record does not know are left out: a newer version may have written them.
"""

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from repro.core.errors import RecordError
from repro.core.records import Plan

SCHEMA = 2
"""The number of the wire and file formats; raised when a change breaks readers."""

Number = float | Literal["nan", "inf", "-inf"]
"""A float as it travels."""

R = TypeVar("R")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen record of the wire or of verdict.json; every field by name."""


S = TypeVar("S", bound=Record)


def replace(record: S, **changes: Any) -> S:
    """The record with other values in some fields."""
    return msgspec.structs.replace(record, **changes)


def to_json(value: object) -> Any:
    """A record, or anything inside one, as data that ``json.dumps(..., allow_nan=False)`` takes."""
    if type(value) in (int, str):  # first, for most are: an answer may hold millions of token ids
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {key: to_json(getattr(value, name)) for name, key in names}
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


def from_text(text: str | bytes) -> Any:
    """JSON data.

    Raises:
        RecordError: it is none.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise RecordError("no JSON: it is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"no JSON: {error}") from None
    except ValueError:  # the digits of one number: Python reads 4,300
        raise RecordError("no JSON: it holds a whole number of thousands of digits") from None


def decode(kind: type[R], data: object) -> R:
    """The record that JSON data stands for.

    Raises:
        RecordError: a field is missing or of another type; the message names the place and what was expected there.
    """
    try:
        return msgspec.convert(data, kind)
    except UnicodeEncodeError as error:  # a text that is half of a surrogate pair, which no UTF-8 can hold
        raise RecordError(f"a text holds {error.object[error.start : error.end]!r}, which is no character") from None
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        what = what[:1].lower() + what[1:].replace("`", "")
        if what.startswith("invalid enum value "):
            what = f"expected {_words(kind, place)}, got {what.removeprefix('invalid enum value ')}"
        raise RecordError(f"{place or getattr(kind, '__name__', kind)}: {what}") from None


def _words(kind: Any, place: str) -> str:
    """The words that may stand at a place such as ``cells[0].verdict``."""
    from msgspec import inspect

    found = [inspect.type_info(kind)]
    for step in re.findall(r"\[|[^.\[\]]+(?![^\[]*\])", place):
        found = [inner for item in _alternatives(found) for inner in _inside(item, step)]
    words = [str(word) for item in _alternatives(found) for word in _choices(item)]
    return f"one of {', '.join(words)}" if words else "another word"


def _alternatives(found: list[Any]) -> list[Any]:
    return [inner for item in found for inner in getattr(item, "types", (item,))]


def _inside(item: Any, step: str) -> list[Any]:
    if step == "[":
        return [inner for name in ("item_type", "value_type") if (inner := getattr(item, name, None)) is not None]
    return [field.type for field in getattr(item, "fields", ()) if field.encode_name == step]


def _choices(item: Any) -> list[Any]:
    members = getattr(getattr(item, "cls", None), "__members__", None)
    return [member.value for member in members.values()] if members else list(getattr(item, "values", ()))


def document(kind: type[R], data: object) -> R:
    """The record that the JSON data of a whole file stands for; such a record has the field ``schema``.

    Raises:
        RecordError: it is of another schema, or of another shape; the message names the place.
    """
    if not isinstance(data, dict):
        raise RecordError(f"expected a JSON object, got {type(data).__name__}")
    if data.get("schema") != SCHEMA:
        by = f", written by repro {data['tool']}" if isinstance(data.get("tool"), str) else ""
        to_do = "Run it again with this version, or read it with the one that wrote it"
        raise RecordError(f"it has schema {data.get('schema')!r}{by}, and this version reads schema {SCHEMA}. {to_do}")
    return decode(kind, data)


def number(value: object) -> float | None:
    """The number that JSON data stands for, also where it travels as "nan", "inf" or "-inf"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    return None


def plan_text(plan: Plan) -> str:
    """PLAN.json as the kit reads it."""
    return encode({"schema": SCHEMA, **to_json(plan)}, indent=1)
