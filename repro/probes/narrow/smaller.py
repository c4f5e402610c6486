"""A value that overflows inside and is swallowed, alone: the operators from the overflow to the first that makes a
finite number of it, with inputs as small and plain as still show it.

Each of these operators is right on what it is given, so the whole of them is held against float64: from the same
inputs, with every result in float64. What rounding allows is measured there: the same in float64 with every result
moved by a rounding of the dtype that it has in the run.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, run
from ..model.load import Loaded
from ..observe.tape import Op, Tape, record
from ..origin.arithmetic import limit_of
from ..origin.search import ROOT
from ..protocol.wire import Outcome
from ..reduce.program import Leaf, Program, Result, program_of
from ..reduce.seen import Seen
from ..reduce.shrink import shrink
from ..reduce.trials import Trials
from ..values.figures import is_bad, is_float, unravel
from ..values.nest import items_in, rebuild
from .swallowed import Swallowed

DRAWS = 8
WORST = 4.0  # times the largest of the draws
CLEAR = 2.0  # times what rounding allows, for a script to assert it
MOST = 12  # operators behind the overflow that are tried as the last one
TO_FLOAT = frozenset(("_softmax", "_log_softmax"))  # their last argument turns float16 into float32, and takes no other


@dataclass(frozen=True)
class Swallowing:
    """What must stay the same: finite inputs, a result inside that is not finite, and a finite one at the end, of this
    operator, that is not float64's.
    """

    op: str
    mechanism: str = "overflow"
    finite: bool = True

    def seen_in(self, program: Program) -> Optional[Seen]:
        """The element at the end that is farthest beyond rounding; None where none is."""
        narrow = _results(program)
        if narrow is None or not any(is_bad(tensor) for row in narrow[:-1] for tensor in row):
            return None
        wide = _results(program, _wide)
        if wide is None or len(wide[-1]) != len(narrow[-1]):
            return None
        again = [_results(program, _Rounded(narrow, seed)) for seed in range(DRAWS)]
        for number, (actual, expected) in enumerate(zip(narrow[-1], wide[-1])):
            actual = actual.cpu()
            if is_float(actual) and actual.shape == expected.shape and actual.numel():
                drawn = [run[-1][number] for run in again if run is not None]
                found = self._worst(number, actual, expected, drawn)
                if found is not None:
                    return found
        return None

    def _worst(self, number: int, actual: Tensor, expected: Tensor, drawn: list[Tensor]) -> Optional[Seen]:
        info = torch.finfo(actual.dtype)
        spread = torch.stack([(one - expected).abs() for one in drawn]).amax(0)
        allowed = WORST * spread + info.eps * expected.abs() + info.tiny * info.eps
        off = (actual.to(torch.float64) - expected).abs()
        beyond = torch.where(torch.isfinite(off) & torch.isfinite(allowed), off / allowed, torch.zeros_like(off))
        at = int(beyond.argmax())
        if float(beyond.reshape(-1)[at]) <= CLEAR:
            return None
        index = tuple(unravel(at, tuple(actual.shape)))
        value, right, most = (float(each[index]) for each in (actual, expected, allowed))
        return Seen(self.mechanism, value, right, number, index, limit_of(actual.dtype), True, most)

    def shown_by(self, program: Program) -> bool:
        """Whether the program does it, from finite inputs."""
        if str(program.calls[-1].func) != self.op or any(map(is_bad, program.leaves)):
            return False
        return self.seen_in(program) is not None


class _Rounded:
    """Moves each result in float64 by a rounding of the dtype that it has in the run, drawn at random."""

    def __init__(self, narrow: list[list[Tensor]], seed: int) -> None:
        self._dtypes = iter([tensor.dtype for row in narrow for tensor in row])
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, tensor: Tensor) -> Tensor:
        dtype = next(self._dtypes)
        if not is_float(tensor) or not dtype.is_floating_point:
            return tensor
        drawn = torch.rand(tensor.shape, generator=self._generator, dtype=torch.float64) - 0.5
        return tensor * (1 + torch.finfo(dtype).eps * drawn)


def _wide(tensor: Tensor) -> Tensor:
    return tensor


def _results(program: Program, change: Optional[Callable[[Tensor], Tensor]] = None) -> Optional[list[list[Tensor]]]:
    """What each call gives; None where it cannot be run. change: made to each result, in float64 on the CPU."""
    leaves = program.leaves if change is None else tuple(map(_doubled, program.leaves))
    results: list[list[Tensor]] = []

    def give(item: Any) -> Any:
        return leaves[item.number] if isinstance(item, Leaf) else results[item.call][item.output]

    try:
        with torch.no_grad():
            for call in program.calls:
                args, kwargs = (rebuild(nest, (Leaf, Result), give) for nest in (call.args, call.kwargs))
                if change is not None:
                    args, kwargs = (_named(nest) for nest in (args, kwargs))
                    if str(call.func).split(".")[1] in TO_FLOAT:
                        args = (*args[:2], False)
                made = list(items_in(call.func(*args, **kwargs), Tensor))
                results.append(made if change is None else list(map(change, made)))
    except (RuntimeError, TypeError, ValueError, IndexError):  # no kernel in float64, or shapes that do not fit
        return None
    return results


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.cpu().to(torch.float64) if is_float(tensor) else tensor.cpu()


def _named(nest: Any) -> Any:
    """With float64 for each floating dtype that an argument names, on the CPU."""
    nest = rebuild(nest, torch.dtype, lambda dtype: torch.float64 if dtype.is_floating_point else dtype)
    return rebuild(nest, torch.device, lambda _: torch.device("cpu"))


def reduce(loaded: Loaded, found: Swallowed, seen: Pass, trials: Trials) -> Outcome:
    """Verdict, reason and payload of the reduce step, where an overflow is swallowed."""
    assert found.address is not None
    trials.begin("the operators from the overflow on")
    made, notes = None, []
    for begin in dict.fromkeys(((found.address.module, found.address.call_index), ROOT)):
        tape = record(loaded.model, functools.partial(run, loaded.model, seen.inputs), begin, begin)
        taken: Any = next((row for row in _programs(tape, found) if row[1].shown_by(row[0])), None)
        if taken is not None:
            program, fault = taken
            made = shrink(program, fault, trials)
            if made is None:
                notes.append("the operators need more values than a script should have")
            break
    else:
        notes.append("no operators behind the overflow show it by themselves: what it changes is a branch, or far away")
    payload: dict[str, Any] = {"program": made, "notes": [*notes, *trials.notes], "trials": trials.asked}
    payload["crashed_trials"] = trials.crashed
    if made is None:
        return "skip", "; ".join(notes), payload
    ops = " then ".join(call["op"] for call in made["calls"])
    shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in made["leaves"])
    return "bad", f"{ops} on inputs of {shapes}; {trials.asked} trials", payload


def _programs(tape: Tape, found: Swallowed) -> Iterator[tuple[Program, Swallowing]]:
    """Those that end with an operator behind the overflow which reads a number that is not finite, in order."""
    first = next((op for op in tape.ops if op.address == found.address), None)
    behind = [] if first is None else tape.ops[first.index + 1 :]
    for op in [op for op in behind if _reads_bad(op)][:MOST]:
        program = program_of(tape, op)
        if program is not None and len(program.calls) > 1:
            yield program, Swallowing(str(program.calls[-1].func))


def _reads_bad(op: Op) -> bool:
    return any(is_float(ref.tensor()) and is_bad(ref.tensor()) for ref in op.inputs())
