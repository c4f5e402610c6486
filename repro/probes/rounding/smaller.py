"""The operator that departs alone, with inputs as small and plain as still show it."""

import functools
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, run
from ..model.load import Loaded
from ..observe.tape import record
from ..observe.watch import Address
from ..origin.arithmetic import limit_of
from ..protocol.wire import Outcome
from ..reduce.program import Leaf, Program, program_of
from ..reduce.seen import Seen
from ..reduce.shrink import shrink
from ..reduce.trials import Trials
from ..values.figures import is_bad, is_float, tensors_in
from ..values.nest import rebuild
from .allowed import Held, held
from .check import SWEEP, Departure
from .mechanism import mechanism_of
from .part import Part, part_of
from .reference import in_float64

CLEAR = 1.5
"""How far beyond what rounding allows the worst element must be for a script to assert it."""


@dataclass(frozen=True)
class Departing:
    """What must stay the same: the operator and the mechanism, with inputs as finite as they were."""

    op: str
    mechanism: str
    finite: bool

    def seen_in(self, program: Program) -> Optional[Seen]:
        """The worst element; None where the operator is within rounding."""
        found = _departure(program)
        if found is None:
            return None
        worst = found.held
        sound = not (self.finite and any(map(is_bad, program.leaves)))
        limit = limit_of(getattr(torch, found.dtype))
        index = found.index
        mechanism = mechanism_of(found)[0]
        allowed = None if worst.swallowed else worst.allowed
        return Seen(mechanism, worst.value, worst.reference, found.result, index, limit, sound, allowed)

    def shown_by(self, program: Program) -> bool:
        """Whether the program's operator departs by this mechanism, from inputs as sound."""
        seen = self.seen_in(program)
        return seen is not None and seen.sound and seen.mechanism == self.mechanism


def reduce(loaded: Loaded, found: tuple[Departure, Pass], trials: Trials) -> Outcome:
    """Verdict, reason and payload of the reduce step, where an operator departs from float64."""
    departure, seen = found
    trials.begin("the operator alone")
    call = (departure.address.module, departure.address.call_index)
    tape = record(loaded.model, functools.partial(run, loaded.model, seen.inputs), call, call)
    last = next((op for op in tape.ops if op.address == departure.address), None)
    program = None if last is None else program_of(tape, last, alone=True)
    notes: list[str] = []
    made = None
    if departure.address.op.partition(".")[0] not in ("aten", "prims"):
        notes.append("the operator is of a library of its own, which a script of PyTorch alone does not have")
    elif program is None:
        notes.append("the operator cannot be called with its inputs alone")
    else:
        finite = not any(map(is_bad, program.leaves))
        fault: Any = Departing(str(program.calls[0].func), mechanism_of(departure)[0], finite)
        if fault.shown_by(program):
            made = shrink(program, fault, trials)
            if made is None:
                notes.append("the operator needs more values than a script should have")
        else:
            notes.append("the operator does not depart when it is called with its inputs alone")
    payload: dict[str, Any] = {"program": made, "notes": [*notes, *trials.notes], "trials": trials.asked}
    payload["crashed_trials"] = trials.crashed
    if made is None:
        return "skip", "; ".join(notes) or "nothing smaller shows it", payload
    shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in made["leaves"])
    return "bad", f"{departure.address.op} on inputs of {shapes}; {trials.asked} trials", payload


def _departure(program: Program) -> Optional[Departure]:
    """The worst result of the program's one operator, where that is clearly beyond rounding."""
    call = program.calls[-1]

    def give(leaf: Leaf) -> Tensor:
        return program.leaves[leaf.number]

    args, kwargs = rebuild(call.args, Leaf, give), rebuild(call.kwargs, Leaf, give)
    with torch.no_grad():
        results = [tensor for tensor in tensors_in(call.func(*args, **kwargs)) if is_float(tensor)]
    part = part_of(call.func, args, kwargs, "", results, SWEEP)
    expected = None if part is None else in_float64(part)
    if part is None or expected is None:
        return None
    for number, (actual, reference) in enumerate(zip(part.take(results), expected)):
        worst = held(part, number, actual, reference, exact=True)
        if worst is not None and _is_clear(worst):
            return _of(program, part, number, worst, actual, reference, results[number])
    return None


def _is_clear(worst: Held) -> bool:
    far = abs(worst.value - worst.reference) > CLEAR * worst.allowed
    return worst.swallowed or (worst.is_beyond and not worst.made and far)


def _of(
    program: Program, part: Part, number: int, worst: Held, actual: Tensor, reference: Tensor, whole: Tensor
) -> Departure:
    address = Address("", 0, str(program.calls[-1].func), 0)
    dtype = str(actual.dtype).replace("torch.", "")
    wide = actual.detach().cpu().to(torch.float64)
    index = part.place(number, worst.at)
    return Departure(address, None, None, worst, number, index, tuple(whole.shape), dtype, part, wide, reference)
