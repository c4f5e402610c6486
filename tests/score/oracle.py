"""What a program does, found out slowly in plain torch: hooks, a dispatch mode and ``isfinite``.

Nothing here uses the code under test. The oracle knows where to look, for the table says so; it checks that the place
is the first one at which sound inputs give a bad output, and that the twin has no bad output at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from corpus.plain import finite
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Sight:
    """What one pass showed.

    ``module``: the first one whose sound inputs gave a bad output. ``own``: the operators that it called itself with a
    bad output, in order. ``bad``: those of every module, with its name.
    """

    finite: bool = True
    module: str | None = None
    own: list[str] = field(default_factory=list)
    bad: frozenset[tuple[str, str]] = frozenset()


class Operators(TorchDispatchMode):
    """Keeps, by the module that is running, the operators with a bad output."""

    def __init__(self, running: list[str]) -> None:
        super().__init__()
        self.running = running
        self.bad: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not finite(output):
            self.bad.append((self.running[-1], str(func)))
        return output


def watch(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Sight:
    """One pass with a hook on every module."""
    running, sight, handles = [""], Sight(), []

    def begin(name: str) -> Any:
        return lambda *_: running.append(name)

    def end(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            running.pop()
            if sight.module is None and not finite(output) and finite((args, kwargs)):
                sight.module = name

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(begin(name)))
        handles.append(module.register_forward_hook(end(name), with_kwargs=True))
    operators = Operators(running)
    try:
        with torch.no_grad(), operators:
            output = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    sight.finite = finite(list(output.values()) if hasattr(output, "values") else output)
    sight.bad = frozenset(operators.bad)
    if sight.module is not None:
        sight.own = [op for module, op in operators.bad if module == sight.module]
    return sight
