"""Who can be at fault in a program: every operator that makes a bad value by itself, every bad value that comes in from
outside, memory that nobody wrote, and memory that somebody wrote out of PyTorch's sight. And the program run again with
some of them repaired on the spot.

Nothing here decides who is at fault: the search asks the program.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.memory import ByMemory
from ..observe.source import source_line
from ..observe.tape import unreadable, written_by
from ..observe.watch import OUTSIDE, PLAIN, Address, Names, OpCall, Watch, watched_everywhere
from ..observe.written import LITERAL
from ..origin.counterfactual import repair
from ..origin.walk import UNWRITTEN
from ..reduce.seen import MASK, kinds_in
from ..values.figures import is_bad, is_float, tensors_in, widen
from ..values.nest import items_in, rebuild
from .around import Threads

MADE, CAME_IN, UNSET, OUT_OF_SIGHT = "made", "came in", "unset", "out of sight"
KEPT = 100_000  # candidates that are listed; one that is not listed is said to be so


@dataclass(frozen=True)
class Candidate:
    """Something that may be at fault. ``address``: the operator that made the value, or first read it.

    place: its number among all operators of the run. meant: -inf alone, which a mask may hold, or what the code writes
    down; these are asked about only where nothing else explains the end.
    """

    kind: str
    address: Address
    place: int
    source: Optional[str]
    meant: bool

    @property
    def name(self) -> tuple[str, Address]:
        """What tells it in another run."""
        return self.kind, self.address


@dataclass(frozen=True)
class Rule:
    """Which candidates are repaired on the spot.

    repair: any are. meant: those too that are -inf alone, or written down. leave: the names of those that are not
    repaired; where ``only`` is given, only these are repaired. stand_in: what a bad value is replaced by. fill: what
    unset memory is filled with; None leaves it as it comes.
    """

    repair: bool = False
    meant: bool = False
    leave: frozenset[tuple[str, Address]] = frozenset()
    only: Optional[frozenset[tuple[str, Address]]] = None
    stand_in: float = 0.0
    fill: Optional[float] = 0.0

    def repairs(self, kind: str, address: Address, meant: bool) -> bool:
        name = (kind, address)
        if not self.repair:
            return False
        if self.only is not None:
            return name in self.only
        return name not in self.leave and (self.meant or not meant)


class Memory:
    """What is known of each piece of memory: whether an operator that was seen put a bad value there.

    A piece that no operator gave is from outside.
    """

    def __init__(self) -> None:
        self._known: ByMemory[bool] = ByMemory()
        self._outside: ByMemory[Address] = ByMemory()

    def wrote(self, tensor: Tensor, bad: bool) -> None:
        """An operator gave or wrote it."""
        self._known.put(tensor, bad or self._known.get(tensor) is True)

    def repaired(self, tensor: Tensor) -> None:
        self._known.put(tensor, False)

    def state(self, tensor: Tensor) -> Optional[bool]:
        """Whether a bad value was put there; None for memory that no operator gave."""
        return self._known.get(tensor)

    def reader(self, tensor: Tensor, address: Address) -> Address:
        """Who first read this piece of memory with a bad value in it that no operator put there."""
        known = self._outside.get(tensor)
        if known is None:
            self._outside.put(tensor, address)
        return known or address


class Look:
    """Finds the candidates of one run, and repairs those that the rule names."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._memory = Memory()
        self.candidates: dict[tuple[str, Address], Candidate] = {}
        self.place = 0
        self.left_out = 0
        self.attention = False

    def visit(self, call: OpCall) -> Any:
        self.place += 1
        name = call.address.base_name
        self.attention = self.attention or "attention" in name
        if name in UNWRITTEN:
            return self._unset(call)
        given = list(readable_in((call.args, call.kwargs)))
        bad = [tensor for tensor in given if is_bad(tensor)]
        for tensor in bad:
            self._read(call, tensor)
        if bad:  # some may have been repaired
            given = list(readable_in((call.args, call.kwargs)))
        kinds = kinds_in(given) if bad else frozenset()
        result = self.run(call)
        results = list(readable_in([result]))
        if call.writes:
            written = readable_in(list(written_by(call.func, call.args, call.kwargs)))
            results = list({id(tensor): tensor for tensor in (*results, *written)}.values())
        spoilt = [tensor for tensor in results if is_bad(tensor)]
        if spoilt and not bad:
            held = _storages_in((call.args, call.kwargs))
            spoilt = [tensor for tensor in spoilt if not self._shown(call, tensor, held)]
        repaired = False
        made = kinds_in(spoilt)
        if bad and kinds <= MASK and made and "nan" not in made and not call.writes and _passes_on(call):
            made = frozenset()  # -inf turned into +inf, by a sign
        if made and kinds <= MASK and (made - MASK or not kinds):
            meant = made <= MASK and (name in LITERAL or any(map(_is_mask, given)))
            self._note(MADE, call.address, meant)
            if self._rule.repairs(MADE, call.address, meant):
                repaired = True
                for tensor in spoilt:
                    repair(tensor, self._rule.stand_in, keeps_masks=bool(kinds))
            self.made(call, spoilt)
        for tensor in results:
            self._memory.wrote(tensor, any(tensor is other for other in spoilt) and (not repaired or is_bad(tensor)))
        return result

    def _shown(self, call: OpCall, tensor: Tensor, held: set[int]) -> bool:
        """Whether an operator only shows memory as numbers that came in from outside: as another dtype, or as a storage
        that was read from a file. Then nothing was made.
        """
        if tensor.untyped_storage().data_ptr() not in held or self._memory.state(tensor) is not None:
            return False
        reader = self._memory.reader(tensor, call.address)
        meant = kinds_in([tensor]) <= MASK
        self._note(CAME_IN, reader, meant)
        self.came(call, CAME_IN, reader, tensor)
        if self._rule.repairs(CAME_IN, reader, meant):
            repair(tensor, self._rule.stand_in)
        else:
            self._memory.wrote(tensor, True)
        return True

    def run(self, call: OpCall) -> Any:
        """The operator itself, behind everything that is done to what it reads."""
        return call.run()

    def made(self, call: OpCall, spoilt: list[Tensor]) -> None:
        """An operator made bad values by itself."""

    def came(self, call: OpCall, kind: str, reader: Address, tensor: Tensor) -> None:
        """A bad value was read that no operator put there."""

    def _unset(self, call: OpCall) -> Any:
        """Memory as it is handed out."""
        result = self.run(call)
        for tensor in readable_in(result):
            self._note(UNSET, call.address, False)
            fill = 0.0 if self._rule.repairs(UNSET, call.address, False) else self._rule.fill
            if fill is not None:
                tensor.fill_(fill)
            self._memory.repaired(tensor) if fill == 0.0 else self._memory.wrote(tensor, is_bad(tensor))
        return result

    def _read(self, call: OpCall, tensor: Tensor) -> None:
        """A bad value is read: did an operator that was seen put it there?"""
        state = self._memory.state(tensor)
        if state:
            return
        kind = CAME_IN if state is None else OUT_OF_SIGHT
        reader = self._memory.reader(tensor, call.address)
        meant = kinds_in([tensor]) <= MASK
        self._note(kind, reader, meant)
        self.came(call, kind, reader, tensor)
        if self._rule.repairs(kind, reader, meant):
            written = any(tensor is other for other in written_by(call.func, call.args, call.kwargs))
            sound = repair(tensor if written else tensor.clone(), self._rule.stand_in)
            self._memory.repaired(sound)
            call.args = rebuild(call.args, Tensor, lambda item: sound if item is tensor else item)
            call.kwargs = rebuild(call.kwargs, Tensor, lambda item: sound if item is tensor else item)

    def _note(self, kind: str, address: Address, meant: bool) -> None:
        if (kind, address) in self.candidates:
            return
        if len(self.candidates) < KEPT:
            self.candidates[kind, address] = Candidate(kind, address, self.place, source_line(), meant)
        else:
            self.left_out += 1


