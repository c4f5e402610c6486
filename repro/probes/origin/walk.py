"""Walk back from a bad value to the operator that made it: a dynamic slice, one element at a time.

At every operator the question is put by experiment: it is run again with its bad inputs made finite. Still bad: it is
born here. Good again: the one bad input element that suffices to make the output bad is the next to follow, to the
operator that last wrote that byte. So a mask filled with -inf that softmax absorbs, log(0) that a ``where`` drops,
and ``empty`` memory that is written later are never met: nothing bad follows from them.
"""

import enum
import math
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref, Tape
from ..values.figures import finite_mask, first_bad_index, is_bad, is_float, scalar, tensors_in, unravel, widen
from ..values.nest import rebuild

STEPS = 20_000  # operators walked back before giving up: far above the number in a forward pass of the largest models

# Operators that put a value that somebody chose into memory. A non-finite one from them is meant (a mask), not made.
LITERAL = frozenset((
    "full", "full_like", "new_full", "fill", "scalar_tensor", "masked_fill", "where", "constant_pad_nd",
    "lift_fresh", "lift_fresh_copy",
))  # fmt: skip
UNWRITTEN = frozenset((
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted",
))  # fmt: skip
RANDOM = frozenset((
    "bernoulli", "dropout", "native_dropout", "rand", "rand_like", "randn", "randn_like", "normal", "uniform",
    "multinomial",
))  # fmt: skip

# What a bad input element is replaced by when it is made finite. No operator is known that makes an infinity or a NaN
# of both: 1 is a pole of atanh, erfinv and logit, 0.5 is outside of acosh; 0 would be 1/0 and log(0).
STAND_INS = (0.5, 1.0)


class End(enum.Enum):
    """How a walk back ends."""

    BORN = "born"  # an operator made a bad value from inputs that were not to blame
    LITERAL = "literal"  # somebody wrote -inf on purpose, and it never became NaN
    UNWRITTEN = "unwritten"  # memory was read that nobody had written
    OUTSIDE = (
        "outside"  # the value was there before the recording began: a parameter, a buffer, or an input of the call
    )
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
    tensor and the element that came in bad. masked_row: the operator met a softmax row that is -inf throughout.
    """

    end: End
    step: Optional[Step]
    outside: Optional[tuple[Ref, tuple[int, ...]]] = None
    masked_row: bool = False
    path: tuple[Step, ...] = ()


def trace(tape: Tape, ref: Ref, index: list[int]) -> Origin:
    """Walk back from the bad element ``index`` of ``ref``."""
    path: list[Step] = []
    seen = set()
    while len(path) < STEPS:
        written = tape.writer(ref, index)
        if written is None:
            return Origin(End.OUTSIDE, path[-1] if path else None, (ref, tuple(index)), path=tuple(path))
        op, output, place = written
        value = scalar(output.tensor(), place)
        step = Step(op, output, tuple(place), value)
        key = (op.index, tuple(place))
        if key in seen or math.isfinite(value):
            return Origin(End.LOST, step, path=tuple(path))
        seen.add(key)
        path.append(step)
        cause = _cause(op, output, place)
        if isinstance(cause, End):
            origin = Origin(cause, step, path=tuple(path))
            return _turned(origin, path[:-1]) if cause is End.LITERAL else origin
        ref, indices = cause
        index = indices[0]
        if len(indices) > 1:
            return _joint(tape, path, ref, indices)
    return Origin(End.LOST, path[-1], path=tuple(path))


def _joint(tape: Tape, path: list[Step], ref: Ref, indices: list[list[int]]) -> Origin:
    """Several bad elements of one input are needed together: a row of -inf in a softmax.

    A row that a mask filled (whether it wrote -inf, or its large negative number overflowed when it was added) is a
    masked row, and the operator that made NaN of it is the origin. A row that an earlier operator overflowed into
    -inf is that operator's fault.
    """
    step = path[-1]
    inner = trace(tape, ref, indices[0])
    masked = _is_softmax(step.op) and all(scalar(ref.tensor(), index) == -math.inf for index in indices)
    if inner.end is End.BORN and inner.step is not None and not (masked and _adds_a_mask(inner.step)):
        return Origin(inner.end, inner.step, inner.outside, inner.masked_row, tuple(path) + inner.path)
    if inner.end is End.OUTSIDE and not masked:
        return Origin(inner.end, inner.step or step, inner.outside, False, tuple(path) + inner.path)
    if inner.end in (End.UNWRITTEN, End.LOST):
        return Origin(inner.end, inner.step, inner.outside, False, tuple(path) + inner.path)
    return Origin(End.BORN, step, None, masked, tuple(path) + inner.path)


def _is_softmax(op: Op) -> bool:
    """Whether the operator normalises rows of scores, for which -inf means: leave this one out."""
    return any(word in op.address.op for word in ("softmax", "logsumexp", "scaled_dot_product"))


def _adds_a_mask(step: Step) -> bool:
    """Whether an addition met a summand near the lower limit of its dtype: a mask written as finfo.min."""
    if step.op.base_name not in ("add", "sub", "baddbmm"):
        return False
    for ref in step.op.inputs():
        if (
            ref.dtype.is_floating_point
            and ref.shape
            and bool((widen(ref.tensor()) <= torch.finfo(ref.dtype).min / 2).any())
        ):
            return True
    return False


def chosen(origin: Origin) -> Origin:
    """The same walk, if what came in from outside was put there on purpose: a mask in a buffer, or a constant.

    Only -inf is ever meant. Where an operator made NaN of it, that operator is the origin; else it did no harm.
    """
    if origin.outside is None or scalar(origin.outside[0].tensor(), origin.outside[1]) != -math.inf:
        return origin
    literal = Origin(End.LITERAL, origin.step, origin.outside, path=origin.path)
    return _turned(literal, list(origin.path))


def _turned(origin: Origin, path: list[Step]) -> Origin:
    """A walk that ended at a chosen value: the first operator that made NaN of it is the origin, if any did."""
    first = next((step for step in reversed(path) if math.isnan(step.value)), None)
    return origin if first is None else Origin(End.BORN, first, None, False, origin.path)


def _cause(op: Op, output: Ref, place: list[int]) -> Any:
    """Why this element is bad: an End, or (input, elements of it) to follow."""
    literal = op.base_name in LITERAL
    inputs = [ref for ref in _distinct(op.inputs()) if ref.dtype.is_floating_point or ref.dtype.is_complex]
    bad = [ref for ref in inputs if is_bad(ref.tensor())]
    if not bad:
        if op.base_name in UNWRITTEN:
            return End.UNWRITTEN
        return End.LITERAL if literal else End.BORN
    if op.base_name in RANDOM:
        return bad[0], [first_bad_index(bad[0].tensor())]
    position = next(i for i, ref in enumerate(op.outputs + op.mutates) if ref is output or _same_place(ref, output))
    again = _Again(op, position, tuple(place), math.isnan(scalar(output.tensor(), place)))
    repairable = again.can_be_repaired()
    if literal and not repairable:
        return End.LITERAL
    again.tame = not repairable  # it makes a bad value by itself as well; did one come in before, whatever it adds?
    for ref in bad:
        if again.bad_with({id(ref): None}):
            return ref, _smallest(again, ref, output, place)
    if not repairable:
        return End.BORN
    # Only together: inf - inf. Each alone gives an infinity and no NaN, so any one of them leads back.
    return _bad_at_the_same_place(bad, output, place) or (bad[0], [first_bad_index(bad[0].tensor())])


def _bad_at_the_same_place(bad: list[Ref], output: Ref, place: list[int]) -> Optional[tuple[Ref, list[list[int]]]]:
    """The bad input element that stands where the output's does, if there is one."""
    for ref in bad:
        same = aligned(ref, output, place)
        if same is not None and not math.isfinite(scalar(ref.tensor(), same)):
            return ref, [same]
    return None


