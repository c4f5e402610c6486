"""Experiments on one operator of a whole pass: what another precision has there, whether the fault goes away without
it, and whether a value follows from what fills unset memory.
"""

import math
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..observe.memory import ByMemory, memory_of
from ..observe.source import source_line
from ..observe.tape import Op, Ref, plain, unreadable, written_by
from ..observe.watch import Address, OpCall, StopPass, Visitor, Watch, watched
from ..values.figures import finite_mask, is_bad, is_float, scalar, tensors_in, widen
from .arithmetic import limit_of, python_numbers
from .walk import UNWRITTEN

CASTS = frozenset(("aten._to_copy.default", "aten.clone.default", "aten.copy_.default", "aten.detach.default"))
FILLS = (1.0, 2.0)  # what unset memory is filled with


# --- the same place in another pass ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kin:
    """What an operator is known by in a pass that runs other operators beside it.

    producers: the operators that fed it, and those that fed them, by name and source line; operators that only cast or
    copy are looked through, for they run in one dtype only. occurrence: of those alike.
    """

    module: str
    call_index: int
    op: str
    source: Optional[str]
    producers: tuple[Any, ...]
    occurrence: int


class _Kinship:
    """Knows the Kin of each operator as a pass goes on."""

    def __init__(self) -> None:
        self._wrote: ByMemory[tuple[Any, ...]] = ByMemory()
        self._makers: ByMemory[Kin] = ByMemory()
        self._counts: dict[tuple[Any, ...], int] = {}

    def of(self, call: OpCall) -> Kin:
        here, source = call.address, source_line()
        fed = tuple(self._of(tensor) for tensor in tensors_in((call.args, call.kwargs)))
        key = (here.module, here.call_index, here.op, source, fed)
        count = self._counts[key] = self._counts.get(key, -1) + 1
        return Kin(*key, count)

    def wrote(self, call: OpCall, kin: Kin, result: Any) -> None:
        """Note what the operator wrote. A view says nothing new of its memory."""
        given = {memory_of(tensor) for tensor in tensors_in((call.args, call.kwargs))}
        fresh = [tensor for tensor in tensors_in(result) if memory_of(tensor) not in given]
        grandparents = tuple(fed[:2] for fed in kin.producers)
        label = (kin.op, kin.source, grandparents)
        if kin.op in CASTS and kin.producers:
            label = kin.producers[-1] if kin.op.startswith("aten.copy_") else kin.producers[0]
        maker = self.cast_from(call) if kin.op in CASTS else kin
        for tensor in (*fresh, *written_by(call.func, call.args, call.kwargs)):
            self._wrote.put(tensor, label)
            if maker is not None:
                self._makers.put(tensor, maker)

    def cast_from(self, call: OpCall) -> Optional[Kin]:
        """The operator that made the values that a cast or a copy is given, through other such ones."""
        given = list(tensors_in((call.args, call.kwargs)))
        return self._makers.get(given[-1]) if given else None

    def _of(self, tensor: Tensor) -> tuple[Any, ...]:
        return self._wrote.get(tensor) or ("outside", None, ())


def kin_of(model: nn.Module, run: Callable[[], Any], address: Address, through_casts: bool = False) -> Optional[Kin]:
    """The Kin of the operator at an address of this pass; through_casts: where that only casts or copies, of the one
    that made the values.
    """
    found: list[Optional[Kin]] = []
    kinship = _Kinship()

    def visit(call: OpCall) -> Any:
        kin = kinship.of(call)
        result = call.run()
        if call.address == address:
            found.append(kinship.cast_from(call) if through_casts and kin.op in CASTS else kin)
            raise StopPass
        kinship.wrote(call, kin, result)
        return result

    with watched(model, Watch(visit)):
        run()
    return found[0] if found else None


def result_at(
    model: nn.Module,
    run: Callable[[], Any],
    kin: Kin,
    output: int,
    note: Optional[Callable[[OpCall, Any], None]] = None,
) -> Optional[Tensor]:
    """The ``output``-th result of the operator that is the Kin's in this pass; None where there is none.

    note: is told of every operator before it, and of what it gave.
    """
    found: list[Tensor] = []
    kinship = _Kinship()

    def visit(call: OpCall) -> Any:
        mine = kinship.of(call)
        result = call.run()
        if mine == kin:
            results = list(tensors_in(result)) or list(written_by(call.func, call.args, call.kwargs))
            if output < len(results):
                found.append(plain(results[output].detach()).clone())
            raise StopPass
        if note is not None:
            note(call, result)
        kinship.wrote(call, mine, result)
        return result

    with watched(model, Watch(visit)):
        run()
    return found[0] if found else None


def value_at(
    model: nn.Module, run: Callable[[], Any], kin: Kin, output: int, shape: tuple[int, ...], index: tuple[int, ...]
) -> Optional[float]:
    """The element ``index`` of the operator's ``output``-th result in this pass; None if the operator is not there, or
    gives another shape.
    """
    found = result_at(model, run, kin, output)
    return None if found is None or tuple(found.shape) != tuple(shape) else scalar(found, index)


# --- repaired ----------------------------------------------------------------------------------------------------


def without_bad_values(model: nn.Module, run: Callable[[], Any], address: Address) -> Optional[Any]:
    """The model's output when every NaN and Inf that the operator gives is replaced by 0 on the spot; None if it
    never ran.
    """
    met: list[bool] = []

    def visit(call: OpCall) -> Any:
        result = call.run()
        if call.address == address:
            met.append(True)
            repair_all(call, result)
        return result

    return _watched_output(model, run, visit, met)


