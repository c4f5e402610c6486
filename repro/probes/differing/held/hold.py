"""One way recorded, and another way held against it, call by call.

The other way is *forced*: each module call is given what the same call was given in this way. So each call answers for
its own arithmetic alone, and one pass asks all of them. What the call would have been given by itself is held against
this way as well, and answers for the code of the module around it.

What rounding may do at a place is measured there: the same forced pass, with every operator's result and every input
moved at its last digit (``noise``).
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ...observe.watch import Watch, watched
from ...values.figures import is_float
from .alignment import Cut, Region, cut
from .calls import GAVE, GIVEN, Call, Calls, Point, hooked
from .deviation import Apart, Drift, Ratio, Size, apart, comparable, drift_of, held_against, size_of
from .noise import Noise
from .store import Store


@dataclass(frozen=True)
class Limits:
    """A deviation over the drift above which it is no rounding: of a whole tensor, of one row, of one column."""

    whole: float
    row: float
    column: float


# What sound models give at most is in docs/diff.md. In float32 what is left is the order in which sums are added up,
# of which the drift has one; in 16 bit the sums are float32's, and their order does not show. The longer the sums, the
# more it is: twice what SmolLM2's of 1,536 numbers give, a prefill against one token.
NARROW, WIDE = Limits(5.0, 8.0, 16.0), Limits(40.0, 60.0, 160.0)


def limits(unit: float) -> Limits:
    """unit: the last place of a number near 1."""
    return NARROW if unit > torch.finfo(torch.float32).eps else WIDE


def figures_of(found: Apart, ratio: Ratio) -> dict[str, Any]:
    """How far two ways are apart, and how far they may be, for a record."""
    most = limits(ratio.unit)
    return {
        "deviation": found.whole,
        "drift": ratio.drift,
        "whole": ratio.whole,
        "row": ratio.row,
        "column": ratio.column,
        "limits": [most.whole, most.row, most.column],
        "mismatched": ratio.mismatched,
    }


Parts = tuple[tuple[int, Optional[Region]], ...]
Run = Callable[[nn.Module, Callable[[int], None]], list[Any]]


@dataclass(frozen=True)
class Way:
    """A way of running the model.

    passes: for each pass, the passes of this way that it stands for, and by which part. run: makes the passes in order
    and tells before each. setting: what is changed while they are made. modules: those that can be looked at; None for
    all of them. is_watchable: whether its operators can be; compiled ones run as others while they are watched.
    trains: whether gradients are made in it.
    """

    words: str
    passes: tuple[Parts, ...]
    run: Run
    setting: Callable[[], Any] = contextlib.nullcontext
    modules: Optional[tuple[str, ...]] = None
    is_watchable: bool = True
    trains: bool = False


@dataclass(frozen=True)
class Entry:
    """A point of a recording: the number of its tensor in the store, its place in order, and the call around it."""

    number: int
    order: int
    caller: Optional[Call]


@dataclass
class Recording:
    """What one way was given and gave, at every point; and the drift there, forced and free."""

    store: Store
    entries: dict[Point, Entry] = field(default_factory=dict)
    forced: dict[Point, Drift] = field(default_factory=dict)
    free: dict[Point, Drift] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    _sizes: dict[tuple[int, Cut], Size] = field(default_factory=dict)

    def put(self, point: Point, caller: Optional[Call], tensor: Tensor) -> None:
        self.entries[point] = Entry(self.store.put(tensor), len(self.entries), caller)

    def size(self, number: int, common: Optional[Cut], tensor: Tensor) -> Size:
        """Of a part of a tensor; taken once."""
        key = (number, common or Cut((), ()))
        if key not in self._sizes:
            self._sizes[key] = size_of(tensor)
        return self._sizes[key]

    def tensor(self, point: Point) -> Tensor:
        return self.store.get(self.entries[point].number)


@dataclass(frozen=True)
class Pair:
    """A point of the other way beside the point of this way that it stands for."""

    this: Point
    other: Point
    order: int
    caller: Optional[Call]
    found: Apart
    unit: float
    cut: Cut

    def ratio(self, this: Optional[Drift], other: Optional[Drift] = None) -> Ratio:
        """Over the drift of this way; and of both, where the other's is known."""
        mine = None if this is None else replace(this, rows=self.cut.of_this(this.rows))
        if mine is not None and mine.scale.numel():
            mine = replace(mine, scale=self.cut.of_this(mine.scale))
        if other is not None:
            theirs = replace(other, rows=self.cut.of_other(other.rows))
            mine = theirs if mine is None else mine.and_also(theirs)
        return held_against(self.found, mine, self.unit)


def beyond(ratio: Ratio) -> bool:
    """Whether it is more than rounding."""
    return degree(ratio) > 1


def degree(ratio: Ratio) -> float:
    """1 where rounding ends."""
    if ratio.mismatched:
        return float("inf")
    most = limits(ratio.unit)
    return max(ratio.whole / most.whole, ratio.row / most.row, ratio.column / most.column)


