"""What of a run a known fault is recognised by, and whether a fault's conditions hold. Pure: no file, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

ABSENT = "none"
"""The word that a pattern names a missing value by."""
RANGES = ("torch", "transformers")
"""Conditions that are a range of versions."""
FLAGS = ("misaligned",)
PATTERNS = (
    "verdict", "kind", "mechanism", "op", "module", "module_class", "model", "model_class", "model_type", "dtype",
    "attn", "device", "platform", "signal", "source", "tensor", "token", "unset", "missing", "finding",
)  # fmt: skip
"""Conditions that are lists of patterns, one of which must fit one of the values."""
BY_DEFAULT = {"verdict": ("bad",)}
PADDING = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")

Conditions = Mapping[str, Sequence[str] | str | bool]


def facts(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The values of one run that conditions are about; none where the run does not say.

    ``token`` is "padding", "special" or "text"; ``unset`` and ``missing`` are names of buffers and weights; ``finding``
    is every sentence in which a step says what it found.
    """
    where, model = document["cell"], document["model"]
    origin, load, files = (document.get(key) or {} for key in ("origin", "load", "files"))
    found = [item.get("problem") for part in (load, files) for item in part.get("findings") or ()]
    steps = document.get("steps") or ()
    found += [step.get("reason") for step in steps if step.get("verdict") != "good"]
    single: dict[str, Any] = {
        **{key: origin.get(key) for key in ("mechanism", "op", "module", "module_class", "tensor")},
        **{key: where.get(key) for key in ("dtype", "attn", "device", "platform", "torch", "transformers")},
        "verdict": document.get("verdict"),
        "kind": document.get("kind"),
        "model": model.get("id"),
        "model_class": model.get("class"),
        "model_type": load.get("model_type"),
        "source": files.get("source"),
        "signal": next((step["signal"] for step in steps if step.get("signal")), None),
        "token": _token_kind(document, origin),
        "misaligned": "yes" if load.get("misaligned") else None,
    }
    lists = {"unset": load.get("unset_buffers"), "missing": load.get("missing_keys"), "finding": found}
    return {
        **{key: _values([value]) for key, value in single.items()},
        **{key: _values(values or ()) for key, values in lists.items()},
    }


def _values(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values if value is not None)


def _token_kind(document: Mapping[str, Any], origin: Mapping[str, Any]) -> str | None:
    token = origin.get("token")
    if token is None:
        return None
    if token in PADDING:
        return "padding"
    inputs = (document.get("reduction") or {}).get("inputs") or {}
    special = {
        text for text, is_special in zip(inputs.get("tokens") or (), inputs.get("special") or (), strict=False)
        if is_special
    }  # fmt: skip
    return "special" if token in special or (token[:1] in "<[" and token[-1:] in ">]") else "text"


def holds(conditions: Conditions, known: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every condition fits the run. A range of versions never fits a version that is not known."""
    return all(_fits(key, wanted, known.get(key, ())) for key, wanted in {**BY_DEFAULT, **conditions}.items())


def _fits(key: str, wanted: Sequence[str] | str | bool, values: tuple[str, ...]) -> bool:
    if isinstance(wanted, bool):
        return bool(values) is wanted
    if isinstance(wanted, str):
        return any(in_range(wanted, value) for value in values)
    if not values:
        return ABSENT in wanted
    return any(matches(pattern, value) for pattern in wanted for value in values)


def matches(pattern: str, value: str) -> bool:
    """Whether a pattern of ``*`` and ``?`` fits the whole value; capitals do not matter."""
    return fnmatchcase(value.lower(), pattern.lower().replace("[", "[[]"))


def in_range(specifiers: str, version: str) -> bool:
    """Whether a version, also a nightly or one with a local part, is within ``>=2.0,<2.5``."""
    try:
        return SpecifierSet(specifiers).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
