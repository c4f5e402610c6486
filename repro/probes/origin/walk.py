"""Walk back from a bad value to the operator that made it: a dynamic slice, one element at a time.

At every operator the question is put by experiment: it is run again with its bad inputs made finite. Still bad: it is
born here. Good again: the one bad input element that suffices to make the output bad is the next to follow, to the
operator that last wrote that byte. So a mask filled with -inf that softmax absorbs, log(0) that a ``where`` drops,
and ``empty`` memory that is written later are never met: nothing bad follows from them.
"""

import enum
import math
from dataclasses import dataclass, replace
from typing import Callable, Optional, Union

import torch
from torch import Tensor

from ..observe.tape import Op, Ref, Tape
from ..observe.written import LIFTS
from ..values.figures import finite_mask, first_bad_index, is_bad, is_float, scalar, unravel
from .arithmetic import LOW, Again, limit_of

STEPS = 20_000  # operators walked back before giving up: far above the number in a forward pass of the largest models

# Operators that hand out memory as it is, by PyTorch's own word. Here a walk may stop; what the memory is to blame for
# is then asked by filling it.
UNWRITTEN = frozenset((
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted", "resize", "resize_as",
))  # fmt: skip
# What only draws a number. Nothing is decided by it here: it is for those who count operators.
RANDOM = frozenset((
    "bernoulli", "dropout", "native_dropout", "rand", "rand_like", "randn", "randn_like", "normal", "uniform",
    "multinomial",
))  # fmt: skip

# What a bad input element is replaced by when it is made finite. No operator is known that makes an infinity or a NaN
# of both: 1 is a pole of atanh, erfinv and logit, 0.5 is outside of acosh; 0 would be 1/0 and log(0).
STAND_INS = (0.5, 1.0)
SAMPLES = 8  # elements of a row that are looked at one by one


class End(enum.Enum):
    """How a walk back ends."""

    BORN = "born"  # an operator made a bad value from inputs that were not to blame
    LITERAL = "literal"  # somebody wrote -inf on purpose, and it never became NaN
    UNWRITTEN = "unwritten"  # memory was read that no operator had written
    OUTSIDE = (
        "outside"  # the value was there before the recording began: a parameter, a buffer, or an input of the call
    )
    OVERWRITTEN = "overwritten"  # an operator gave a finite value, and the memory holds a bad one: no operator wrote it
    LOST = "lost"  # the walk did not end; nothing is claimed


@dataclass(frozen=True)
class Step:
    """One operator on the walk, with the bad element of its output that was followed."""

    op: Op
    output: Ref
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Origin:
    """Where a walk ended.

    step: the operator to blame (for OUTSIDE, the one that read the value); None where there is none. outside: the
    tensor and the element that came in bad. masked_row: the operator met a row that is -inf throughout, and gives a
    number for a row that is not. literal: the number that the operator was given and only writes down. read: for
    memory that no operator wrote, the operator that read it, and which element of which of its inputs. lifted: of what
    came in, the operator with which torch.tensor gave it to the program. note: why the walk was lost.
    """

    end: End
    step: Optional[Step]
    outside: Optional[tuple[Ref, tuple[int, ...]]] = None
    masked_row: bool = False
    path: tuple[Step, ...] = ()
    literal: Optional[float] = None
    read: Optional[tuple[Op, Ref, tuple[int, ...]]] = None
    lifted: Optional[Step] = None
    note: Optional[str] = None


@dataclass(frozen=True)
class _Follow:
    """The input elements to follow: one, or several of which each is needed, so that any one of them leads back.

    row: they are -inf, and the operator gives a number as soon as one of them is another one, and NaN for all of them:
    it leaves out what is -inf, and has nothing left.
    """

    ref: Ref
    indices: list[list[int]]
    row: bool = False


