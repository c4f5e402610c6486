"""The model compiled, stage by stage: the first backend that gives something else names the layer of the compiler, and
its modules compiled one by one name the place.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..observe.screen import blocks
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from .diff import Made, Told, answer, end_of, held_against, make
from .held.hold import Recording, Way, measure
from .ways import NoSuchWay, plain

BACKENDS = ("eager", "aot_eager", "inductor")
SEED = 5
LAYERS = {"eager": "Dynamo", "aot_eager": "AOTAutograd", "inductor": "Inductor"}


def compiled(loaded: Any, inputs: tuple[Any, ...], backend: str, told: Told) -> Outcome:
    """Each backend in turn, or the one that is named; the first one that parts is looked into.

    Raises:
        NoSuchWay: this PyTorch cannot compile.
    """
    if not hasattr(torch, "compile"):
        raise NoSuchWay("this PyTorch has no torch.compile")
    model, this = loaded.model, plain(inputs)
    made = make(model, this, inputs, told)
    stages: list[dict[str, Any]] = []
    outcome: Outcome = "skip", "no backend was asked", None
    for name in BACKENDS if not backend else (backend,):
        try:
            outcome = _stage(model, made, this, name, told)
        except NoSuchWay:
            raise
        except Exception as error:  # noqa: BLE001 - a backend may refuse a model for any reason
            outcome = "skip", f"torch.compile with {name}: {in_words(error)}", None
        verdict, reason, payload = outcome
        stages.append({"name": f"compile:{name}", "verdict": verdict, "reason": reason})
        if verdict != "good":
            break
    verdict, reason, payload = outcome
    return verdict, reason, {**(payload or {}), "stages": stages}


def _stage(model: nn.Module, made: Made, this: Way, backend: str, told: Told) -> Outcome:
    words = f"torch.compile ({LAYERS[backend]}: backend {backend!r})"
    whole = replace(
        this,
        words=words,
        setting=functools.partial(_compiled, model, ("",), backend),
        modules=("",),
        is_watchable=False,
    )
    outside = replace(_among(made.recording, ("",)), forced=made.recording.free)
    free = replace(made, way=replace(this, modules=("",)), recording=outside, chosen=("",))
    found = held_against(model, free, whole, told, again=True)
    end = end_of(found)
    level = _outline(model)
    while level:
        recording = _among(made.recording, level)
        alone = replace(this, modules=level)
        recording.forced = measure(model, alone, recording, recording, SEED, forced=True)
        setting = functools.partial(_compiled, model, level, backend)
        way = replace(this, words=words, setting=setting, modules=level, is_watchable=False)
        inner = held_against(model, replace(made, way=alone, recording=recording, chosen=level), way, told, again=True)
        if not inner.departing and found.departing:
            break
        found = inner
        if not inner.departing:
            break
        module = inner.departing[0][0].this.call.module
        prefix = f"{module}." if module else ""
        children = model.get_submodule(module).named_children()
        level = tuple(prefix + name for name, child in children if next(child.parameters(), None) is not None)
    verdict, reason, payload = answer(found, end=end)
    departure = (payload or {}).get("departure")
    if departure is not None:
        departure["layer"] = backend
        if not departure["module"]:
            reason = f"{reason}; no module parts when it is compiled by itself"
    return verdict, reason, payload


def _among(recording: Recording, level: tuple[str, ...]) -> Recording:
    """The part of a recording that is of these modules."""
    entries = {point: entry for point, entry in recording.entries.items() if point.call.module in level}
    return replace(recording, entries=entries, forced={})


def _outline(model: nn.Module) -> tuple[str, ...]:
    """The repeated layers, and the innermost modules outside of them."""
    layers = blocks(model)
    inside = tuple(f"{name}." for name in layers)
    leaves = [
        name
        for name, module in model.named_modules()
        if name and not name.startswith(inside) and name not in layers and next(module.children(), None) is None
    ]
    return (*leaves, *layers)


@contextlib.contextmanager
def _compiled(model: nn.Module, names: tuple[str, ...], backend: str) -> Iterator[None]:
    """These modules' forwards compiled; as they were afterwards."""
    modules = [model.get_submodule(name) for name in names]
    torch._dynamo.reset()
    try:
        for module in modules:
            module.forward = torch.compile(module.forward, backend=backend)
        yield
    finally:
        for module in modules:
            vars(module).pop("forward", None)
        torch._dynamo.reset()
