"""Names of tensors and results that mean nothing else in a script."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from repro.core.encoding import replace
from repro.core.payloads import Leaf, Module, Program

TAKEN = frozenset(
    ("torch", "sys", "base64", "run", "seen", "expected", "scores", "memory", "layer", "model", "config", "output")
)
"""Names that a script uses for something else."""
SHORT = {"query": "q", "key": "k", "value": "v", "attn_mask": "mask"}
"""The usual short forms of an operator's own names."""
CPU = ("cpu", "cpu:0")
"""The device that a script need not name."""


def renamed_program(program: Program) -> Program:
    """The program with names that can stand in a script."""
    new = _new_names([leaf.name for leaf in program.leaves], [call.name or "out" for call in program.calls])
    calls = [
        replace(call, name=new[call.name or "out"], args=_with(new, call.args), kwargs=_with(new, call.kwargs))
        for call in program.calls
    ]
    return replace(program, leaves=_leaves(new, program.leaves), calls=tuple(calls))


def renamed_module(module: Module) -> Module:
    """The same for the inputs of a module."""
    new = _new_names([leaf.name for leaf in module.leaves], [])
    kwargs = {name: _with(new, arg) for name, arg in module.kwargs.items()}
    return replace(module, leaves=_leaves(new, module.leaves), args=_with(new, module.args), kwargs=kwargs)


def _new_names(leaves: list[str], calls: list[str]) -> dict[str, str]:
    short = SHORT if set(SHORT) >= set(leaves) else {}
    new: dict[str, str] = {}
    for name in [*leaves, *calls]:
        fresh = short.get(name, re.sub(r"\W", "_", name, flags=re.ASCII) or "x")
        fresh = f"{fresh}_" if fresh in TAKEN or not fresh.isidentifier() else fresh
        while fresh in new.values():
            fresh += "_"
        new[name] = fresh
    return new


def _leaves(new: Mapping[str, str], leaves: Iterable[Leaf]) -> tuple[Leaf, ...]:
    return tuple(replace(leaf, name=new[leaf.name]) for leaf in leaves)


def _with(new: Mapping[str, str], nest: Any) -> Any:
    """Arguments with the new names in their references."""
    if isinstance(nest, Mapping):
        return {key: new.get(value, value) if key == "ref" else _with(new, value) for key, value in nest.items()}
    return tuple(_with(new, value) for value in nest) if isinstance(nest, list | tuple) else nest
