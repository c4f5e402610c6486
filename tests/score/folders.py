"""Model folders: ``table.toml`` multiplied out, each with its sound twin."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from corpus import families

from .architectures import PROMPT, Architecture, architectures
from .injections import INJECTIONS, Site
from .oracle import watch
from .records import Case, Truth

TABLE = Path(__file__).with_name("table.toml")
WAYS = {"input_ids": "folder", "pixel_values": "vision", "input_values": "audio", "input_features": "audio"}
VIEWS = (
    "aten.t.", "aten.view.", "aten.detach.", "aten.transpose.", "aten.unsqueeze.", "aten.slice.", "aten.select.",
    "aten.expand.", "aten.permute.",
)  # fmt: skip
"""Operators that only look at their input in another way."""
PER_LAYER = ("first_norm", "embedding", "head", "patches")
"""Parts that are there once: their place has no layer."""


def injected(architecture: Architecture, fault: str, part: str, layer: int, dtype: str, bad: bool) -> Any:
    """The model with the fault in it (or its harmless change), and the truth about it."""
    changed = {architecture.eps: 0.0} if fault == "zero_norm" else {}
    model = architecture.build(**changed)
    with torch.no_grad():
        truth = INJECTIONS[fault](Site(model, architecture, layer, dtype, part, bad))
    return model, truth


def write(folder: Path, architecture: Architecture, fault: str, part: str, layer: int, dtype: str, bad: bool) -> Path:
    """The model folder, with a tokenizer where the model reads tokens."""
    model, _ = injected(architecture, fault, part, layer, dtype, bad)
    model.save_pretrained(folder)
    if architecture.input == "input_ids":
        families.write_tokenizer(folder)
    return folder


def cases() -> Iterator[Case]:
    """Each fault and its twin."""
    for row in tomllib.loads(TABLE.read_text("utf-8"))["rows"]:
        names = architectures() if row["architectures"] == "all" else row["architectures"]
        for name in names:
            if name in row.get("but", ()):
                continue
            for part in row["parts"]:
                for layer in row["layers"]:
                    for dtype in row["dtypes"]:
                        yield from pair(architectures()[name], row["fault"], part, layer, dtype, row.get("attn"))


def pair(architecture: Architecture, fault: str, part: str, layer: int, dtype: str, attn: str | None) -> Iterator[Case]:
    """A fault and its twin; nothing where the architecture has no such part."""
    if not architecture.at(part, layer) or not needed(architecture, fault, part):
        return
    way = "inputs" if architecture.name in ("clip", "siglip") else WAYS[architecture.input]
    place = part if part in PER_LAYER else f"layer{layer}.{part}"
    name = f"{architecture.name}/{fault}/{place}/{dtype}/{way}"

    def writer(bad: bool) -> Callable[[Path], Path]:
        return lambda folder: write(folder, architecture, fault, part, layer, dtype, bad)

    def truth() -> Truth:
        found: Truth = injected(architecture, fault, part, layer, dtype, True)[1]
        return found

    def check() -> str | None:
        return checked(architecture, fault, part, layer, dtype, attn)

    prompt = PROMPT if architecture.input == "input_ids" else None
    for bad in (True, False):
        yield Case(name if bad else f"{name}/sound", architecture.name, fault, way, writer(bad),
                   truth if bad else None, check, dtype, attn, prompt)  # fmt: skip


def checked(architecture: Architecture, fault: str, part: str, layer: int, dtype: str, attn: str | None) -> str | None:
    """What plain torch has against the table's word on a fault and its twin; None where it agrees."""
    sights = []
    for bad in (True, False):
        model, truth = injected(architecture, fault, part, layer, dtype, bad)
        if truth.mechanisms != ("bad_weights",) and not all(p.isfinite().all() for p in model.parameters()):
            return "a weight is not finite"
        if attn:
            model.set_attn_implementation(attn)
        cast = getattr(torch, dtype)
        inputs = {k: v.to(cast) if v.is_floating_point() else v for k, v in architecture.inputs(model).items()}
        sights.append((watch(model.to(cast), inputs), truth))
    (seen, truth), (sound, _) = sights
    (place,) = truth.places
    if not sound.finite:
        return f"the twin is not finite: {sound.module}"
    if seen.finite:
        return "the fault does not reach the output"
    # What the twin does too is harmless: tanh takes infinity to 1, and log(0) is dropped by a where.
    own = [op for op in seen.own if (seen.module, op) not in sound.bad and not op.startswith(VIEWS)]
    if seen.module != place.module or not own or not own[0].startswith(place.ops):
        return f"it is born in {seen.module}, {own[:2]}, and the table says {place.module}, {place.ops}"
    return None


def needed(architecture: Architecture, fault: str, part: str) -> bool:
    """Whether the architecture has everything that the injection takes for granted."""
    if fault == "residual_overflow":
        return bool(architecture.attention_add if part == "out" else architecture.mlp_add)
    return fault != "zero_norm" or bool(architecture.eps)
