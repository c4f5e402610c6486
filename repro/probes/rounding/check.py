"""Every operator of a pass held against float64 of its own inputs: each answers for its own error only."""

import collections
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.source import source_here
from ..observe.tape import is_view, unreadable, written_by
from ..observe.watch import Address, OpCall
from ..origin.walk import RANDOM, UNWRITTEN
from ..values.figures import any_bad_in, dtype_name, is_bad, is_float, scalar, tensors_in, unravel
from ..values.nest import rebuild
from .allowed import Held, held
from .attention import is_attention
from .part import SMALL, Part, part_of
from .reference import in_float64

TRIES = 10
"""Inputs, each moved a little, on which a departure must show: one input is no distribution."""
OF_TRIES = 8
FAR = 16.0
"""Times what rounding allows, from where on one input is enough: a kernel that keeps something from call to call may be
right on the next."""
SWEEP = float(1 << 24)
"""Elements of a call that are taken whole where nothing is sampled."""

SUMMED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes that have a sum, which is the quickest look for a NaN or Inf."""

FREE = {"_linalg_svd": (0, 2), "_linalg_eigh": (1,), "linalg_qr": (0, 1), "geqrf": (0, 1)}
"""Results that the inputs leave open, by number: the sign of a singular vector or an eigenvector, or any rotation of
those of equal values. Float64 has another one, and neither is wrong. What is made of them answers for itself."""


@dataclass(frozen=True)
class Departure:
    """An operator that is farther from float64 than rounding explains.

    index: of the worst element in the whole result number ``result``, which is of ``shape``. actual, reference: of the
    part, in float64 on the CPU. repeated: whether it shows on inputs near these too, or could not be asked.
    """

    address: Address
    source: Optional[str]
    code: Optional[str]
    held: Held
    result: int
    index: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    part: Part
    actual: Tensor
    reference: Tensor
    repeated: bool = True


@dataclass(frozen=True)
class Born:
    """An operator that made a NaN or Inf of finite numbers, though what the model gives is finite.

    index: of the first such element in the result number ``result``, with its value.
    """

    address: Address
    source: Optional[str]
    result: int
    index: tuple[int, ...]
    value: float
    dtype: torch.dtype


class Rounding:
    """Collects, while a program runs under ``visit``, which operators are farther from float64 than rounding explains.

    whole: nothing is sampled. corrected: an operator whose result is replaced by float64's, rounded to its dtype;
    needs ``whole``. first: the departures that are kept with all that is known of them.
    """

    def __init__(self, whole: bool = False, corrected: Optional[Address] = None, first: int = 8) -> None:
        self._small = SWEEP if whole else float(SMALL)
        self._corrected = corrected
        self._first = first
        self.judged = 0
        self.sampled = 0
        self.departed = 0
        self.not_judged: collections.Counter[str] = collections.Counter()
        self.of_float64: collections.Counter[str] = collections.Counter()  # in float64 by themselves
        self.of_libraries: collections.Counter[str] = collections.Counter()  # whose float64 is their own
        self.departures: list[Departure] = []
        self.born: list[Born] = []
        self.worst: dict[tuple[str, str], tuple[float, float, int]] = {}
        self.farthest: Optional[Departure] = None

    def visit(self, call: OpCall) -> Any:
        func = call.func
        if not hasattr(func, "_schema") or not any(is_float(tensor) for tensor in tensors_in((call.args, call.kwargs))):
            return call.run()
        name = call.address.base_name
        seeded = torch.Tag.nondeterministic_seeded in func.tags and not is_attention(func)  # whose dropout is looked at
        if name in RANDOM or seeded:
            self.not_judged[call.address.op] += 1
            return call.run()
        if name in UNWRITTEN or _is_view(func):
            return call.run()
        seed = _seed(call)
        args = _kept(call) if call.writes else call.args
        part = part_of(func, args, call.kwargs, seed, None, self._small) if call.writes else None
        result = call.run()
        floats = [tensor for tensor in tensors_in(result) if is_float(tensor) and unreadable(tensor) is None]
        if not floats and call.writes:  # it gives nothing back, as a fused optimizer does: what it wrote is its result
            written = written_by(func, call.args, call.kwargs)
            floats = [tensor for tensor in written if is_float(tensor) and unreadable(tensor) is None]
        if not floats or (not call.writes and all(is_view(call, tensor) for tensor in floats)):
            return result
        self._look_for_birth(call, args, floats)
        if part is None and not call.writes:
            part = part_of(func, call.args, call.kwargs, seed, floats, self._small)
        expected = None if part is None else in_float64(part)
        if part is None or expected is None:
            self.not_judged[call.address.op] += 1
            return result
        self._hold(call, part, floats, expected)
        return result

    def _look_for_birth(self, call: OpCall, args: tuple[Any, ...], floats: list[Tensor]) -> None:
        """Kept where all that the operator is given is finite, numbers included: a mask of -inf is written as one."""
        for number, tensor in enumerate(floats):
            if len(self.born) == self._first or tensor.dtype not in SUMMED or bool(torch.isfinite(tensor.sum())):
                continue  # a sum of numbers may overflow, and one with a NaN or Inf in it is never finite
            if not is_bad(tensor) or any_bad_in((args, call.kwargs)):
                continue
            place = unravel(int((~torch.isfinite(tensor)).reshape(-1).to(torch.uint8).argmax()), tuple(tensor.shape))
            value = scalar(tensor, place)
            self.born.append(Born(call.address, source_here()[0], number, tuple(place), value, tensor.dtype))

    def _hold(self, call: OpCall, part: Part, floats: list[Tensor], expected: list[Tensor]) -> None:
        seen = False
        for number, (actual, reference) in enumerate(zip(part.take(floats), expected)):
            free = number in FREE.get(call.address.base_name, ())
            found = None if free else held(part, number, actual, reference)
            if found is None:
                continue
            seen = True
            key = (call.address.base_name, dtype_name(actual.dtype))
            ratio, rms, calls = self.worst.get(key, (0.0, 0.0, 0))
            self.worst[key] = (max(ratio, found.ratio), max(rms, found.rms), calls + 1)
            repeated = found.is_beyond and _is_kept(call, part, number)
            beyond = repeated or (found.is_beyond and (found.swallowed or found.made or found.ratio > FAR))
            farther = self.farthest is None or found.ratio > self.farthest.held.ratio
            if beyond or farther:
                values = actual.detach().cpu().to(torch.float64)
                index, shape = part.place(number, found.at), tuple(floats[number].shape)
                source, code = source_here()
                departure = Departure(
                    call.address,
                    source,
                    code,
                    found,
                    number,
                    index,
                    shape,
                    key[1],
                    part,
                    values,
                    reference,
                    repeated,
                )
                self.farthest = departure if farther else self.farthest
            if beyond:
                self.departed += 1
                if len(self.departures) < self._first:
                    self.departures.append(departure)
            if call.address == self._corrected and reference.shape == floats[number].shape:
                floats[number].copy_(reference)
        if seen and all(tensor.dtype in (torch.float64, torch.complex128) for tensor in floats):
            self.of_float64[call.address.op] += 1
        elif seen and part.is_foreign:
            self.of_libraries[call.address.op] += 1
        self.judged += seen
        self.sampled += seen and not part.is_whole
        if not seen:
            self.not_judged[call.address.op] += 1


def _seed(call: OpCall) -> str:
    """By which a part of the call is drawn: the same in every run."""
    place = call.address
    return f"{place.module} {place.call_index} {place.op} {place.occurrence}"


def _is_kept(call: OpCall, part: Part, number: int) -> bool:
    """Whether the departure shows on other inputs near these: in eight of ten, each moved by some roundings."""
    if call.writes:
        return True
    generator = torch.Generator().manual_seed(1)
    beyond = 0
    for done in range(TRIES):
        args, kwargs = _moved(call, generator)
        try:
            floats = [tensor for tensor in tensors_in(call.func(*args, **kwargs)) if is_float(tensor)]
        except Exception:  # noqa: BLE001 - it ran with the program's own inputs
            return True
        seed = _seed(call)
        again = part_of(call.func, args, kwargs, seed, floats, SWEEP if part.is_whole else float(SMALL))
        expected = None if again is None else in_float64(again)
        if again is None or expected is None:
            return True
        found = held(again, number, again.take(floats)[number], expected[number])
        beyond += found is not None and found.is_beyond
        if beyond + TRIES - done - 1 < OF_TRIES:
            return False
    return beyond >= OF_TRIES


def _moved(call: OpCall, generator: torch.Generator) -> tuple[Any, Any]:
    """The arguments with each floating tensor moved by up to two roundings."""

    def move(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.rand(tensor.shape, generator=generator).mul_(4).sub_(2).mul_(torch.finfo(tensor.dtype).eps)
        return (tensor.detach() * (1 + noise.to(tensor.device))).to(tensor.dtype)

    return rebuild(call.args, Tensor, move), rebuild(call.kwargs, Tensor, move)


def _kept(call: OpCall) -> tuple[Any, ...]:
    """The arguments, with a copy of what the operator writes to."""
    written = {id(tensor) for tensor in written_by(call.func, call.args, call.kwargs)}
    return tuple(
        rebuild(call.args, Tensor, lambda tensor: tensor.detach().clone() if id(tensor) in written else tensor)
    )


def _is_view(func: Any) -> bool:
    """Whether it gives a view of an argument, and writes nothing."""
    return any(given.alias_info is not None and not given.alias_info.is_write for given in func._schema.returns)
