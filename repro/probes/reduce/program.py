"""A few operators with their inputs, taken out of a model: the fault without the model around it.

A program is a list of operator calls in order. What a call reads is a leaf (a tensor that is given), the result of an
earlier call, or a constant. It is run under a tape, so that the walk back and the mechanism of its result are found
by the same code as in the model.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref, Tape
from ..observe.watch import Address, OpCall
from ..origin.attention import FUSED_ATTENTION
from ..values.figures import is_bad
from ..values.nest import items_in, rebuild
from .seen import MASK, Seen, kinds_in, last_of

# What a script can write down beside tensors.
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
CALLS = 24  # operators that a script may hold; a fault that needs more is shown by the module


@dataclass(frozen=True)
class Leaf:
    """The ``number``-th tensor that is given."""

    number: int


@dataclass(frozen=True)
class Result:
    """The ``output``-th tensor of the ``call``-th call."""

    call: int
    output: int


@dataclass(frozen=True)
class Call:
    """One operator: what torch runs, with Leaf and Result in the place of tensors."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Program:
    """``calls`` in order, on ``leaves``; the result of the last one is what is judged."""

    leaves: tuple[Tensor, ...]
    calls: tuple[Call, ...]

    def given(self, leaves: tuple[Tensor, ...]) -> "Program":
        return replace(self, leaves=leaves)


@dataclass(frozen=True)
class Fault:
    """What must stay the same: the operator and the mechanism; ``nan``: whether its bad value is a NaN; ``finite``:
    whether every leaf is, else a mask among them holds -inf.
    """

    op: str
    mechanism: str
    nan: bool
    finite: bool

    def seen_in(self, program: Program) -> Optional[Seen]:
        """What the program shows, be it this fault or another one."""
        return look(program)

    def shown_by(self, program: Program) -> bool:
        """Whether the program's last operator has this fault, from leaves as sound."""
        if self.finite and any(map(is_bad, program.leaves)):
            return False
        seen = look(program)
        return (
            seen is not None
            and seen.sound
            and seen.mechanism == self.mechanism
            and math.isnan(seen.value) == self.nan
            and str(program.calls[-1].func) == self.op
        )


def look(program: Program) -> Optional[Seen]:
    """What the program shows; None where its last operator makes no bad value by itself."""
    tape = Tape()
    results: list[list[Tensor]] = []
    with torch.no_grad():
        for call in program.calls:

            def give(item: Any) -> Any:
                return program.leaves[item.number] if isinstance(item, Leaf) else results[item.call][item.output]

            args = rebuild(call.args, (Leaf, Result), give)
            kwargs = rebuild(call.kwargs, (Leaf, Result), give)
            outcome = tape.visit(OpCall(Address("", 0, str(call.func), len(results)), call.func, args, kwargs))
            results.append(list(items_in(outcome, Tensor)))
    return last_of(tape, program.leaves)


def program_of(tape: Tape, last: Op, alone: bool = False) -> Optional[Program]:
    """The operator ``last`` of a recording, and before it those whose results it needs because they are not finite.

    Finite inputs become leaves, as they were. None where the operators cannot be repeated so: what they read was
    written to in between, an argument is neither tensor nor plain value, or there are too many of them.

    alone: only ``last``; what it needs is a leaf whatever it holds.
    """
    made_by = _nothing if alone else _producer
    wanted: dict[int, Op] = {last.index: last}
    queue = [last]
    while queue:
        reader = queue.pop()
        for ref in reader.inputs():
            producer = made_by(tape, reader, ref)
            if producer is not None and producer[0].index not in wanted:
                wanted[producer[0].index] = producer[0]
                queue.append(producer[0])
            if len(wanted) > CALLS:
                return None
    ops = [wanted[index] for index in sorted(wanted)]
    numbers = {op.index: number for number, op in enumerate(ops)}
    leaves: dict[int, tuple[int, Tensor]] = {}

    def place(reader: Op, ref: Ref) -> Any:
        producer = made_by(tape, reader, ref)
        if producer is not None:
            return Result(numbers[producer[0].index], producer[1])
        if id(ref) not in leaves:
            leaves[id(ref)] = (len(leaves), ref.tensor().detach())
        return Leaf(leaves[id(ref)][0])

    calls = []
    for op in ops:
        func = functional(op.func)
        if func is None or not _is_plain((op.args, op.kwargs)):
            return None
        put = functools.partial(place, op)
        calls.append(Call(func, rebuild(op.args, Ref, put), rebuild(op.kwargs, Ref, put)))
    return Program(tuple(tensor for _, tensor in leaves.values()), tuple(calls))


