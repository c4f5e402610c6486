"""What each module call of a pass is given and gives, tensor by tensor and by name; and other tensors in place of those
that it is given.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ...observe.watch import ALWAYS, PLAIN, aside
from ...values.nest import parts_of, rebuild

GIVEN, GAVE = "input", "output"


@dataclass(frozen=True)
class Call:
    """One call of a module: the ``index``-th in the ``pass_``-th pass of the model."""

    module: str
    pass_: int
    index: int


@dataclass(frozen=True)
class Point:
    """One tensor that a call is given or gives, by the name of the argument or its place in the output."""

    call: Call
    side: str
    path: str


See = Callable[[Point, Optional[Call], Tensor], Tensor]
"""Is told a point, the call that made this call, and the tensor there; gives the tensor to go on with."""


class Calls:
    """The calls of chosen modules while a model runs; ``stack`` holds those that have not ended."""

    def __init__(self, see: See) -> None:
        self._see = see
        self.stack: list[Call] = []
        self.pass_ = 0
        self._counts: dict[tuple[str, int], int] = {}
        self.ended: Optional[Callable[[Call, Any], None]] = None
        self.begun: Optional[Callable[[Call], None]] = None

    def begin_pass(self, pass_: int) -> None:
        self.pass_ = pass_
        self.stack.clear()

    def enter(self, name: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        count = self._counts.get((name, self.pass_), 0)
        self._counts[name, self.pass_] = count + 1
        call, caller = Call(name, self.pass_, count), self.stack[-1] if self.stack else None
        self.stack.append(call)
        given = [(names[at] if at < len(names) else f"argument {at}", value) for at, value in enumerate(args)]
        placed = tuple(self._passed(call, caller, GIVEN, key, value) for key, value in given)
        named = {key: self._passed(call, caller, GIVEN, key, value) for key, value in kwargs.items()}
        if self.begun:
            self.begun(call)
        return placed, named

    def leave(self, name: str, output: Any) -> None:
        call = self.stack.pop()
        while call.module != name:  # a call inside that raised, and of which no hook told
            call = self.stack.pop()
        if output is None:
            return
        caller = self.stack[-1] if self.stack else None
        if isinstance(output, Tensor):
            self._see(Point(call, GAVE, "0"), caller, output)
        else:
            parts = output if isinstance(output, (list, tuple, dict)) else parts_of(output)
            items = parts.items() if isinstance(parts, dict) else enumerate(parts)
            for key, value in items:
                for path, tensor in _tensors(value, str(key)):
                    self._see(Point(call, GAVE, path), caller, tensor)
        if self.ended:
            self.ended(call, output)

    def _passed(self, call: Call, caller: Optional[Call], side: str, key: str, value: Any) -> Any:
        """An argument with its tensors seen, and replaced where others came back."""
        if isinstance(value, Tensor):
            return self._see(Point(call, side, key), caller, value) if type(value) in PLAIN else value
        if type(value) not in (list, tuple, dict):
            return value
        changed = {id(t): self._see(Point(call, side, path), caller, t) for path, t in _tensors(value, key)}
        if all(id(new) == old for old, new in changed.items()):
            return value
        return rebuild(value, Tensor, lambda tensor: changed.get(id(tensor), tensor))


def _tensors(nest: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(nest, Tensor):
        if type(nest) in PLAIN:
            yield path, nest
    elif isinstance(nest, dict):
        for key, item in nest.items():
            yield from _tensors(item, f"{path}.{key}")
    elif isinstance(nest, (list, tuple)):
        for at, item in enumerate(nest):
            yield from _tensors(item, f"{path}.{at}")


def names_of(module: nn.Module) -> tuple[str, ...]:
    """The names of the arguments that a module's forward takes by place."""
    own = vars(module).get("forward")
    return _names(type(module).forward)[1:] if own is None else _names(own)


@functools.lru_cache(maxsize=1024)
def _names(forward: Any) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (ValueError, TypeError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


@contextlib.contextmanager
def hooked(model: nn.Module, calls: Calls, chosen: Optional[Iterable[str]] = None) -> Iterator[None]:
    """The model with ``calls`` told of its modules, or of the chosen ones, behind their own hooks."""
    wanted = None if chosen is None else set(chosen)
    handles: list[Any] = []

    def before(name: str, names: tuple[str, ...]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            with aside():
                return calls.enter(name, names, args, kwargs)

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            with aside(), torch.no_grad():
                calls.leave(name, output)

        return hook

    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) or (wanted is not None and name not in wanted):
                continue
            handles.append(module.register_forward_pre_hook(before(name, names_of(module)), with_kwargs=True))
            handles.append(module.register_forward_hook(after(name), **ALWAYS))
        yield
    finally:
        for handle in handles:
            handle.remove()