def trace(tape: Tape, ref: Ref, index: list[int]) -> Origin:
    """Walk back from the bad element ``index`` of ``ref``."""
    path: list[Step] = []
    seen = set()
    while len(path) < STEPS:
        written = tape.writer(ref, index)
        read = (path[-1].op, ref, tuple(index)) if path else None
        if written is None:
            step, lifted = path[-1] if path else None, _lifted(tape, ref, index)
            return Origin(End.OUTSIDE, step, (ref, tuple(index)), path=tuple(path), read=read, lifted=lifted)
        op, output, place = written
        value = scalar(output.tensor(), place)
        step = Step(op, output, tuple(place), value)
        key = (op.index, tuple(place))
        if key in seen or math.isfinite(value):
            return Origin(End.LOST, step, path=tuple(path))
        seen.add(key)
        path.append(step)
        if op.base_name in UNWRITTEN and not any(map(_is_bad_float, op.inputs())):
            return _unseen(tape, Origin(End.UNWRITTEN, step, path=tuple(path), read=read))
        if output.was_bad is False:
            return _unseen(tape, Origin(End.OVERWRITTEN, step, path=tuple(path), read=read))
        cause = _cause(step)
        if isinstance(cause, _Follow):
            ref, index = cause.ref, cause.indices[0]
            if len(cause.indices) > 1:
                return _joint(tape, path, cause)
            continue
        origin = replace(cause, path=tuple(path))
        return _turned(origin, path[:-1]) if cause.end is End.LITERAL else origin
    return Origin(End.LOST, path[-1], path=tuple(path))


def _unseen(tape: Tape, origin: Origin) -> Origin:
    """The same end, where every operator was recorded; else one of the others may have written there."""
    return origin if tape.complete else replace(origin, end=End.LOST, note="an operator could not be recorded")


def _lifted(tape: Tape, ref: Ref, index: list[int]) -> Optional[Step]:
    """The operator that torch.tensor hands its new tensor to, with the element in it."""
    byte = ref.byte_of(index)
    for op in tape.ops:
        if op.base_name in LIFTS and op.inputs() and op.inputs()[0].store is ref.store:
            given = op.inputs()[0]
            place = given.index_of(byte)
            if place is not None:
                return Step(op, op.outputs[0], tuple(place), scalar(given.tensor(), place))
    return None


def _joint(tape: Tape, path: list[Step], follow: _Follow) -> Origin:
    """Several bad elements of one input are needed together.

    A row of -inf that a mask filled (whether it wrote -inf, or its large negative number overflowed when it was added)
    is a masked row, and the operator that made NaN of it is the origin. Where any score of it is -inf because an
    earlier operator overflowed, that is this operator's fault.
    """
    step, outside = path[-1], None
    for index in _spaced(follow.indices):
        inner = trace(tape, follow.ref, index)
        whole = tuple(path) + inner.path
        if inner.end is End.BORN and inner.step is not None and not (follow.row and adds_a_mask(inner.step)):
            return replace(inner, path=whole)
        if inner.end in (End.UNWRITTEN, End.OVERWRITTEN, End.LOST):
            return replace(inner, path=whole)
        if inner.end is End.OUTSIDE:
            if not follow.row:
                return replace(inner, step=inner.step or step, path=whole)
            outside = outside or inner.outside
        if inner.end is End.LITERAL and not math.isnan(step.value):  # -inf of nothing but -inf: it is passed on
            return _turned(replace(inner, path=whole), path)
    return Origin(End.BORN, step, outside, follow.row, whole)


