"""Two ways of running one model: recorded, held against each other, and said where they part."""

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.before.room import free_memory
from ..model.forward import main_output
from ..model.inputs import Inputs
from ..model.precision import widened
from ..observe.screen import blocks
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from ..values.figures import digest, dtype_name, is_float, scalar, unravel
from .ends import beside, same
from .free import grown, has_no_room
from .held.calls import GAVE, GIVEN, Point
from .held.deviation import Drift, Ratio, apart, farthest, wide
from .held.hold import Held, Pair, Recording, Way, beyond, degree, figures_of, hold, limits, measure, record
from .held.store import Store
from .inside import blamed, draws, parting, sides
from .lost import LEAST, UNITS, Lost, lost, said

SEEDS = (1, 2, 3, 4)
MORE_SEEDS = (5, 6, 7)  # of a way's drift, before anything is said to part
MOST_MODULES = 20  # that part are named
CLEARLY = 2.0  # a side that is this much farther from float64 is the wrong one
Told = Callable[[int, int, str], None]


@dataclass
class Made:
    """This way, recorded, with the drift that rounding has in it. main: the output that is judged at the end."""

    way: Way
    recording: Recording
    main: str
    inputs: tuple[Inputs, ...]
    chosen: tuple[str, ...]
    weights: dict[str, str] = field(default_factory=dict)


def make(model: nn.Module, way: Way, inputs: tuple[Inputs, ...], told: Told, folder: Optional[str] = None) -> Made:
    """Three passes: one that is recorded, two that are rounded at random."""
    recording, outputs = record(model, way, folder)
    told(1, 5, "passes")
    chosen = tuple(name for name in ("", *blocks(model)) if way.modules is None or name in way.modules)
    recording.forced = measure(model, way, recording, recording, SEEDS[0], forced=True)
    told(2, 5, "passes")
    recording.free = measure(model, way, recording, recording, SEEDS[1], forced=False, chosen=chosen)
    told(3, 5, "passes")
    return Made(way, recording, main_output(outputs[0])[0], inputs, chosen)


def digests(model: nn.Module) -> dict[str, str]:
    """What identifies each weight and buffer."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: digest(tensor) for name, tensor in named if not tensor.is_meta}


@dataclass
class Against:
    """The other way, held against this one."""

    model: nn.Module
    made: Made
    way: Way
    pairs: list[tuple[Pair, Ratio]]
    held: Held
    kept: Optional[Recording]  # the other way's own values, where something parts
    free: Held
    ends: Recording

    @property
    def departing(self) -> list[tuple[Pair, Ratio]]:
        """What is beyond rounding, in order of running."""
        return sorted(((p, r) for p, r in self.pairs if beyond(r)), key=lambda row: row[0].order)


def held_against(model: nn.Module, made: Made, way: Way, told: Told, again: bool = False) -> Against:
    """Two passes of the other way, one free and one forced; where something parts, two more that measure its own
    drift. again: the model can still be run in this way. Its drift is then drawn three times more; else the other's is.
    """
    ends = Recording(Store())
    free = Held(made.recording, way, forced=False, keep=ends)
    hold(model, way, free, chosen=made.chosen)
    told(4, 5, "passes")
    held = Held(made.recording, way, forced=True)
    hold(model, way, held)
    told(5, 5, "passes")
    drift = made.recording.forced
    pairs = [(pair, pair.ratio(drift.get(pair.this))) for pair in held.pairs]
    kept = None
    if any(beyond(ratio) for _, ratio in pairs):
        kept = Recording(Store())
        held = Held(made.recording, way, forced=True, keep=kept)
        hold(model, way, held)
        theirs = measure(model, way, made.recording, kept, SEEDS[2], forced=True) if way.is_watchable else {}
        if again:
            drift = _drawn_again(drift, model, made.way, made.recording, made.recording)
        elif way.is_watchable:
            theirs = _drawn_again(theirs, model, way, made.recording, kept)
        pairs = [(pair, pair.ratio(drift.get(pair.this), theirs.get(pair.other))) for pair in held.pairs]
    return Against(model, made, way, pairs, held, kept, free, ends)


def _drawn_again(
    before: dict[Point, Drift], model: nn.Module, way: Way, source: Recording, own: Recording
) -> dict[Point, Drift]:
    """A way's drift, the largest of several draws at each place."""
    drift = dict(before)
    for seed in MORE_SEEDS:
        drawn = measure(model, way, source, own, seed, forced=True)
        drift.update((point, found.or_more(drift.get(point))) for point, found in drawn.items())
    return drift


