"""What a function's variables hold when watched code is over: tensors, arrays and numbers, also inside of lists, dicts,
sets, queues, objects and classes.
"""

import dis
import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any, Optional

import torch
from torch import Tensor

from ..values.figures import is_bad
from ..values.nest import parts_of

DEEPEST, MOST = 4, 20_000  # levels and things that are looked at
READ_AT_ONCE = 64 << 20  # bytes of an array
KNOWN = frozenset(getattr(sys, "stdlib_module_names", ("builtins",))) | {
    "torch",
    "numpy",
    "pandas",
    "matplotlib",
    "repro",
}
"""Packages whose objects are what they are: their attributes are no variables of the program."""

AFTER_BLOCK = frozenset((
    "POP_TOP", "SWAP", "ROT_TWO", "COPY", "NOP", "LOAD_CONST", "PUSH_NULL", "PRECALL", "CALL", "CACHE", "POP_ITER",
))  # fmt: skip
"""What the interpreter does between leaving a block and the next, or the function. It computes no expression."""


def variables_of(frame: FrameType) -> dict[str, Any]:
    """A function's own variables, and the global ones that its code names."""
    named = {name: frame.f_globals[name] for name in frame.f_code.co_names if name in frame.f_globals}
    return {**named, **frame.f_locals}


def held_in(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, thing) of every tensor, array (as a tensor) and float; what stands in a variable by itself comes first.

    Variables with a leading underscore are the program's own affair.
    """
    level = [(name, value) for name, value in variables.items() if not name.startswith("_")]
    met: set[int] = set()
    left = MOST
    for _ in range(DEEPEST):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            left -= 1
            if left < 0:
                return
            thing = _thing(value)
            if thing is not None:
                yield path, thing
            elif id(value) not in met:
                met.add(id(value))
                below.extend(_below(path, value, left - len(below)))
        level = below


def _thing(value: Any) -> Optional[Any]:
    if isinstance(value, (Tensor, float)):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if type(value).__module__ != "numpy" or kind not in ("f", "c"):
        return None
    return _behind(value) if getattr(value, "ndim", 0) else float(value) if kind == "f" else None


def bad_copies_in(variables: Mapping[str, Any]) -> Iterator[str]:
    """The variables that are arrays of NumPy's own memory, of a size that is read at once, with a NaN or +inf in it."""
    for name, value in variables.items():
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        if type(value).__module__ != "numpy" or kind != "f" or not 0 < getattr(value, "nbytes", 0) <= READ_AT_ONCE:
            continue
        if _behind(value) is None and not bool((value < math.inf).all()):
            yield name


def _behind(array: Any) -> Optional[Tensor]:
    """The tensor whose memory an array of NumPy's shows; None where it is its own, or all that it shows is finite."""
    base = array
    while base is not None and not isinstance(base, Tensor):
        base = getattr(base, "base", None)
    return base if base is not None and is_bad(torch.as_tensor(array)) else None


def _below(path: str, value: Any, most: int) -> Iterator[tuple[str, Any]]:
    """What stands in a value, as far as there is room."""
    if most <= 0 or isinstance(value, ModuleType):
        return
    if isinstance(value, (list, tuple, deque)):
        yield from ((f"{path}[{at}]", item) for at, item in zip(range(most), list(value)))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"an item of {path}", item) for item, _ in zip(list(value), range(most)))
    elif isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", item) for (key, item), _ in zip(list(dict.items(value)), range(most)))
    elif (value if isinstance(value, type) else type(value)).__module__.partition(".")[0] not in KNOWN:
        parts = zip((dict(vars(value)) if isinstance(value, type) else parts_of(value)).items(), range(most))
        yield from ((f"{path}.{key}", item) for (key, item), _ in parts if not str(key).startswith("_"))


def is_odd(value: float) -> bool:
    """Whether a number is one that a program may not want: NaN, or +inf. A mask, or the best of none, is -inf."""
    return math.isnan(value) or value == math.inf


def is_returning(frame: FrameType) -> bool:
    """Whether a function that leaves a ``with`` block is about to return what it computed before. No variable holds
    that.
    """
    before = ""
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset <= frame.f_lasti:
            continue
        if instruction.opname == "RETURN_VALUE":
            return before not in ("", "LOAD_CONST")
        if instruction.opname not in AFTER_BLOCK:
            return False
        before = instruction.opname
    return False
