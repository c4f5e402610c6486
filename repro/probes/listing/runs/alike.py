"""Which arguments of a model belong together: token ids and their mask, a batch and its targets.

A smaller script in which two of them have come apart may still run, and would be no call that anybody makes. So those
of one shape in the original are of one shape in each candidate.
"""

from collections.abc import Iterable
from typing import Any, Callable

import torch
from torch import Tensor

Pair = tuple[str, str]
Shapes = dict[str, tuple[int, ...]]


def pairs_of(shapes: Shapes) -> frozenset[Pair]:
    """The names of arguments with one shape."""
    names = sorted(shapes)
    return frozenset(
        (one, other) for at, one in enumerate(names) for other in names[at + 1 :] if shapes[one] == shapes[other]
    )


def apart(shapes: Shapes, alike: Iterable[Pair]) -> list[Pair]:
    """Those that were of one shape and are not."""
    return [pair for pair in alike if all(name in shapes for name in pair) and shapes[pair[0]] != shapes[pair[1]]]


def told(tell: Callable[[Shapes], None]) -> None:
    """From now on, until the process ends, the shapes of the named arguments of each call of a module from outside of
    any are told before it runs.
    """
    original: Any = torch.nn.Module.__call__
    inside: list[bool] = []

    def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not inside:
            tell({name: tuple(value.shape) for name, value in kwargs.items() if _has_rows(value)})
        inside.append(True)
        try:
            return original(module, *args, **kwargs)
        finally:
            inside.pop()

    torch.nn.Module.__call__ = call  # type: ignore[method-assign]


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 1
