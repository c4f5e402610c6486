"""Every operator of a forward pass, with the module that ran it: the ground on which tape, counterfactual and
reference stand.

An operator's address is module path + call of that module + operator + how often that operator ran in that call
before. It is the same in another dtype, and in another version that runs the same code, where a position in the whole
trace is not.
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Address:
    """One operator call: the ``occurrence``-th ``op`` that ``module`` itself (not a child) ran in its
    ``call_index``-th call.
    """

    module: str
    call_index: int
    op: str
    occurrence: int


# Hooks that also run when a module's forward raises (and the model catches that), which torch has since 2.1.
ALWAYS = {"always_call": True} if "always_call" in inspect.signature(nn.Module.register_forward_hook).parameters else {}

Visitor = Callable[[Address, Any, tuple[Any, ...], dict[str, Any]], Any]


class StopPass(BaseException):
    """Ends a forward pass that has shown what was wanted. No Exception, so that no handler in the model swallows it."""


class _Mode(TorchDispatchMode):
    def __init__(self, watch: "Watch") -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._watch.operator(func, args, kwargs or {})


class Watch:
    """Knows which module is running and hands each operator to ``visit`` while ``active``."""

    def __init__(self, visit: Visitor) -> None:
        self._visit = visit
        self.active = True
        self.stack: list[tuple[str, int]] = []
        self.calls: dict[str, int] = {}
        self._occurrences: dict[tuple[str, int, str], int] = {}
        self.entered: Optional[Callable[[str, int], None]] = None
        self.left: Optional[Callable[[str, int, Any], None]] = None

    def operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module, call = self.stack[-1] if self.stack else ("", 0)
        name = str(func)
        key = (module, call, name)
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        if not self.active:
            return func(*args, **kwargs)
        return self._visit(Address(module, call, name, occurrence), func, args, kwargs)

    def enter(self, name: str) -> None:
        index = self.calls.get(name, 0)
        self.calls[name] = index + 1
        self.stack.append((name, index))
        if self.entered:
            self.entered(name, index)

    def leave(self, name: str, output: Any) -> None:
        """``output`` is None where the call raised and the model may go on without it."""
        _, index = self.stack.pop()
        if self.left and output is not None:
            self.left(name, index, output)


@contextlib.contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """``model`` under ``watch``; a StopPass from inside ends the block quietly, and the hooks are gone afterwards."""
    handles = []

    def before(name: str) -> Any:
        return lambda module, args: watch.enter(name)

    def after(name: str) -> Any:
        return lambda module, args, output: watch.leave(name, output)

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name), **ALWAYS))
        with _Mode(watch), contextlib.suppress(StopPass):
            yield
    finally:
        for handle in handles:
            handle.remove()
