"""A model that a script loads from files, as the class that it is, built from its configuration with seeded weights."""

import sys
from typing import Any

import torch

SEEDS = range(2)  # that are tried: with random weights a fault of certain weights is not there under any
LONGEST = 2000  # characters of a configuration that a script may hold
DTYPES = {torch.float16: ".half()", torch.bfloat16: ".bfloat16()"}


def built(name: str, model: Any) -> tuple[str, ...]:
    """Statements that make such a model in place of the one that was loaded; none for a module that is no model of
    Transformers' own, or whose configuration cannot be written down.
    """
    config: Any = getattr(model, "config", None)
    kind = type(model)
    library = sys.modules.get("transformers")
    if library is None or not hasattr(config, "to_diff_dict"):
        return ()
    names = [type(config).__name__, kind.__name__]
    if any(getattr(library, item, None) is not made for item, made in zip(names, (type(config), kind))):
        return ()
    settings = {key: value for key, value in config.to_diff_dict().items() if key not in NOT_SET and value is not None}
    attn = getattr(config, "_attn_implementation", None)
    settings.update({} if attn is None else {"attn_implementation": attn})
    if not all(key.isidentifier() and _is_plain(value) for key, value in settings.items()):
        return ()
    given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    if len(given) > LONGEST:
        return ()
    mode = "" if model.training else ".eval()"
    made = f"{name} = {names[1]}({names[0]}({given})){DTYPES.get(model.dtype, '')}{mode}"
    imported = f"from transformers import {', '.join(names)}"
    return tuple(f"{imported}\ntorch.manual_seed({seed})\n{made}" for seed in SEEDS)


NOT_SET = frozenset((
    "transformers_version", "architectures", "model_type", "torch_dtype", "dtype", "_name_or_path",
    "attn_implementation", "_attn_implementation_autoset",
))  # fmt: skip
"""Entries of a configuration that say how it was saved."""


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < float("inf"))