def _nothing(tape: Tape, reader: Op, ref: Ref) -> Optional[tuple[Op, int]]:
    """For an operator alone: no other one gives what it reads."""
    return None


def _is_plain(nest: Any) -> bool:
    """Whether arguments are Refs and what a script can write down: no generator, no complex number."""
    if isinstance(nest, dict):
        return all(map(_is_plain, nest.values()))
    if isinstance(nest, (list, tuple)):
        return all(map(_is_plain, nest))
    if isinstance(nest, Ref):
        return nest.nested is None
    return isinstance(nest, PLAIN)


def _producer(tape: Tape, reader: Op, ref: Ref) -> Optional[tuple[Op, int]]:
    """The operator that gave ``reader`` this very tensor, if that is not finite, and which of its results it is.

    None for a finite one, for one from outside, and for the mask of a fused attention, of which -inf is a rightful
    value: these are leaves.
    """
    if not is_bad(ref.tensor()) or (FUSED_ATTENTION in reader.address.op and kinds_in([ref.tensor()]) <= MASK):
        return None
    for op in reversed(tape.ops[: reader.index]):
        for number, output in enumerate(op.outputs):
            if (
                output.store is ref.store
                and output.epoch == ref.epoch
                and (output.offset, output.shape, output.stride, output.dtype)
                == (ref.offset, ref.shape, ref.stride, ref.dtype)
            ):
                return op, number
    return None


def functional(func: Any) -> Any:
    """The operator that gives its result as a new tensor where ``func`` writes it into an argument; None if torch has
    none.

    Source: PyTorch names an operator that writes in place like the other one with an underscore behind.
    """
    if not any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments):
        return func
    space, name, overload = str(func).split(".")
    packet = getattr(getattr(torch.ops, space), name.rstrip("_"), None) if name.endswith("_") else None
    twin = getattr(packet, overload, None) if packet is not None else None
    if twin is None or any(a.alias_info is not None and a.alias_info.is_write for a in twin._schema.arguments):
        return None
    return twin


def fault_of(program: Program, origin_op: str, mechanism: str) -> Optional[Fault]:
    """The fault that the program shows, if that is the origin's; else None."""
    seen = look(program)
    if seen is None or not seen.sound or seen.mechanism != mechanism:
        return None
    op = str(program.calls[-1].func)
    if op != origin_op and functional_name(origin_op) != op:
        return None
    return Fault(op, mechanism, math.isnan(seen.value), not any(map(is_bad, program.leaves)))


def functional_name(op: str) -> str:
    """ "aten.add.Tensor" of "aten.add_.Tensor"."""
    parts = op.split(".")
    return ".".join([*parts[:1], parts[1].rstrip("_"), *parts[2:]]) if len(parts) > 1 else op


def argument(item: Any, names: list[str], results: list[str]) -> Any:
    """An argument as it travels to the host."""
    if isinstance(item, Leaf):
        return {"ref": names[item.number]}
    if isinstance(item, Result):
        return {"ref": results[item.call], "result": item.output}
    if isinstance(item, (list, tuple)):
        return {"list": [argument(inner, names, results) for inner in item]}
    if isinstance(item, torch.dtype):
        return {"dtype": str(item).replace("torch.", "")}
    if isinstance(item, torch.device):
        return {"device": str(item)}
    if isinstance(item, torch.layout):
        return {"layout": str(item).replace("torch.", "")}
    if isinstance(item, torch.memory_format):
        return {"memory_format": str(item).replace("torch.", "")}
    return {"const": item}