def answer(against: Against, this: Optional[Way] = None, end: Optional[dict[str, Any]] = None) -> Outcome:
    """Verdict, reason and payload. this: where the model can still be run in this way, to look inside of a call. end:
    what the two ways end with, where it was held side by side before.
    """
    departing = against.departing
    end = end_of(against) if end is None else end
    payload: dict[str, Any] = {
        "way": against.way.words,
        "places": len(against.pairs),
        "calls": len({pair.this.call for pair, _ in against.pairs}),
        "not_compared": _not_compared(against),
        "nearest": _nearest(against.pairs),
        "growth": grown(against.free.pairs, against.made.recording),
        "end": end,
        "departure": None,
        "modules": list(dict.fromkeys(blamed(pair)[0].module for pair, _ in departing))[:MOST_MODULES],
    }
    found = lost(against.model, this, against.way, against.made.recording, against.pairs) if this is not None else None
    if departing:
        departure = _departure(against, *departing[0], this)
        if this is not None and found is not None and found.pair is departing[0][0]:
            departure.update(said(found))
        payload["departure"] = departure
        if draws(departure.get("op")):
            where = departure["module"] or "the model's own code"
            why = f"random numbers are drawn in {where} ({departure['op']}), and the two ways are given others"
            return "skip", f"{why}. In evaluation mode, or without that operator, the rest can be compared", payload
        if this is not None and end is not None:
            end.update(_same(against, this))
        return "bad", _departs(departure, against.way.words), payload
    if found is not None and _shows(against, found):
        departure = _of_lost(against.made, found)
        payload.update(departure=departure, modules=[departure["module"]])
        where = departure["module"] or "the model's own code"
        return "bad", f"against {against.way.words}: {where} loses its digits: {departure['note']}", payload
    nearest = payload["nearest"]
    most = "" if nearest is None else f"; the farthest is at {_share(nearest):.2g} of what rounding allows"
    agree = f"{payload['places']:,} inputs and outputs of {payload['calls']:,} module calls agree within rounding{most}"
    if end is not None and end["degree"] is not None and end["degree"] > 1:
        why = "no module parts on equal inputs" if not payload["not_compared"] else "some modules could not be compared"
        return "skip", f"what the two ways end with is farther apart than rounding explains, but {why}", payload
    if not against.pairs:
        return "skip", "no module call of the two ways could be compared", payload
    if end is None and not _ends_compared(against):
        return "skip", "nothing parts, but what the two ways end with could not be compared", payload
    return "good", agree + _end_words(end), payload


def _of_lost(made: Made, found: Lost) -> dict[str, Any]:
    ours = made.recording.tensor(found.pair.this)
    at = farthest(ours, found.exact)
    return {**_place(made, found.pair, found.ratio, ours, found.exact, at), **said(found)}


def _shows(against: Against, found: Lost) -> bool:
    """Whether what the two ways end with is as far apart as that asks for."""
    ends = [pair for pair in against.free.pairs if pair.this.side == GAVE and pair.this.call.module == ""]
    sizes = [(pair.found.whole, float(pair.found.scale.square().mean().sqrt())) for pair in ends]
    least = max(LEAST, UNITS * found.ratio.unit)
    return any(whole > 0 and whole >= least * size for whole, size in sizes)


def _ends_compared(against: Against) -> bool:
    """Whether anything that the model itself gives was held side by side, or is no module call of these ways."""
    of_model = [point for point in against.made.recording.entries if point.side == GAVE and point.call.module == ""]
    return not of_model or any(pair.this in of_model for pair in (*against.held.pairs, *against.free.pairs))


def _share(found: dict[str, Any]) -> float:
    """The deviation in units of what rounding allows, of the tensor or of that part of it that is furthest off."""
    return max(found[part] / most for part, most in zip(("whole", "row", "column"), found["limits"]))


def _end_words(end: Optional[dict[str, Any]]) -> str:
    if end is None or end["kl_mean"] is None:
        return ""
    flips = f"{end['top1_flips']} of {end['positions']} likeliest tokens differ"
    return f"; {flips}, KL {end['kl_mean']:.2g}"