def _spaced(items: list[list[int]]) -> list[list[int]]:
    """The first, the last, and a few in between."""
    count = min(len(items), SAMPLES)
    return [items[at * (len(items) - 1) // max(count - 1, 1)] for at in range(count)]


def adds_a_mask(step: Step) -> bool:
    """Whether the element overflowed only because a number near the limit of its dtype was added to it: a mask that is
    written as finfo.min.

    With 0 in the mask's place it is finite, and with 1 it is larger, or smaller, by 1: it is a summand.
    """
    again, limit = Again(step.op, step.output, step.index), limit_of(step.output.dtype)

    def at(value: float, ref: Optional[Ref]) -> Optional[float]:
        def tensors(other: Ref, values: Tensor) -> Tensor:
            low = values.abs() >= LOW * limit_of(other.dtype) if other.dtype.is_floating_point else None
            return values if low is None or other is not ref else torch.where(low, value, values)

        def numbers(number: float) -> float:
            return value if abs(number) >= LOW * limit else number

        return again.value(tensors, numbers if ref is None else None, wide=True)

    for ref in [*again.inputs(), None]:
        zero, one = at(0.0, ref), at(1.0, ref)
        if zero is None or one is None or not abs(zero) <= limit:
            continue
        if math.isclose(abs(one - zero), 1.0, abs_tol=1e-12 * abs(zero) + 1e-9):
            return True
    return False


def chosen(origin: Origin, is_data: bool = False) -> Origin:
    """The same walk, if what came in from outside was put there on purpose: a mask in a buffer, or a constant.

    Only -inf is ever meant. Where an operator made NaN of it, that operator is the origin; else it did no harm.

    is_data: no module holds it. There, -inf beside other numbers than 0 is what was measured or computed.
    """
    if origin.end is not End.OUTSIDE or origin.outside is None:
        return origin
    ref, index = origin.outside
    if scalar(ref.tensor(), index) != -math.inf or not _may_be_meant(ref.tensor(), is_data):
        return origin
    literal = Origin(End.LITERAL, origin.step, origin.outside, path=origin.path)
    return _turned(literal, list(origin.path))


def _may_be_meant(values: Tensor, is_data: bool) -> bool:
    """Whether a tensor with -inf in it can be a mask, or a constant: it holds neither NaN nor +inf; as data, 0 besides
    and nothing else.
    """
    if values.numel() == 1:
        return True
    finite = finite_mask(values)
    if bool((values[~finite] != -math.inf).any()):
        return False
    return not is_data or bool(finite.any() and (values[finite] == 0).all())


def _turned(origin: Origin, path: list[Step]) -> Origin:
    """A walk that ended at a chosen value: the first operator that made NaN of it is the origin, if any did."""
    first = next((step for step in reversed(path) if math.isnan(step.value)), None)
    return origin if first is None else Origin(End.BORN, first, None, False, origin.path)


def _is_bad_float(ref: Ref) -> bool:
    return (ref.dtype.is_floating_point or ref.dtype.is_complex) and is_bad(ref.tensor())


def _cause(step: Step) -> Union[Origin, _Follow]:
    """Why this element is bad: the end of the walk, or what to follow."""
    op, output, place = step.op, step.output, list(step.index)
    kinds = [tensor.kind for tensor in op.unread()]
    if kinds:
        return Origin(End.LOST, step, note=f"{op.address.op} takes a {kinds[0]} tensor, which is not looked into")
    again = _Repaired(step)
    bad = [ref for ref in again.inputs() if is_bad(ref.tensor())]
    number = again.written()
    if not bad:
        return _made(step, number)
    if not again.bad_with({id(ref): None for ref in bad}):  # it does not repeat, as a dropout does not
        return _bad_at_the_same_place(bad, step) or _Follow(bad[0], [first_bad_index(bad[0].tensor())])
    repairable = again.can_be_repaired()
    if not repairable and number is not None:
        return _made(step, number)
    again.tame = not repairable  # it makes a bad value by itself as well; did one come in before, whatever it adds?
    for ref in bad:
        if again.bad_with({id(ref): None}):
            indices = _smallest(again, ref, output, place)
            return _Follow(ref, indices, len(indices) > 1 and again.nan and _is_row(again, ref, indices))
    if not repairable:
        return _made(step, None)
    # Only together: inf - inf. Each alone gives an infinity and no NaN, so any one of them leads back.
    return _bad_at_the_same_place(bad, step) or _Follow(bad[0], [first_bad_index(bad[0].tensor())])


def _made(step: Step, number: Optional[float]) -> Origin:
    """The end at an operator that needs none of its inputs for its bad value. Only -inf is ever meant."""
    meant = number is not None and step.value == -math.inf
    return Origin(End.LITERAL if meant else End.BORN, step, literal=None if meant else number)


def _bad_at_the_same_place(bad: list[Ref], step: Step) -> Optional[_Follow]:
    """The bad input element that stands where the output's does, if there is one."""
    for ref in bad:
        same = aligned(ref, step.output, list(step.index))
        if same is not None and not math.isfinite(scalar(ref.tensor(), same)):
            return _Follow(ref, [same])
    return None


class _Repaired(Again):
    """One operator run again with its bad input elements made finite, all of them or all but a few."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.op, step.output, step.index)
        self.nan = math.isnan(step.value)
        self._dtype = step.output.dtype
        self._stand_in = STAND_INS[0]
        self.tame = False  # whether finite inputs are replaced too, so that only what is kept can make a bad value

    def can_be_repaired(self) -> bool:
        """Whether the element is finite once all bad inputs are. If not, the operator needs no bad input to make it."""
        for stand_in in STAND_INS:
            self._stand_in = stand_in
            if _is_finite(self._with({})):
                return True
        return False

    def bad_with(self, kept: dict[int, Optional[Tensor]]) -> bool:
        """Whether the element is bad in the same way when of the bad input elements only those of ``kept`` stay.

        kept: id of an input Ref -> boolean mask of the elements that stay as they are; None for all of them.
        """
        value = self._with(kept)
        return value is not None and (math.isnan(value) if self.nan else not math.isfinite(value))

    def with_kept(self, ref: Ref, kept: Tensor) -> Optional[float]:
        """The element where of the bad elements of ``ref`` only those of the mask stay, and those of no other input."""
        return self._with({id(ref): kept})

    def _with(self, kept: dict[int, Optional[Tensor]]) -> Optional[float]:
        return self.value(lambda ref, values: self._stands_for(values, kept.get(id(ref), False)))

    def _stands_for(self, values: Tensor, stays: Union[Tensor, bool, None]) -> Tensor:
        if not is_float(values):
            return values
        if stays is None:
            stays = ~torch.isfinite(values)
        finite = torch.isfinite(values) & (not self.tame)
        if isinstance(stays, Tensor):
            finite = finite | stays
        if bool(finite.all()):
            return values
        return torch.where(finite, values, torch.full((), self._stand_in, dtype=values.dtype, device=values.device))

    def written(self) -> Optional[float]:
        """The number that the operator is given and that is to blame for the bad element: a NaN, an infinity, or one
        that the dtype does not hold. None where there is none, or where it is the arithmetic with it that overflows or
        is invalid.
        """
        if not self._dtype.is_floating_point:
            return None
        limit = limit_of(self._dtype)

        def is_beyond(number: float) -> bool:
            return not abs(number) <= limit

        beyond = [number for number in self.numbers() if is_beyond(number)]
        if not beyond:
            return None
        if not any(_is_finite(self._without(is_beyond, stand_in)) for stand_in in STAND_INS):
            return None
        number = next((number for number in beyond if not math.isfinite(number)), beyond[0])
        if not math.isfinite(number):
            return None if self.nan and not any(map(math.isnan, beyond)) else number  # else 0 * inf: the product's
        exact = self.value(wide=True)
        if exact is None or not math.isfinite(exact):
            return None
        return None if abs(exact) > limit and self._fits_when_small(limit) else number

    def _without(self, is_beyond: Callable[[float], bool], stand_in: float) -> Optional[float]:
        self._stand_in = stand_in
        return self.value(
            lambda ref, values: self._stands_for(values, False),
            lambda number: stand_in if is_beyond(number) else number,
        )

    def _fits_when_small(self, limit: float) -> bool:
        """Whether the operator can work with its number all the same, once its inputs are so small that the result
        fits. Then it was the result that did not.
        """
        for power in (4, 8, 12, 16, 32, 64):

            def smaller(ref: Ref, values: Tensor, power: int = power) -> Tensor:
                return values * 2.0**-power if is_float(values) else values

            exact = self.value(smaller, wide=True)
            if exact is not None and abs(exact) <= limit:
                return _is_finite(self.value(smaller))
        return False


def _is_finite(value: Optional[float]) -> bool:
    return value is not None and math.isfinite(value)


def _smallest(again: _Repaired, ref: Ref, output: Ref, place: list[int]) -> list[list[int]]:
    """One bad element of ``ref`` that suffices, or a few of several that are needed together.

    Halving from both ends: about 2 log2(n) runs of one operator.
    """
    values = ref.tensor()
    bad = (~finite_mask(values)).reshape(-1).nonzero().flatten()
    if bad.numel() == 1:
        return [unravel(int(bad[0]), ref.shape)]
    guesses = [int(bad[0])]
    same = aligned(ref, output, place)
    if same is not None and not math.isfinite(scalar(values, same)):
        guesses.insert(0, _flat(same, ref.shape))
    for guess in guesses:
        if again.bad_with({id(ref): _mask(ref, torch.tensor([guess]))}):
            return [unravel(guess, ref.shape)]
    bad = _shortest(lambda part: again.bad_with({id(ref): _mask(ref, part)}), bad)
    bad = _shortest(lambda part: again.bad_with({id(ref): _mask(ref, part)}), bad.flip(0)).flip(0)
    if bad.numel() == 1:
        return [unravel(int(bad[0]), ref.shape)]
    # The first and the last are needed, or they would be gone; what stands between may be of another row.
    some = _spaced([[at] for at in bad.tolist()])
    needed = [flat for (flat,) in some if not again.bad_with({id(ref): _mask(ref, bad[bad != flat])})]
    return [unravel(flat, ref.shape) for flat in needed or bad[:1].tolist()]


def _shortest(suffices: Callable[[Tensor], bool], items: Tensor) -> Tensor:
    """The fewest of the first items that suffice, by halving."""
    low, high = 0, items.numel()  # the first ``high`` suffice, the first ``low`` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(items[:middle]) else (middle, high)
    return items[:high]


def _is_row(again: _Repaired, ref: Ref, indices: list[list[int]]) -> bool:
    """Whether they are -inf, and one of them alone being another number leaves a number. A sum of products gives an
    infinity then: what made NaN of it was inf - inf.
    """
    if any(scalar(ref.tensor(), index) != -math.inf for index in indices):
        return False
    bad = (~finite_mask(ref.tensor())).reshape(-1).nonzero().flatten()
    one = _flat(indices[0], ref.shape)
    return _is_finite(again.with_kept(ref, _mask(ref, bad[bad != one])))


def _mask(ref: Ref, flat: Tensor) -> Tensor:
    mask = torch.zeros(math.prod(ref.shape), dtype=torch.bool, device=ref.store.device)
    mask[flat.to(mask.device)] = True
    return mask.reshape(ref.shape)


def aligned(ref: Ref, output: Ref, place: list[int]) -> Optional[list[int]]:
    """The element of an input that stands at the same place as the output's under broadcasting, if the shapes
    broadcast.
    """
    missing = len(output.shape) - len(ref.shape)
    if missing < 0:
        return None
    index = []
    for size, whole, at in zip(ref.shape, output.shape[missing:], place[missing:]):
        if size not in (1, whole):
            return None
        index.append(at if size == whole else 0)
    return index


def _flat(index: list[int], shape: tuple[int, ...]) -> int:
    flat = 0
    for at, size in zip(index, shape):
        flat = flat * size + at
    return flat