def with_only(model: nn.Module, run: Callable[[], Any], address: Optional[Address]) -> Optional[Any]:
    """The model's output when ``address`` is the only operator that may make bad values, or none may (None); None if it
    never ran.

    Every other operator that makes a NaN or Inf of finite inputs, or a NaN of inputs that are bad only by -inf, is
    repaired on the spot. What follows from the values of ``address`` is left alone. So a bad output means that this
    operator suffices by itself, also where later ones make the same fault again; unless the output is as bad where none
    is left alone, for a NaN that the code or a weight holds is made by no operator.
    """
    met: list[bool] = [True] if address is None else []

    def visit(call: OpCall) -> Any:
        if call.address == address:
            met.append(True)
            return call.run()
        given = [plain(t) for t in tensors_in((call.args, call.kwargs)) if is_float(t) and unreadable(t) is None]
        sound = len(given) == sum(map(is_float, tensors_in((call.args, call.kwargs))))  # else it cannot be told
        sound = sound and all(not bool((torch.isnan(wide) | (wide == math.inf)).any()) for wide in map(widen, given))
        finite_in = sound and not any(map(is_bad, given))
        result = call.run()
        if sound and not is_mask(call, result):
            repair_all(call, result, nan_only=not finite_in)
        return result

    return _watched_output(model, run, visit, met)


def is_mask(call: OpCall, result: Any) -> bool:
    """Whether the only bad values of the result are -inf, and a number in the code is to blame: they are meant."""
    floats = [plain(t) for t in tensors_in(result) if unreadable(t) is None and t.is_floating_point()]
    bad = [widen(tensor) for tensor in floats if is_bad(tensor)]
    if not bad or any(bool((torch.isnan(wide) | (wide == math.inf)).any()) for wide in bad):
        return False
    limit = min(limit_of(tensor.dtype) for tensor in floats)
    return any(number < -limit for number in python_numbers(call.func, call.args, call.kwargs))


def repair_all(call: OpCall, result: Any, nan_only: bool = False) -> None:
    """The operator's results repaired, and what it wrote to where it gives nothing back."""
    for tensor in list(tensors_in(result)) or list(written_by(call.func, call.args, call.kwargs)):
        if unreadable(tensor) is not None or not is_float(tensor):
            continue
        values = plain(tensor)
        if bool(torch.isnan(widen(values)).any()) if nan_only else is_bad(values):
            repair(values)


def _watched_output(model: nn.Module, run: Callable[[], Any], visit: Visitor, met: list[bool]) -> Optional[Any]:
    """The model's output under a visitor; None if the visitor did not meet its operator."""
    result: list[Any] = []
    with watched(model, Watch(visit)):
        result.append(run())
    return result[0] if met and result else None


def repair(tensor: Tensor, stand_in: float = 0.0, keeps_masks: bool = False) -> Tensor:
    """``stand_in`` in place of every NaN and Inf, where it lies; keeps_masks: not of -inf, which was there before."""
    with torch.no_grad():
        sound = torch.isfinite(tensor)
        if keeps_masks and not tensor.is_complex():
            sound = sound | (tensor == -math.inf)
        number = torch.full((), stand_in, dtype=tensor.dtype, device=tensor.device)
        return tensor.detach().copy_(torch.where(sound, tensor, number))


def effect(before: Tensor, after: Optional[Tensor]) -> str:
    """ "repaired", "changed" or "unchanged": what a repair did to the set of bad elements of the model's output."""
    if after is None or after.shape != before.shape:
        return "unchanged"
    bad_before, bad_after = ~finite_mask(before), ~finite_mask(after)
    if not bool(bad_after.any()):
        return "repaired"
    return "unchanged" if torch.equal(bad_before, bad_after) else "changed"


# --- filled ------------------------------------------------------------------------------------------------------


def follows_the_fill(passes: Callable[[Visitor], Any], read: tuple[Op, Ref, tuple[int, ...]]) -> Optional[bool]:
    """Whether an element that an operator reads is what unset memory was filled with when it was handed out.

    Two passes, each with another number in all memory that ``empty`` and the like give. True: the element is that
    number each time, so nothing was written there. False: it is not, so something wrote it. None: the operator was not
    met in both.

    passes: runs the program under a visitor. read: the operator that reads it, which of its inputs, and the element.
    """
    op, ref, index = read
    position = next((at for at, other in enumerate(op.inputs()) if other is ref), None)
    if position is None:
        return None
    seen: list[Optional[float]] = []
    for fill in FILLS:
        found: list[float] = []

        def visit(call: OpCall, fill: float = fill, found: list[float] = found) -> Any:
            if call.address == op.address:
                given = [plain(t) for t in tensors_in((call.args, call.kwargs)) if unreadable(t) is None]
                if position < len(given) and tuple(given[position].shape) == ref.shape:
                    found.append(scalar(given[position], index))
                raise StopPass
            return filled(call, fill)

        passes(visit)
        seen.append(found[0] if found else None)
    if None in seen:
        return None
    return seen == list(FILLS)


def filled(call: OpCall, fill: float) -> Any:
    """The operator's result; where it hands out memory as it is, that memory holds ``fill``."""
    name = call.address.base_name
    if name not in UNWRITTEN:
        return call.run()
    grown = name.startswith("resize")  # keeps the elements that are there
    kept = sum(tensor.numel() for tensor in tensors_in(call.args[:1])) if grown else 0
    result = call.run()
    for tensor in tensors_in(result):
        if unreadable(tensor) is None and tensor.numel() > kept and (not kept or tensor.is_contiguous()):
            (tensor.view(-1)[kept:] if kept else plain(tensor)).fill_(fill)
    return result


def finite_or_none(value: Optional[float]) -> Optional[float]:
    return value if value is not None and not math.isnan(value) else None
