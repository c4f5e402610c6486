"""torch.compile: which callables of the program it wraps, and how the kit's own code stays out of its traces.

Dynamo follows Python code, hooks included. A hook that is traced would break the graph, or fail in code that no
compiler was meant to read, so hooks stand on what wraps a module, outside of the trace. PyTorch's compiler is never
imported here: where the program has not done so, nothing of it is compiled.
"""

import contextlib
import gc
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import nn

from ..observe.watch import inside

FRAMES = "torch._dynamo.eval_frame"
_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", None)


def is_tracing() -> bool:
    """Whether Dynamo is reading the code that asks. It takes the answer for a constant, so a hook that then returns
    leaves nothing in the graph.
    """
    return _compiling is not None and _compiling()


def wrappers_of(model: nn.Module) -> list[nn.Module]:
    """The compiled modules of this process with ``model`` inside.

    They refer to their class. All objects there are would be the ones that other threads are just making as well, and
    those fail where somebody else holds them.
    """
    kind = getattr(sys.modules.get(FRAMES), "OptimizedModule", None)
    if kind is None:
        return []
    held = gc.get_referrers(kind, *kind.__subclasses__())
    return [found for found in held if issubclass(type(found), kind) and inside(found) is model]


class _Stance:
    """PyTorch's stance is of the whole process: the first that asks for it sets it, the last puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._set = contextlib.ExitStack()

    def ask(self) -> None:
        stance = getattr(getattr(torch, "compiler", None), "set_stance", None) if FRAMES in sys.modules else None
        with self._lock:
            self._asked += 1
            if self._asked == 1 and stance is not None:
                with contextlib.suppress(RuntimeError):  # called from within compiled code, which is not left for it
                    self._set.enter_context(stance("force_eager"))

    def leave(self) -> None:
        with self._lock:
            self._asked -= 1
            if not self._asked:
                self._set.close()


_stance = _Stance()


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """What runs inside runs as it is written. Before torch 2.6 that cannot be asked for, and compiled code stays so."""
    _stance.ask()
    try:
        with _without_warning():
            yield
    finally:
        _stance.leave()


@contextlib.contextmanager
def _without_warning() -> Iterator[None]:
    """PyTorch warns the caller of a compiled module of the watch's own hooks. What the program does with its filters
    meanwhile stays, so nothing is put back but the one that is added.
    """
    warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
    added = warnings.filters[0]
    try:
        yield
    finally:
        if added in warnings.filters:
            warnings.filters.remove(added)  # type: ignore[attr-defined] # a list, whatever its stub says


class InPlace:
    """``before`` and ``after`` around the calls of a module that ``module.compile()`` has compiled in place: its own
    hooks are part of what is compiled.
    """

    def __init__(self, model: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> None:
        self._model, self._compiled = model, model._compiled_call_impl
        compiled: Any = self._compiled

        def call(*args: Any, **kwargs: Any) -> Any:
            before(model, args, kwargs)
            output = compiled(*args, **kwargs)
            after(model, args, output)
            return output

        self._own = call
        model._compiled_call_impl = call

    def remove(self) -> None:
        """As the hooks of PyTorch are removed; what was put into its place since stays."""
        if self._model._compiled_call_impl is self._own:
            self._model._compiled_call_impl = self._compiled


def compiled_in_place(model: nn.Module) -> Optional[Any]:
    """What calls of the module go to, where it was compiled in place."""
    return getattr(model, "_compiled_call_impl", None)
