"""A pickle as plain data, without executing it.

The instructions are read by the standard library's ``pickletools``, which only takes them apart. Where the pickle
machine would import something or call it, a ``Symbol`` or a ``Call`` stands here instead: nothing is imported, nothing
is called, whatever the file says. Source of the instructions: CPython's Lib/pickletools.py.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

MOST_INSTRUCTIONS = 20_000_000
"""Of one pickle. A checkpoint has some 50 for each tensor."""


class NotPlain(Exception):
    """It is no whole pickle, or has an instruction that no file of tensors needs."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that would be imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Table:
    """A dict, as pairs: a key may be something that cannot be hashed."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Call:
    """What a call would have returned, with what was put into it afterwards."""

    function: Any
    args: Any
    state: Any = None
    table: Table = field(default_factory=Table)
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Persistent:
    """Something outside the pickle, by its id: a tensor's storage."""

    id: Any


class _Mark:
    """The place on the stack that MARK makes."""


_MARK = _Mark()
PUSHES = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    }
)
"""Instructions whose argument is the value."""
FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": Table,
    "MARK": lambda: _MARK,
}


class _Machine:
    """The stack and the memo; each method is one instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, arg: Any) -> None:
        if name in PUSHES:
            self.stack.append(arg)
        elif name in FIXED:
            self.stack.append(FIXED[name]())
        else:
            method = getattr(self, f"do_{name.lower()}", None)
            if method is None:
                raise NotPlain(f"the instruction {name}")
            method(arg)

    def marked(self) -> list[Any]:
        """What lies above the last mark; both are taken away."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                taken = self.stack[place + 1 :]
                del self.stack[place:]
                return taken
        raise NotPlain("no mark where one must be")

    def do_proto(self, arg: Any) -> None:
        """The version of the protocol: all are read alike."""

    do_frame = do_proto

    def do_pop(self, arg: Any) -> None:
        self.stack.pop()

    def do_pop_mark(self, arg: Any) -> None:
        self.marked()

    def do_dup(self, arg: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_put(self, arg: Any) -> None:
        self.memo[arg] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, arg: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, arg: Any) -> None:
        self.stack.append(self.memo[arg])

    do_binget = do_long_binget = do_get

    def do_tuple(self, arg: Any) -> None:
        self.stack.append(tuple(self.marked()))

    def do_list(self, arg: Any) -> None:
        self.stack.append(self.marked())

    do_frozenset = do_list

    def do_tuple1(self, arg: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def do_tuple2(self, arg: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, arg: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_dict(self, arg: Any) -> None:
        self.stack.append(Table(_pairs(self.marked())))

    def do_append(self, arg: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def do_appends(self, arg: Any) -> None:
        self._extend(self.marked())

    do_additems = do_appends

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Call) else target).extend(values)

    def do_setitem(self, arg: Any) -> None:
        pair = self.stack[-2:]
        del self.stack[-2:]
        self._set(pair)

    def do_setitems(self, arg: Any) -> None:
        self._set(self.marked())

    def _set(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        (target.table if isinstance(target, Call) else target).pairs.extend(_pairs(flat))

    def do_global(self, arg: Any) -> None:
        module, _, name = str(arg).partition(" ")
        self.stack.append(Symbol(module, name))

    def do_stack_global(self, arg: Any) -> None:
        self.stack[-2:] = [Symbol(str(self.stack[-2]), str(self.stack[-1]))]

    def do_reduce(self, arg: Any) -> None:
        self.stack[-2:] = [Call(*self.stack[-2:])]

    do_newobj = do_reduce

    def do_newobj_ex(self, arg: Any) -> None:
        function, args, keywords = self.stack[-3:]
        self.stack[-3:] = [Call(function, (args, keywords))]

    def do_build(self, arg: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Call):
            target.state = state
        else:
            raise NotPlain("a state for something that was not made by a call")

    def do_binpersid(self, arg: Any) -> None:
        self.stack[-1] = Persistent(self.stack[-1])

    def do_persid(self, arg: Any) -> None:
        self.stack.append(Persistent(arg))


def load(file: IO[bytes]) -> Any:
    """The next pickle of a file; the file then stands behind it.

    Raises:
        NotPlain: it is none, or is not what tensors are saved as.
    """
    machine = _Machine()
    try:
        for number, (instruction, arg, _) in enumerate(pickletools.genops(file)):
            if instruction.name == "STOP":
                return machine.stack.pop()
            if number > MOST_INSTRUCTIONS:
                raise NotPlain(f"more than {MOST_INSTRUCTIONS:,} instructions")
            machine.step(instruction.name, arg)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise NotPlain(str(error) or type(error).__name__) from None
    raise NotPlain("it has no end")


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    if len(flat) % 2:
        raise NotPlain("a key without a value")
    return list(zip(flat[::2], flat[1::2], strict=True))
