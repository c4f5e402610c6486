"""Names for what a script holds: none of them means something else there."""

import re
from collections.abc import Mapping

from repro.reproducer.values import Json

TAKEN = frozenset(
    ("torch", "sys", "base64", "run", "seen", "expected", "scores", "memory", "layer", "model", "config", "output")
)
"""Names that mean something else in a script."""
SHORT = {"query": "q", "key": "k", "value": "v", "attn_mask": "mask"}
"""What people write for an operator's own names."""
CPU = ("cpu", "cpu:0")
"""The device that needs no word."""


def renamed(program: Json) -> Json:
    """The program with names that can stand in a script."""
    leaves = [leaf["name"] for leaf in program["leaves"]]
    old = [*leaves, *(call["name"] for call in program.get("calls", ()))]
    short = SHORT if set(SHORT) >= set(leaves) else {}
    new: dict[str, str] = {}
    for name in old:
        fresh = short.get(name, re.sub(r"\W", "_", name, flags=re.ASCII) or "x")
        fresh = f"{fresh}_" if fresh in TAKEN or not fresh.isidentifier() else fresh
        while fresh in new.values():
            fresh += "_"
        new[name] = fresh

    def walk(nest: object, key: str = "") -> object:
        if isinstance(nest, Mapping):
            return {name: walk(value, str(name)) for name, value in nest.items()}
        if isinstance(nest, list | tuple):
            return [walk(value) for value in nest]
        return new.get(nest, nest) if key in ("ref", "name") and isinstance(nest, str) else nest

    renamed = walk(program)
    assert isinstance(renamed, dict)
    return renamed
