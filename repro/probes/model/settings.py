"""The architecture's settings as plain data: what siblings of one family can be told apart by."""

import math
import re
from typing import Any

LONGEST = 512  # entries of a list or table that is kept; label names and the like are longer
SECRET = re.compile(r"(^|_)(auth|access|api|hf|hub|secret|password|credential)s?(_|$)|^token$")
PLACE = re.compile(r"(^|_)(path|dir|directory|folder|file|url)$")
ABSOLUTE = re.compile(r"^(~|/|\\\\|[A-Za-z]:[\\/]|file:)")
OWN = frozenset({"transformers_version", "architectures", "auto_map"})  # of the file, not of the architecture


class NotPlain(Exception):
    """A value that has no place in the record."""


def settings_of(config: Any) -> dict[str, Any]:
    """``config.to_dict()`` without what is not plain data, secrets, and paths.

    Keys that this architecture spells in its own way (GPT-2's ``n_embd``) stand under the name that the library gives
    them for all (``hidden_size``). Source: PretrainedConfig.attribute_map.
    """
    to_dict = getattr(config, "to_dict", None)
    if to_dict is None:
        return {}
    common = {own: name for name, own in (getattr(config, "attribute_map", None) or {}).items()}
    return _table({key: value for key, value in to_dict().items() if key not in OWN}, common)


def _table(data: dict[Any, Any], common: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = str(key)
        if SECRET.search(name.lower()) or PLACE.search(name.lower()):
            continue
        try:
            found[common.get(name, name)] = _plain(value)
        except NotPlain:
            continue
    return found


def _plain(value: Any) -> Any:
    """The value as JSON has it; numbers that are not finite as words.

    Raises:
        NotPlain: it is an object, a path, or too long.
    """
    if isinstance(value, str):
        if ABSOLUTE.match(value):
            raise NotPlain
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (dict, list, tuple)) and len(value) <= LONGEST:
        return _table(value, {}) if isinstance(value, dict) else [_plain(item) for item in value]
    raise NotPlain