@dataclass(frozen=True)
class Seen:
    """What one look found, and what it could not see. ``fused``: the first operator that made a bad value in a layer of
    PyTorch's own that has inner layers: it did by itself what these are there for. attention: whether an operator ran
    that is a whole attention. fast_path: whether a layer was called that PyTorch has a fast path for.
    """

    candidates: tuple[Candidate, ...]
    left_out: int
    operators: int
    unseen: dict[str, int]
    other_threads: int
    fused: Optional[Candidate]
    attention: bool = True
    fast_path: bool = True


def look(rule: Rule, names: Optional[Names] = None) -> tuple[Any, Any]:
    """(context around the program, function that gives what was seen)."""
    made, names, threads = Look(rule), names or Names(), Threads()
    watch = Watch(made.visit, OUTSIDE)

    def found() -> Seen:
        listed = tuple(made.candidates.values())
        fused = next((item for item in listed if item.kind == MADE and names.is_fused(item.address)), None)
        unseen, elsewhere = dict(watch.unseen), names.other_threads + threads.started
        return Seen(
            listed, made.left_out, made.place, unseen, elsewhere, fused, made.attention, names.has_fast_path
        )  # fmt: skip

    @contextlib.contextmanager
    def around() -> Iterator[Any]:
        with threads.counted(), watched_everywhere(watch, names) as entered:
            yield entered

    return around(), found


