"""FP8 checkpoints, written by hand as their makers do: 128 x 128 blocks with a scale each, dequantised on loading."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from corpus import families
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from .architectures import PROMPT, TOKEN, Architecture, architectures
from .injections import CHANNEL, LINEAR
from .oracle import watch
from .records import Case, Place, Truth

ARCHITECTURES = ("mistral", "qwen3", "granite", "stablelm")
BLOCK = 128
LARGEST = 448.0
"""Of float8_e4m3fn."""
SCALE = "_scale_inv"
SETTINGS = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic",
            "dequantize": True}  # fmt: skip
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Fault:
    """One number of the file: ``value`` where the fault is, ``sound`` in the twin."""

    name: str
    tensor: str
    index: tuple[int, ...]
    value: float
    sound: float
    module: str
    ops: tuple[str, ...] | None
    """None: those of the architecture's norm."""


FAULTS = (
    Fault("nan_scale", f"model.layers.1.self_attn.o_proj.weight{SCALE}", (0, 0), math.nan, 1e-3,
          "model.layers.1.self_attn.o_proj", LINEAR),
    Fault("inf_scale", f"model.layers.0.mlp.up_proj.weight{SCALE}", (0, 0), math.inf, 1e-3,
          "model.layers.0.mlp.up_proj", LINEAR),
    Fault("nan_beside_fp8", "model.layers.1.post_attention_layernorm.weight", (CHANNEL,), math.nan, 1.0,
          "model.layers.1.post_attention_layernorm", None),
    Fault("nan_row_beside_fp8", "model.embed_tokens.weight", (TOKEN, CHANNEL), math.nan, 0.01,
          "model.embed_tokens", ("aten.embedding",)),
)  # fmt: skip


def _model(architecture: Architecture) -> PreTrainedModel:
    """Large enough for one block."""
    return architecture.build(hidden_size=BLOCK, intermediate_size=BLOCK, num_hidden_layers=2, head_dim=32).bfloat16()


def _quantised(state: Tensors) -> Tensors:
    """Each projection in float8, with the scale of its only block in a row or column."""
    made = {}
    for name, value in state.items():
        if not name.endswith("_proj.weight"):
            made[name] = value
            continue
        scale = float(value.float().abs().max()) / LARGEST
        made[name] = (value.float() / scale).to(torch.float8_e4m3fn)
        made[name + SCALE] = torch.full([math.ceil(size / BLOCK) for size in value.shape], scale)
    return made


def _injected(state: Tensors, fault: Fault, bad: bool) -> None:
    state[fault.tensor][fault.index] = fault.value if bad else fault.sound


def _write(architecture: Architecture, fault: Fault, bad: bool, folder: Path) -> Path:
    _model(architecture).save_pretrained(folder)
    path = folder / "model.safetensors"
    state = _quantised(load_file(path))
    _injected(state, fault, bad)
    save_file(state, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": SETTINGS}, indent=1), "utf-8")
    families.write_tokenizer(folder)
    return folder


def _truth(architecture: Architecture, fault: Fault) -> Truth:
    ops = fault.ops or architecture.weight_ops or (architecture.norm_op,)
    plain = fault.tensor.removesuffix(SCALE)
    return Truth(
        (Place(fault.module, ops),), ("bad_weights",), ("checkpoint",),
        f"{fault.tensor}{list(fault.index)} is {fault.value} in the file; {fault.module} is the first to read it",
        tensors=(fault.tensor, plain),
    )  # fmt: skip


def _checked(architecture: Architecture, fault: Fault) -> str | None:
    """The same weights, dequantised by hand, in a plain model."""
    sights = []
    for bad in (True, False):
        model = _model(architecture)
        state = _quantised({name: value.clone() for name, value in model.state_dict().items()})
        _injected(state, fault, bad)
        for name in [name for name in state if name.endswith(SCALE)]:
            block, scale = state[name.removesuffix(SCALE)].float(), state.pop(name)
            spread = scale.repeat_interleave(BLOCK, 0)[: block.shape[0]].repeat_interleave(BLOCK, 1)[
                :, : block.shape[1]
            ]
            state[name.removesuffix(SCALE)] = (block * spread).bfloat16()
        model.load_state_dict(state)
        sights.append(watch(model, architecture.inputs(model)))
    seen, sound = sights
    if not sound.finite or seen.finite:
        return f"the fault's output is finite: {seen.finite}, the twin's: {sound.finite}"
    (place,) = _truth(architecture, fault).places
    if seen.module != place.module or not any(op.startswith(place.ops) for op in seen.own):
        return f"it is born in {seen.module}, {seen.own[:2]}, and the table says {place}"
    return None


def cases() -> Iterator[Case]:
    """Each fault in each architecture, and its twin."""
    for name in ARCHITECTURES:
        architecture = architectures()[name]
        for fault in FAULTS:
            named = f"{name}/{fault.name}/fp8/bfloat16/quantised"
            for bad in (True, False):
                yield Case(
                    named if bad else f"{named}/sound", name, fault.name, "quantised",
                    partial(_write, architecture, fault, bad), partial(_truth, architecture, fault) if bad else None,
                    partial(_checked, architecture, fault), "bfloat16", None, PROMPT,
                )  # fmt: skip