def _distinct(refs: list[Ref]) -> list[Ref]:
    return list({id(ref): ref for ref in refs}.values())


def _same_place(one: Ref, two: Ref) -> bool:
    return one.store is two.store and (one.offset, one.shape, one.stride) == (two.offset, two.shape, two.stride)


class _Again:
    """Runs one operator again on chosen inputs and looks at one element of its output."""

    def __init__(self, op: Op, position: int, place: tuple[int, ...], nan: bool) -> None:
        self._op, self._position, self._place, self._nan = op, position, place, nan
        self._mutated = {(id(ref.store), ref.offset, ref.shape) for ref in op.mutates}
        self._stand_in = STAND_INS[0]
        self.tame = False  # whether finite inputs are replaced too, so that only what is kept can make a bad value

    def can_be_repaired(self) -> bool:
        """Whether the element is finite once all bad inputs are. If not, the operator needs no bad input to make it."""
        for stand_in in STAND_INS:
            self._stand_in = stand_in
            if math.isfinite(self._value({})):
                return True
        return False

    def bad_with(self, kept: dict[int, Optional[Tensor]]) -> bool:
        """Whether the element is bad in the same way when of the bad input elements only those of ``kept`` stay.

        kept: id of an input Ref -> boolean mask of the elements that stay as they are; None for all of them.
        """
        value = self._value(kept)
        return math.isnan(value) if self._nan else not math.isfinite(value)

    def _value(self, kept: dict[int, Optional[Tensor]]) -> float:
        def make(ref: Ref) -> Tensor:
            values = ref.tensor()
            writes = (id(ref.store), ref.offset, ref.shape) in self._mutated
            stays = kept.get(id(ref), False)
            if stays is None:
                stays = ~torch.isfinite(values)
            if not is_float(values):
                return values.clone() if writes else values
            finite = torch.isfinite(values) & (not self.tame)
            if isinstance(stays, Tensor):
                finite = finite | stays
            return torch.where(finite, values, torch.full((), self._stand_in, dtype=values.dtype, device=values.device))

        args = rebuild(self._op.args, Ref, make)
        kwargs = rebuild(self._op.kwargs, Ref, make)
        with torch.no_grad():
            results = list(tensors_in(self._op.func(*args, **kwargs)))
        if self._position >= len(results):  # an operator that only writes to its argument
            return math.nan if any(is_bad(tensor) for tensor in tensors_in((args, kwargs))) else 0.0
        return scalar(results[self._position], self._place)


def _smallest(again: _Again, ref: Ref, output: Ref, place: list[int]) -> list[list[int]]:
    """One bad element of ``ref`` that suffices, or several that are needed together.

    Halving: about log2(n) runs of one operator.
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
    while bad.numel() > 1:
        half = bad.numel() // 2
        for part in (bad[:half], bad[half:]):
            if again.bad_with({id(ref): _mask(ref, part)}):
                bad = part
                break
        else:
            break
    return [unravel(int(flat), ref.shape) for flat in bad.tolist()]


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