def _passes_on(call: OpCall) -> bool:
    """Whether the operator's infinities are those that it was given: with 0 in their place there is none."""

    def finite(tensor: Tensor) -> Tensor:
        if not is_readable(tensor):
            return tensor
        return torch.where(torch.isfinite(tensor), tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))

    try:
        with torch.no_grad():
            again = call.func(*rebuild(call.args, Tensor, finite), **rebuild(call.kwargs, Tensor, finite))
    except Exception:  # noqa: BLE001 - an operator that refuses 0: nothing is known
        return False
    return not any(map(is_bad, readable_in([again])))


def _storages_in(nest: Any) -> set[int]:
    """Where the memory lies of what is no floating tensor in a nest: bytes, and storages themselves."""
    found = {item.data_ptr() for item in items_in(nest, torch.UntypedStorage)}
    plain = (item for item in tensors_in(nest) if not is_float(item) and item.layout == torch.strided)
    return found | {item.untyped_storage().data_ptr() for item in plain if not (item.is_meta or item.is_nested)}


def readable_in(nest: Any) -> Iterator[Tensor]:
    """The plain floating tensors of a nest, and those that nested and sparse ones are made of. What has no numbers to
    be read (meta, quantised) is passed over.
    """
    for tensor in _quickly_in(nest):
        if not is_float(tensor) or tensor.is_meta or tensor.is_quantized:
            continue
        if tensor.is_nested:
            yield from readable_in(list(tensor.unbind()))
        elif tensor.layout == torch.strided:
            if type(tensor) not in PLAIN and unreadable(tensor) is not None:  # of a sharded one, the part that is here
                yield from readable_in(tensor.to_local() if hasattr(tensor, "to_local") else ())
            elif tensor.numel():
                yield tensor
        elif tensor.layout == torch.sparse_coo:
            yield from readable_in(tensor._values())
        elif hasattr(tensor, "values"):
            yield from readable_in(tensor.values())


def _quickly_in(nest: Any) -> Iterator[Tensor]:
    """``tensors_in`` without a generator for each item: of what an operator is given, most items are no nests."""
    for item in (nest,) if isinstance(nest, Tensor) else nest.values() if isinstance(nest, dict) else nest or ():
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (list, tuple, dict)):
            yield from _quickly_in(item)


def is_readable(tensor: Tensor) -> bool:
    """Whether it is a plain floating tensor with numbers behind it."""
    return next(readable_in(tensor), None) is tensor


def _is_mask(tensor: Tensor) -> bool:
    """Whether it holds the lowest number of its dtype: a mask written without -inf."""
    return not tensor.is_complex() and float(widen(tensor).min()) == torch.finfo(tensor.dtype).min
