"""A dispatch mode that does not bring PyTorch's compiler along.

PyTorch keeps its compiler out of the code of every dispatch mode, and imports it for that on the first operator. This
takes as long as importing torch itself, and distributions no longer validate their arguments afterwards. Where the
compiler is not imported there is nothing to keep out.
"""

import sys
from typing import Any, Callable

from torch.utils._python_dispatch import TorchDispatchMode

COMPILER = "torch._dynamo"
Handler = Callable[[Any, Any, Any, Any], Any]
"""Takes operator, types, args and kwargs, as ``__torch_dispatch__`` does."""


class _Guarded(TorchDispatchMode):
    """What a mode's own class defines, PyTorch wraps: the compiler does not read it."""

    supports_higher_order_operators = True  # else torch refuses flex_attention and the like under a mode

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.handler(func, types, args, kwargs or {})


class _Unwrapped:
    """What a mode inherits is left as it is."""

    def __torch_dispatch__(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if COMPILER in sys.modules:  # the program has imported it meanwhile
            self.__class__ = _Guarded
            return self.__torch_dispatch__(func, types, args, kwargs)
        return self.handler(func, types, args, kwargs or {})


class _Plain(_Unwrapped, _Guarded):
    """A mode while the compiler is not imported."""


def mode(handler: Handler) -> TorchDispatchMode:
    """A mode under which each operator goes to ``handler``."""
    return _Guarded(handler) if COMPILER in sys.modules else _Plain(handler)
