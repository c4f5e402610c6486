"""Inside of one module call: the operator at which two ways part, and which of them float64 agrees with.

Both ways are forced up to there, so the call is given the same in both.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.precision import widened
from ..observe.source import excerpt, short, source_place
from ..observe.tape import is_view
from ..observe.watch import OpCall, StopPass, Watch, watched
from ..values.figures import is_float, tensors_in
from .held.alignment import cut
from .held.calls import GIVEN, Call, Calls, Point, hooked
from .held.deviation import apart, drift_of, held_against
from .held.hold import Held, Pair, Recording, Way, beyond
from .held.noise import Noise

MOST_NAMED = 12  # operators of a stretch that are named


@dataclass(frozen=True)
class Ran:
    """One operator that the call itself ran: its name, how often the same one ran before, its line and its result."""

    op: str
    base: str
    occurrence: int
    result: Optional[Tensor]
    is_view: bool
    source: Optional[str]
    package: Optional[str]
    excerpt: Optional[dict[str, Any]]

    @property
    def key(self) -> tuple[str, int]:
        return self.base, self.occurrence


def operators(model: nn.Module, way: Way, source: Recording, target: Call, noise: Optional[Noise] = None) -> list[Ran]:
    """The operators that a call runs itself, in order, with what they give; forced, and moved by noise where given."""
    held = Held(source, way, forced=True, noise=noise, paired=False)
    calls = Calls(held.see)
    counts: Counter[str] = Counter()
    ran: list[Ran] = []

    def visit(call: OpCall) -> Any:
        result = call.run() if noise is None else noise.visit(call)
        if calls.stack and calls.stack[-1] == target:
            base = call.address.base_name
            occurrence = counts[base]
            counts[base] += 1
            found = next((tensor for tensor in tensors_in(result) if is_float(tensor)), None)
            place = source_place()
            kept = None if found is None else found.detach().to("cpu", copy=True)
            view = found is None or is_view(call, found)
            package = None if place is None else place.package
            ran.append(Ran(call.address.op, base, occurrence, kept, view, short(place), package, excerpt(place)))
        return result

    def ended(call: Call, output: Any) -> None:
        if call == target:
            raise StopPass

    calls.ended = ended
    watching = contextlib.ExitStack()
    with contextlib.suppress(StopPass), way.setting(), hooked(model, calls, way.modules), watching:
        watching.enter_context(watched(model, Watch(visit)))
        way.run(model, calls.begin_pass)
    return ran


def parting(model: nn.Module, this: Way, other: Way, source: Recording, pair: Pair, seed: int) -> dict[str, Any]:
    """The first operator of the blamed call whose results part beyond rounding, and what ran before it on either side
    since the last one that agreed. Without a pair of operators that parts, the names of what only one side runs.
    """
    ours, theirs = blamed(pair)
    here = operators(model, this, source, ours)
    moved = {ran.key: ran for ran in operators(model, this, source, ours, Noise(seed))}
    there = operators(model, other, source, theirs)
    by_key = {ran.key: (at, ran) for at, ran in enumerate(there)}
    region = next((region for at, region in other.passes[theirs.pass_] if at == ours.pass_), None)
    agreed_here, agreed_there = -1, -1
    for at, ran in enumerate(here):
        place, twin = by_key.get(ran.key, (-1, None))
        if ran.result is None or twin is None or twin.result is None or place < agreed_there:
            continue
        common = cut(tuple(ran.result.shape), tuple(twin.result.shape), region)
        if common is None:
            continue
        found = apart(common.of_this(ran.result), common.of_other(twin.result))
        noisy = moved.get(ran.key)
        drift = None
        if noisy is not None and noisy.result is not None and noisy.result.shape == ran.result.shape:
            drift = drift_of(apart(common.of_this(ran.result), common.of_this(noisy.result)))
        unit = max(torch.finfo(item.dtype).eps for item in (ran.result, twin.result) if item.is_floating_point())
        if beyond(held_against(found, drift, float(unit))):
            stretch = _stretch(here[agreed_here + 1 : at + 1], there[agreed_there + 1 : place + 1])
            return _with_those_alone(stretch, here, there)
        agreed_here, agreed_there = at, place
    return _with_those_alone(_stretch(here[agreed_here + 1 :], there[agreed_there + 1 :]), here, there)


def _with_those_alone(stretch: dict[str, Any], here: list[Ran], there: list[Ran]) -> dict[str, Any]:
    """Where the other side has nothing in the stretch: the operators that it alone runs in the whole call."""
    known = {ran.key for ran in here}
    alone = [ran for ran in there if ran.key not in known and not ran.is_view]
    if stretch["other_op"] is not None or not alone:
        return stretch
    named = {"other_op": alone[0].op, "other_source": alone[0].source}
    return {**stretch, **named, "other_operators": [ran.op for ran in alone][:MOST_NAMED]}


def draws(op: Optional[str]) -> bool:
    """Whether an operator gives random numbers, which are others in another dtype, batch or order of running."""
    name, _, overload = (op or "")[len("aten.") :].partition(".")
    func = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
    if func is None or "attention" in name:  # whose dropout is none where its probability is 0
        return False
    seeded = getattr(torch.Tag, "nondeterministic_seeded", None)
    return seeded is not None and seeded in func.tags


def _stretch(here: list[Ran], there: list[Ran]) -> dict[str, Any]:
    """What ran on either side: the operator that is named is the first one there is no other of, else the last."""
    known_here, known_there = {ran.key for ran in here}, {ran.key for ran in there}
    mine = [ran for ran in here if not ran.is_view]
    theirs = [ran for ran in there if not ran.is_view]
    own = next((ran for ran in mine if ran.key not in known_there), mine[-1] if mine else None)
    strange = next((ran for ran in theirs if ran.key not in known_here), theirs[-1] if theirs else None)
    named = own or strange
    return {
        "op": None if own is None else own.op,
        "occurrence": None if own is None else own.occurrence,
        "source": None if named is None else named.source,
        "code": None if named is None else named.package,
        "excerpt": None if named is None else named.excerpt,
        "other_op": None if strange is None else strange.op,
        "other_source": None if strange is None else strange.source,
        "operators": [ran.op for ran in mine][:MOST_NAMED],
        "other_operators": [ran.op for ran in theirs][:MOST_NAMED],
    }


def blamed(pair: Pair) -> tuple[Call, Call]:
    """The call that answers for a point, in this way and in the other: what it gave, or the call around it."""
    if pair.this.side != GIVEN:
        return pair.this.call, pair.other.call
    if pair.caller is None:
        return Call("", pair.this.call.pass_, 0), Call("", pair.other.call.pass_, 0)
    return replace(pair.caller, pass_=pair.this.call.pass_), pair.caller


class _Wider(Held):
    """As Held, with the blamed call and all inside of it in float64."""

    def __init__(
        self, source: Recording, way: Way, target: Call, wanted: Point, calls: list[Calls], unit: float
    ) -> None:
        super().__init__(source, way, forced=True, paired=False)
        self._unit = unit
        self._generator = torch.Generator().manual_seed(0)
        self._target, self._wanted, self._calls = target, wanted, calls
        self.value: Optional[Tensor] = None

    def see(self, point: Point, caller: Optional[Call], tensor: Tensor) -> Tensor:
        if point == self._wanted:
            self.value = tensor.detach().to("cpu", copy=True)
            raise StopPass
        new = super().see(point, caller, tensor)
        is_inside = self._target in self._calls[0].stack
        return self._moved(new.to(torch.float64)) if point.side == GIVEN and is_inside and is_float(new) else new

    def _moved(self, tensor: Tensor) -> Tensor:
        if not self._unit or tensor.is_complex():
            return tensor
        signs = torch.randint(2, tensor.shape, generator=self._generator).mul_(2).sub_(1).to(tensor.device)
        return tensor * (1 + self._unit / 2 * signs)


def exact(
    model: nn.Module, way: Way, source: Recording, target: Call, wanted: Point, unit: float = 0.0
) -> Optional[Tensor]:
    """What a way gives at a point with the call that answers for it in float64, from the same inputs and weights; or
    from inputs that are moved by a rounding of this unit.
    """
    module = dict(model.named_modules())[target.module]
    box: list[Calls] = []
    held = _Wider(source, way, target, wanted, box, unit)
    calls = Calls(held.see)
    box.append(calls)
    with contextlib.ExitStack() as stack:

        def begun(call: Call) -> None:
            if call == target:
                stack.enter_context(widened(module, torch.float64))

        calls.begun = begun
        with contextlib.suppress(StopPass), way.setting(), hooked(model, calls, way.modules):
            way.run(model, calls.begin_pass)
    return held.value


def sides(model: nn.Module, this: Way, other: Way, source: Recording, pair: Pair) -> dict[str, Any]:
    """How far each way is from float64 at the row that is furthest off, and how far float64 is from itself: a large
    one means that the two ways compute different things, so float64 cannot tell which is right.
    """
    ours, theirs = blamed(pair)
    try:
        one = exact(model, this, source, ours, pair.this)
        two = exact(model, other, source, theirs, pair.other)
    except Exception as error:  # noqa: BLE001 - the model's own code may not run in float64
        return {"note": f"float64 cannot be asked: {type(error).__name__}: {str(error)[:200]}"}
    if one is None or two is None:
        return {"note": "float64 cannot be asked: the place was not reached"}
    return {"exact_this": one, "exact_other": two}
