"""The free run: a pass beside the same pass in float64, in which errors add up from layer to layer."""

from collections.abc import Iterable
from typing import Any, Optional

from torch import nn

from ..model.before.room import free_memory
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..observe.screen import blocks
from .held.calls import GAVE
from .held.hold import Held, Pair, Recording, hold, measure, record
from .ways import in_other_dtype, plain

SEED = 1


def free_run(loaded: Loaded, inputs: Inputs) -> list[dict[str, Any]]:
    """Behind each layer, and at the end: how far the run is from float64, and how far rounding alone brings it.

    None of it where float64 has no room or is not there, or the model does not run in it.
    """
    model, room = loaded.model, free_memory()
    if room is not None and has_no_room(model, room):
        return []
    try:
        this, other = plain((inputs,)), in_other_dtype(loaded, (inputs,), "float64")
        layers = blocks(model) or [name for name, _ in model.named_children()]
        chosen = ("", *layers)
        recording, _ = record(model, this, chosen=chosen)
        recording.free = measure(model, this, recording, recording, SEED, forced=False, chosen=chosen)
        held = Held(recording, other, forced=False)
        hold(model, other, held, chosen=chosen)
    except Exception:  # noqa: BLE001 - figures beside the answer, which stands without them
        return []
    return grown(held.pairs, recording, with_end=True)


def has_no_room(model: nn.Module, room: int) -> bool:
    """Whether its weights in float64 would take more than half of the bytes that are free."""
    return sum(parameter.numel() for parameter in model.parameters()) * 8 > room // 2


def grown(pairs: Iterable[Pair], recording: Recording, with_end: bool = False) -> list[dict[str, Any]]:
    """Deviation and drift behind each layer, in the first pass of two that run freely."""
    rows = []
    for pair in pairs:
        point = pair.this
        if point.side != GAVE or point.call.pass_ or pair.other.call.pass_:
            continue
        is_end = not point.call.module
        if (with_end and point.path == _main(recording)) if is_end else (point.path == "0" and not point.call.index):
            drift = recording.free.get(point)
            rows.append(
                {
                    "module": point.call.module,
                    "deviation": pair.found.whole,
                    "drift": None if drift is None else drift.whole,
                    "scale": float(pair.found.scale.square().mean().sqrt()),
                }
            )
    return rows


def _main(recording: Recording) -> Optional[str]:
    """The part of the model's output that is judged: the logits where there are any, else the first."""
    paths = [point.path for point in recording.entries if point.side == GAVE and not point.call.module]
    floats = [path for path in paths if path == "logits"] or paths
    return floats[0] if floats else None
