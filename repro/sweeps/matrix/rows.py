"""One row of the table of cells, from what a cell answered, or from the reason why it did not."""

import platform
from collections.abc import Mapping
from typing import Any

from repro.core.records import Recipe

Row = dict[str, Any]
OF_CELL = ("python", "torch", "transformers", "platform", "dtype", "attn", "device")
SHORT = ("name", "verdict", "reason")
"""What a row keeps of each ablation."""


def answered(recipe: Recipe, document: Mapping[str, Any], seconds: float, command: str) -> Row:
    """The row of a cell that ran.

    Args:
        recipe: What the cell was built from.
        document: The content of its run's verdict.json.
        seconds: From the start of its process to its end.
        command: Gives this cell's answer again.
    """
    environment = document.get("environment")
    return {
        **_asked(recipe),
        **{key: document["cell"].get(key) for key in OF_CELL},
        "machine": (environment or {}).get("machine"),
        "verdict": document["verdict"],
        "reason": document["reason"],
        "kind": document["kind"],
        "origin": document["origin"],
        "ablations": [{key: ablation[key] for key in SHORT} for ablation in document["ablations"]],
        "workarounds": document["workarounds"],
        "environment": environment,
        "seconds": seconds,
        "command": command,
        "folder": recipe.id,
    }


def unanswered(recipe: Recipe, reason: str, command: str, seconds: float = 0.0) -> Row:
    """The row of a cell that could not be built here, or whose run left no verdict: skip, with the reason."""
    return {
        **_asked(recipe),
        **dict.fromkeys(OF_CELL),
        "device": recipe.device,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "verdict": "skip",
        "reason": reason,
        "kind": None,
        "origin": None,
        "ablations": [],
        "workarounds": [],
        "environment": None,
        "seconds": seconds,
        "command": command,
        "folder": None,
    }


def _asked(recipe: Recipe) -> Row:
    return {"id": recipe.id, "why": recipe.why, "asked": {"python": recipe.python, **recipe.pins}}
