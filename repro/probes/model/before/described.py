"""config.json as data, before a library believes it; and which of its entries keeps the model from being built."""

import contextlib
import os
from typing import Any, Callable, Optional

from ...checkpoint import limits
from ...checkpoint.opening import BadJson, TooDeep, TooLong, read_json, shown

CONFIG = "config.json"
BESIDE = ("generation_config.json",)  # read by from_pretrained as well, which believes that it holds an object
IN_PLACE = 1  # the least that a size or a count can be
MOST_NAMED = 3
MOST_TRIALS = 120  # entries that are tried; large configurations have some 80


class BadConfig(Exception):
    """A file that describes the model cannot be used. The message says which, and what is wrong with it."""


def described(place: str) -> dict[str, Any]:
    """What the configuration of a folder, or a file, says.

    Raises:
        BadConfig: it is no JSON object, or a file beside it that is read with it is none.
        OverLimit: it is larger than is read without being asked.
    """
    path = os.path.join(place, CONFIG) if os.path.isdir(place) else place
    found = _object(path)
    kind = found.get("model_type")
    if "model_type" in found and not isinstance(kind, str):
        raise BadConfig(
            f"{path} says model_type {shown(kind)}, where the name of an architecture is needed, such as 'gpt2'."
            " Correct it, or write the file again with save_pretrained()."
        )
    for name in BESIDE if os.path.isdir(place) else ():
        beside = os.path.join(place, name)
        with contextlib.suppress(BadJson):
            if os.path.exists(beside):
                _object(beside)
    return found


def _object(path: str) -> dict[str, Any]:
    name = os.path.basename(path)
    try:
        found = read_json(path, limits.CONFIG_BYTES)
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror or error}.") from None
    except BadJson as error:
        if name in BESIDE and not isinstance(error, (TooDeep, TooLong)):
            raise  # the library leaves it out with a warning
        raise BadConfig(f"{path} cannot be read: {error}.{_what_it_is(path)}") from None
    if not isinstance(found, dict):
        raise BadConfig(f"{path} holds {shown(found)}, where an object with the model's settings is needed.")
    return found


def _what_it_is(path: str) -> str:
    """What such files often are instead."""
    with open(path, "rb") as stream:  # read_json found it to be a regular file
        start = stream.read(200).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return " It is a Git LFS pointer, not the file itself: run git lfs pull, or download it again."
    if start.startswith((b"<!DOCTYPE", b"<html", b"<HTML")):
        return " It is a web page: download the file itself."
    if start.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return " It begins with a byte-order mark: save it as UTF-8 without one."
    return " Write it again with save_pretrained(), or download it again."


def blamed(data: dict[str, Any], works: Callable[[dict[str, Any]], object]) -> str:
    """The entries that keep it from working, each by itself, in words; nothing where there is none, or not all were
    tried. An entry is tried without its value, and a number also as ``IN_PLACE``, for its default may not do either.

    Args:
        data: The configuration.
        works: Builds what could not be built; raises where it cannot be built from these entries either.
    """
    without = [key for key in list(data)[:MOST_TRIALS] if _does(works, data, key)]
    if 0 < len(without) <= MOST_NAMED and len(data) <= MOST_TRIALS:
        return _said(without, data, f"Without {'it' if len(without) == 1 else 'one of them'}")
    numbers = [key for key in list(data)[:MOST_TRIALS] if _is_number(data[key])] if not without else []
    other = [key for key in numbers if _does(works, {**data, key: IN_PLACE}, None)]
    if 0 < len(other) <= MOST_NAMED and len(data) <= MOST_TRIALS:
        return _said(other, data, f"With {IN_PLACE} in {'its place' if len(other) == 1 else 'place of one of them'}")
    return ""


def _does(works: Callable[[dict[str, Any]], object], data: dict[str, Any], left_out: Optional[str]) -> bool:
    with contextlib.suppress(Exception):  # whatever a constructor raises: it cannot be built so
        works({name: value for name, value in data.items() if name != left_out})
        return True
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _said(keys: list[str], data: dict[str, Any], how: str) -> str:
    entries = " and ".join(f"{key if key.isidentifier() else shown(key)} {shown(data[key])}" for key in keys)
    return (
        f"{CONFIG} says {entries}. {how} it can be built: correct {'that' if len(keys) == 1 else 'one'},"
        " or write the file again with save_pretrained()."
    )