def _not_compared(against: Against) -> list[dict[str, Any]]:
    """What stands on one side only, or in another shape. Of modules of one class, the first is named."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    alone = dict.fromkeys(against.made.recording.entries, "the other way has none")
    alone = {point: why for point, why in alone.items() if point not in against.held.met}
    for point, why in (*against.held.strange.items(), *alone.items()):
        key = (against.made.recording.classes.get(point.call.module, ""), point.side, point.path)
        what = f"{point.side} {point.path}"
        row = rows.setdefault(key, {"module": point.call.module, "what": what, "reason": why, "count": 0})
        row["count"] += 1
    return list(rows.values())[:MOST_MODULES]


def _nearest(pairs: list[tuple[Pair, Ratio]]) -> Optional[dict[str, Any]]:
    """The place that is nearest to the limit, or farthest beyond."""
    if not pairs:
        return None
    pair, ratio = max(pairs, key=lambda row: degree(row[1]))
    return {
        "module": blamed(pair)[0].module,
        "what": f"{pair.this.side} {pair.this.path}",
        **figures_of(pair.found, ratio),
    }


def end_of(against: Against) -> Optional[dict[str, Any]]:
    """What the free runs end with, held side by side; None where it cannot be."""
    made = against.made
    main = {made.main, "0"} if made.main == "output" else {made.main}
    pairs = [
        pair
        for pair in against.free.pairs
        if pair.this.side == GAVE and pair.this.call.module == "" and pair.this.path in main
    ]
    if not pairs:
        return None
    values = [_values(made.recording, against.ends, pair) for pair in pairs]
    ratios = [pair.ratio(made.recording.free.get(pair.this)) for pair in pairs]
    if against.way.is_watchable and any(beyond(ratio) for ratio in ratios):
        theirs = measure(
            against.model, against.way, made.recording, against.ends, SEEDS[3], forced=False, chosen=made.chosen
        )
        ratios = [pair.ratio(made.recording.free.get(pair.this), theirs.get(pair.other)) for pair in pairs]
    worst = max(zip(pairs, ratios), key=lambda row: degree(row[1]))
    figures = beside(values, [pair.found for pair in pairs], made.main.endswith("logits"))
    return {"output": made.main, **figures, **figures_of(worst[0].found, worst[1]), "degree": degree(worst[1])}


def _same(against: Against, this: Way) -> dict[str, float]:
    """The errors of both ends against float64, by which PyTorch's own comparison judges; {} where the weights in
    float64 have no room, or the model does not run in it.
    """
    model, made = against.model, against.made
    room = free_memory()
    if room is not None and has_no_room(model, room):
        return {}
    try:
        with widened(model, torch.float64):
            outputs = [main_output(output, made.main)[1] for output in this.run(model, lambda number: None)]
    except Exception:  # noqa: BLE001 - figures beside the answer, which stands without them
        return {}
    pairs = [pair for pair in against.free.pairs if pair.this.side == GAVE and pair.this.path == made.main]
    rows = []
    for pair in (pair for pair in pairs if pair.this.call.module == ""):
        ours, theirs = _values(made.recording, against.ends, pair)
        exact = pair.cut.of_this(outputs[pair.this.call.pass_].cpu())
        rows.append((exact.numel(), same(exact, ours, theirs)))
    count = sum(size for size, _ in rows)
    if not count:
        return {}
    return {
        name: math.sqrt(sum(size * figures[name] ** 2 for size, figures in rows) / count)
        for name in ("rmse_this", "rmse_other")
    }


def _values(recording: Recording, other: Recording, pair: Pair) -> tuple[Tensor, Tensor]:
    """Both tensors of a pair, cut to what they have in common."""
    return pair.cut.of_this(recording.tensor(pair.this)), pair.cut.of_other(other.tensor(pair.other))


def _departure(against: Against, pair: Pair, ratio: Ratio, this: Optional[Way]) -> dict[str, Any]:
    """Where the two ways part first: the call that answers for it, the element, the operator, the wrong side."""
    made, way = against.made, against.way
    assert against.kept is not None  # held_against keeps the values where something parts
    ours, theirs = _values(made.recording, against.kept, pair)
    at = _worst(ours, theirs, pair, ratio)
    found = _place(made, pair, ratio, ours, theirs, at)
    if this is not None:
        try:
            found.update(parting(against.model, this, way, made.recording, pair, SEEDS[0]))
        except Exception as error:  # noqa: BLE001 - the module stands without its operator
            found["note"] = f"its operators could not be held side by side: {in_words(error)}"
        found.update(_side(sides(against.model, this, way, made.recording, pair), pair, ours, theirs, at))
    elif made.weights:
        found["weights"] = _differing(against.model, made.weights, found["module"], pair.this.side == GIVEN)
    return found


def _place(made: Made, pair: Pair, ratio: Ratio, ours: Tensor, theirs: Tensor, at: tuple[int, ...]) -> dict[str, Any]:
    """The record of a place at which the two are apart, with what is to be told yet as None."""
    call = blamed(pair)[0]
    begins = [cut[0] if cut is not None else 0 for cut in pair.cut.this]
    whole = [place + begin for place, begin in zip(at, begins)]
    shape = made.recording.tensor(pair.this).shape
    inputs = made.inputs[pair.this.call.pass_]
    dims = range(len(shape) - 1 if is_float(ours) else len(shape))
    token = next((whole[dim] for dim in dims if shape[dim] == inputs.length > 1), None)
    words = inputs.tokens if token is not None else None
    return {
        "module": call.module,
        "module_class": made.recording.classes.get(call.module),
        "call_index": call.index,
        "prompt": call.pass_,
        "what": pair.this.side,
        "path": pair.this.path,
        "of": pair.this.call.module,
        "element": whole,
        "token_index": token,
        "token": words[token] if words is not None and token is not None and token < len(words) else None,
        "channel_index": whole[-1] if len(whole) > 1 and is_float(ours) else None,
        "this": scalar(ours, at) if ours.numel() else None,
        "other": scalar(theirs, at) if ours.numel() else None,
        "dtype": dtype_name(ours.dtype),
        "other_dtype": dtype_name(theirs.dtype),
        **figures_of(pair.found, ratio),
        "side": None,
        "error_this": None,
        "error_other": None,
        "exact_apart": None,
        "weights": [],
        "note": None,
    }


def _worst(ours: Tensor, theirs: Tensor, pair: Pair, ratio: Ratio) -> tuple[int, ...]:
    """The element that is furthest off: the first mismatch, or that of the row that is furthest off."""
    if ratio.mismatched or not ratio.at or ours.dim() < 2 or len(ratio.at) != ours.dim():
        return farthest(ours, theirs)
    difference = (wide(ours) - wide(theirs)).abs()
    most = limits(ratio.unit)
    if ratio.column / most.column > max(ratio.row / most.row, ratio.whole / most.whole):
        column = difference[..., ratio.channel]
        return (*unravel(int(column.argmax()), tuple(column.shape)), ratio.channel)
    row = ratio.at[:-1]
    return (*row, int(difference[row].argmax()))


def _side(exact: dict[str, Any], pair: Pair, ours: Tensor, theirs: Tensor, at: tuple[int, ...]) -> dict[str, Any]:
    """Which side is farther from float64, by the row of the element."""
    if "note" in exact:
        return {"note": exact["note"]}
    one, two = pair.cut.of_this(exact["exact_this"]), pair.cut.of_other(exact["exact_other"])
    if one.shape != ours.shape or two.shape != theirs.shape:
        return {"note": "float64 cannot be asked: it gives another shape"}
    row = at[:-1] if len(at) > 1 else ()
    rows = [wide(item)[row] for item in (ours, theirs, one, two)]
    error_this, error_other, between = (
        apart(a, b).whole for a, b in ((rows[2], rows[0]), (rows[3], rows[1]), (rows[2], rows[3]))
    )
    found: dict[str, Any] = {"error_this": error_this, "error_other": error_other, "exact_apart": between}
    if any(not math.isfinite(value) for value in found.values()):
        return found
    deviation = apart(rows[0], rows[1]).whole
    if between > deviation / CLEARLY:
        found["side"] = "different"
    elif error_this > CLEARLY * error_other:
        found["side"] = "this"
    elif error_other > CLEARLY * error_this:
        found["side"] = "other"
    return found


def _differing(model: nn.Module, before: dict[str, str], module: str, is_own: bool) -> list[dict[str, Any]]:
    """The weights and buffers of a module that are others than in this way. is_own: not those of its children."""
    found = []
    prefix = f"{module}." if module else ""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        inside = name.startswith(prefix) and (not is_own or "." not in name[len(prefix) :])
        if inside and not tensor.is_meta and before.get(name) != digest(tensor):
            found.append({"tensor": name, "there": name in before})
    return found[:MOST_MODULES]


def _departs(found: dict[str, Any], way: str) -> str:
    """One sentence."""
    place = found["module"] or "the model's own code"
    if found["what"] == GIVEN:
        place = f"{place}, in what it gives {found['of'] or 'the model'} as {found['path']}"
    if found["mismatched"]:
        how = f"{found['mismatched']:,} values of which one alone is a number, or integers that differ"
    else:
        how = f"{_share(found):.3g} times what rounding allows"
    lost_digits = f"; {found['note']}" if found.get("mechanism") == "cancellation" else ""
    return f"against {way}: the first difference is made in {place}: {how}{lost_digits}"
