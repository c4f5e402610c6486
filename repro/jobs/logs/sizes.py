"""Which model a name means, and how many elements one of its tokens has."""

import functools
import json
import re

from repro.core.case import MODELS, SHIPPED

WIDTHS = ("hidden_size", "n_embd", "d_model")


@functools.lru_cache(maxsize=1024)
def shipped_name(words: str) -> str | None:
    """The shipped configuration that a path or a name speaks of: ``job_1_gemma3_12b_it.err`` is gemma-3-12b.

    Of several that fit, the longest: ``gpt2-xl`` is not ``gpt2``.
    """
    fitting = [name for name in SHIPPED if _spelt(name).search(words)]
    return max(fitting, key=len, default=None)


@functools.cache
def hidden_size(name: str) -> int:
    """The width of the residual stream in a shipped configuration, in elements."""
    config = json.loads((MODELS / f"{name}.json").read_text("utf-8"))
    config = config.get("text_config", config)
    return int(next(config[key] for key in WIDTHS if key in config))


@functools.cache
def _spelt(name: str) -> re.Pattern[str]:
    """A name however its parts are joined: gemma-3-12b, gemma3_12b, Gemma3-12B."""
    parts = "[-_. ]?".join(re.escape(part) for part in name.split("-"))
    return re.compile(rf"(?<![a-z0-9]){parts}(?![a-z0-9])", re.IGNORECASE)
