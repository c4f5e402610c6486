"""Which arguments of a model belong together: token ids and their mask, a batch and its targets.

A smaller script in which two of them have come apart may still run, and would be no call that anybody makes. So those
of one shape in the original are of one shape in each candidate.
"""

import itertools
from collections.abc import Iterable
from typing import Any, Callable

import torch
from torch import Tensor

Pair = tuple[str, str]
Shapes = dict[str, tuple[int, ...]]


class Alike:
    """The pairs of arguments that are of one shape in each call in which both are given."""

    def __init__(self) -> None:
        self._met: set[Pair] = set()
        self._apart: set[Pair] = set()

    def look(self, shapes: Shapes) -> None:
        """At the arguments of one call."""
        pairs = [*itertools.combinations(sorted(shapes), 2)]
        self._met.update(pairs)
        self._apart.update(apart(shapes, pairs))

    @property
    def pairs(self) -> frozenset[Pair]:
        """As far as calls were looked at."""
        return frozenset(self._met - self._apart)


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