class Held:
    """Sees the calls of the other way, and holds each point against this way's.

    forced: each call is given what it was given in this way. noise: moved at the last digit besides. own: a recording
    of this very way, against which each tensor is held as it is; else pairs are made. keep: where each tensor is kept.
    """

    def __init__(
        self,
        source: Recording,
        way: Way,
        *,
        forced: bool,
        noise: Optional[Noise] = None,
        own: Optional[Recording] = None,
        keep: Optional[Recording] = None,
        paired: bool = True,
    ) -> None:
        self._source, self._way, self._forced, self._noise = source, way, forced, noise
        self._own, self._keep, self._paired = own, keep, paired
        self.pairs: list[Pair] = []
        self.drift: dict[Point, Drift] = {}
        self.strange: dict[Point, str] = {}  # what could not be compared, and why
        self.met: set[Point] = set()  # points of this way
        self._known: dict[tuple[int, int, int, Cut], tuple[Any, Apart]] = {}

    def see(self, point: Point, caller: Optional[Call], tensor: Tensor) -> Tensor:
        """For Calls."""
        if self._keep is not None:
            self._keep.put(point, caller, tensor)
        if self._own is not None and point in self._own.entries:
            before = self._own.tensor(point)
            if before.shape == tensor.shape:
                self.drift[point] = drift_of(self._apart(self._own.entries[point].number, before, tensor, None))
        new: Optional[Tensor] = None
        for pass_, region in self._way.passes[point.call.pass_]:
            this = replace(point, call=replace(point.call, pass_=pass_))
            entry = self._source.entries.get(this)
            if entry is None:
                self.strange[point] = "this way has none"
                continue
            self.met.add(this)
            ours = self._source.store.get(entry.number)
            common = cut(tuple(ours.shape), tuple(tensor.shape), region)
            if common is None or not comparable(ours, tensor):
                self.strange[point] = (
                    f"{tuple(ours.shape)} {ours.dtype} here and {tuple(tensor.shape)} {tensor.dtype} there"
                )
                continue
            part = common.of_this(ours)
            if self._paired:
                found = self._apart(entry.number, part, common.of_other(tensor), common)
                unit = max(_unit(ours), _unit(tensor))
                self.pairs.append(Pair(this, point, entry.order, caller, found, unit, common))
            if self._forced and point.side == GIVEN:
                moved = part if self._noise is None or not is_float(part) else self._noise.moved(part)
                if new is None:
                    new = tensor.detach().clone()
                common.of_other(new).copy_(_as(moved, part, new.dtype))
        return tensor if new is None else new

    def _apart(self, number: int, ours: Tensor, theirs: Tensor, common: Optional[Cut]) -> Apart:
        """One tensor often stands at several points: it is compared once."""
        version = 0 if theirs.is_inference() else theirs._version
        key = (number, id(theirs), version, common or Cut((), ()))
        before = self._known.get(key)
        if before is not None and before[0]() is theirs:
            return before[1]
        source = self._source if common is not None else self._own
        assert source is not None  # one of the two it is held against
        found = apart(ours, theirs, source.size(number, common, ours))
        self._known[key] = (weakref.ref(theirs), found)
        return found


def _as(moved: Tensor, part: Tensor, dtype: torch.dtype) -> Tensor:
    """In another dtype, with that one's lowest number where the lowest number stands for -inf."""
    if moved.dtype == dtype or not (moved.is_floating_point() and dtype.is_floating_point):
        return moved
    return moved.to(dtype).masked_fill(part == torch.finfo(part.dtype).min, torch.finfo(dtype).min)


def _unit(tensor: Tensor) -> float:
    return float(torch.finfo(tensor.dtype).eps) if is_float(tensor) else 0.0


def record(
    model: nn.Module, way: Way, folder: Optional[str] = None, chosen: Optional[Iterable[str]] = None
) -> tuple[Recording, list[Any]]:
    """The way, recorded; and what its passes gave."""
    recording = Recording(Store(folder))
    recording.classes = {name: type(module).__name__ for name, module in model.named_modules()}

    def see(point: Point, caller: Optional[Call], tensor: Tensor) -> Tensor:
        recording.put(point, caller, tensor)
        return tensor

    calls = Calls(see)
    with way.setting(), hooked(model, calls, way.modules if chosen is None else chosen):
        outputs = way.run(model, calls.begin_pass)
    return recording, outputs


def hold(
    model: nn.Module,
    way: Way,
    held: Held,
    noise: Optional[Noise] = None,
    chosen: Optional[Iterable[str]] = None,
) -> list[Any]:
    """The way run under ``held``, with noise behind every operator where it is given; what its passes gave."""
    calls = Calls(held.see)
    with way.setting(), hooked(model, calls, way.modules if chosen is None else chosen):
        if noise is None:
            return way.run(model, calls.begin_pass)
        with watched(model, Watch(noise.visit)):
            return way.run(model, calls.begin_pass)


def measure(
    model: nn.Module,
    way: Way,
    source: Recording,
    own: Recording,
    seed: int,
    forced: bool,
    chosen: Optional[Iterable[str]] = None,
) -> dict[Point, Drift]:
    """The drift of a way at each of its points, from a run that is rounded at random."""
    noise = Noise(seed)
    held = Held(source, way, forced=forced, noise=noise, own=own, paired=False)
    hold(model, way, held, noise, chosen)
    return held.drift


def points_out(recording: Recording, module: str, path: str) -> Iterator[Point]:
    """The points at which a module gives this part of its output, in order of its passes."""
    for point in recording.entries:
        if point.side == GAVE and point.call.module == module and point.path == path:
            yield point
