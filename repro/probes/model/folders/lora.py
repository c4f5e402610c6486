"""A LoRA adapter on its base model, by the formula: W x + (alpha / r) B A x, as the package PEFT computes it.

Source: https://arxiv.org/abs/2106.09685, section 4.1; alpha / sqrt(r) of rank-stabilised ones:
https://arxiv.org/abs/2312.03732. PEFT brings adapters in half precision to float32 when it loads them, and gives the
layer's own dtype back, so it is done here too.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from ...checkpoint import limits
from ...checkpoint.files import adapter_weights
from ...checkpoint.opening import read_json, shown
from ..compat import CannotLoad
from ..load import Loaded, opened
from . import by_peft
from .by_peft import ByPeft

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
PARTS = re.compile(r"(?P<layer>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(\.[\w-]+)?(\.weight)?")
# Settings that make it no plain LoRA.
OTHER_KINDS = (
    "use_dora", "use_qalora", "use_bdlora", "megatron_config", "lora_bias", "target_parameters", "layer_replication",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
)  # fmt: skip
RANK = 8  # PEFT's own, where the settings name none
FIRST, NAMED = 3, 5  # names in a message


@dataclass
class Adapter:
    """What was put on the model. layers: each with its matrices and its scale; replaced: parameters that the adapter
    has as a whole; strange: keys of its file that are nothing of the model; halved: those of which the other matrix
    is missing. rank: what its settings say.
    """

    rank: int
    layers: dict[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict)
    replaced: dict[str, Tensor] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    halved: list[str] = field(default_factory=list)
    active: bool = True

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """The base model alone. What the adapter has as a whole stays."""
        before = self.active
        self.active = False
        try:
            yield
        finally:
            self.active = before

    @contextlib.contextmanager
    def merged(self, loaded: Loaded) -> Iterator[None]:
        """The adapter's product added to the weights themselves, rounded to their dtype."""
        modules: dict[str, Any] = dict(loaded.model.named_modules())
        kept = [(modules[layer].weight, modules[layer].weight.data) for layer in self.layers]
        try:
            for layer, (a, b, scale) in self.layers.items():
                module = modules[layer]
                product = (b.detach().float() @ a.detach().float()) * scale
                turned = type(module).__name__ == "Conv1D" or isinstance(module, nn.Embedding)
                weight = module.weight.data
                module.weight.data = (weight.float() + (product.T if turned else product)).to(weight.dtype)
            with self.off():
                yield
        finally:
            for parameter, data in kept:
                parameter.data = data

    @property
    def words(self) -> str:
        count = len(self.layers)
        rank = f" of rank {self.rank}" if self.rank > 0 else ""
        return f"with a LoRA adapter{rank} on {count} layer{'' if count == 1 else 's'}, not merged"

    def faults(self) -> Iterator[str]:
        """What is wrong with its file or its settings, in words."""
        if self.strange:
            yield f"the adapter has keys that the model does not: {', '.join(self.strange[:NAMED])}"
        if self.halved:
            missing = [_other_half(key) for key in self.halved]
            yield f"the adapter lacks one of the two matrices of a layer: there is no {', '.join(missing[:NAMED])}"
        ranks = sorted({int(a.shape[0]) for a, _, _ in self.layers.values()})
        if self.layers and self.rank < 1:
            yield (
                f"{CONFIG} says r={self.rank}, and the matrices have the rank {', '.join(map(str, ranks))}: PEFT"
                " refuses such an adapter. Here it is computed with the matrices' own"
            )


def _other_half(key: str) -> str:
    """The key of the matrix that belongs to this one."""
    head, part, tail = key.rpartition("lora_A") if "lora_A" in key else key.rpartition("lora_B")
    return head + ("lora_B" if part == "lora_A" else "lora_A") + tail


def put_on(loaded: Loaded, folder: str) -> "Union[Adapter, ByPeft]":
    """The adapter of a folder on the model; ``loaded.adapter`` has it from then on.

    Raises:
        CannotLoad: it is of a kind that only PEFT knows, which is not here, or fits no layer of the model.
    """
    settings = read_json(os.path.join(folder, CONFIG), limits.CONFIG_BYTES)
    if not isinstance(settings, dict):
        raise CannotLoad(f"{CONFIG} holds {shown(settings)}: expected an object of settings.")
    other = _other_kind(settings)
    if other is not None and by_peft.is_there():
        loaded.adapter = by_peft.put_on(loaded, folder, other)
        return loaded.adapter
    if other is not None:
        raise CannotLoad(
            f"The adapter is {other}, which needs the package peft, and {sys.executable} does not have it (pip install"
            " peft); only plain LoRA is computed here. Or give the model with the adapter merged into it"
            " (merge_and_unload(), save_pretrained())."
        )
    found = adapter_weights(folder)
    if not found.names:
        raise CannotLoad(
            f"The adapter has no weights: {folder} holds no adapter_model.safetensors or adapter_model.bin."
        )
    path = os.path.join(folder, found.names[0])
    keys = [entry.name for header in found.headers for entry in header.entries]
    if found.format == "pickle":
        from ...checkpoint.files import load_pickle

        keys = list(load_pickle(path, "cpu"))
    loaded.model.requires_grad_(False)  # as PEFT does: what is trained is the adapter
    adapter = _read(loaded, settings, path, keys)
    if not adapter.layers and not adapter.replaced:
        raise CannotLoad(
            f"The adapter fits no layer of {loaded.class_name}: it has {', '.join(map(shown, keys[:FIRST]))}."
            f" Its base model is said to be {shown(settings.get('base_model_name_or_path'))}."
        )
    loaded.adapter = adapter
    return adapter


def _other_kind(settings: dict[str, Any]) -> Optional[str]:
    """What makes it no plain LoRA, in words."""
    kind = str(settings.get("peft_type", "LORA")).upper()
    odd = next((name for name in OTHER_KINDS if settings.get(name)), None)
    return f"of kind {kind}" if kind != "LORA" else None if odd is None else f"with {odd}"


def _read(loaded: Loaded, settings: dict[str, Any], path: str, keys: list[str]) -> Adapter:
    read = opened(path)
    modules = dict(loaded.model.named_modules())
    parameters = dict(loaded.model.named_parameters())
    halves: dict[str, dict[str, tuple[str, bool]]] = {}
    adapter = Adapter(int(settings.get("r", RANK) or 0))
    for key in keys:
        name = key[len(PREFIX) :] if key.startswith(PREFIX) else key
        match = PARTS.fullmatch(name)
        whole = re.sub(r"\.(modules_to_save\.[\w-]+|base_layer)(?=\.)", "", name)
        if match and _module(modules, match["layer"]) is not None:
            halves.setdefault(match["layer"], {})[match["part"]] = (key, bool(match["embedding"]))
        elif whole in parameters and parameters[whole].shape == read(key).shape:
            adapter.replaced[whole] = read(key)
            loaded.from_file[whole] = (path, key)
        else:
            adapter.strange.append(key)
    for layer, pair in halves.items():
        if set(pair) != {"A", "B"}:
            adapter.halved += [key for key, _ in pair.values()]
            continue
        a, b = (read(pair[part][0]) for part in "AB")
        _add(loaded, adapter, modules, layer, (a, b), pair["A"][1], _scale(settings, layer, int(a.shape[0])))
        for part in "AB":
            loaded.from_file[f"{layer}.lora_{part}.weight"] = (path, pair[part][0])
    with torch.no_grad():
        for name, value in adapter.replaced.items():
            parameters[name].data = value.to(parameters[name])
            parameters[name].requires_grad_(True)
    return adapter


def _module(modules: dict[str, nn.Module], name: str) -> Optional[nn.Module]:
    return modules.get(name)


def _scale(settings: dict[str, Any], layer: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r); a pattern may give a layer an alpha of its own."""
    alpha = settings.get("lora_alpha") or rank
    for pattern, own in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            alpha = own
            break
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


class Matrix(nn.Module):
    """One matrix of an adapter, as a part of the layer that it is on."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


def _add(
    loaded: Loaded,
    adapter: Adapter,
    modules: dict[str, nn.Module],
    layer: str,
    pair: tuple[Tensor, Tensor],
    embedding: bool,
    scale: float,
) -> None:
    """Put one pair of matrices on a layer.

    Raises:
        CannotLoad: they have other shapes than the layer, or the layer is of a kind that only PEFT knows.
    """
    module: Any = modules[layer]
    weight = getattr(module, "weight", None)
    a, b = (matrix.to(device=loaded.device, dtype=torch.float32) for matrix in pair)
    is_turned = type(module).__name__ == "Conv1D"
    if not isinstance(weight, Tensor) or not (isinstance(module, (nn.Linear, nn.Embedding)) or is_turned):
        raise CannotLoad(f"The adapter is on {layer}, a {type(module).__name__}, which needs the package peft.")
    inner = (int(b.shape[0]), int(a.shape[1]))
    shape = tuple(weight.shape)
    wanted = shape[::-1] if is_turned or embedding else shape
    if inner != wanted or a.shape[0] != b.shape[1]:
        raise CannotLoad(
            f"The adapter's matrices on {layer} make {inner}, and the layer has {shape}: another base model."
        )
    module.add_module("lora_A", Matrix(a))
    module.add_module("lora_B", Matrix(b))
    adapter.layers[layer] = (module.lora_A.weight, module.lora_B.weight, scale)

    def beside(owner: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not adapter.active:
            return output
        if embedding:
            rows = nn.functional.embedding(args[0], owner.lora_A.weight.T)
        else:
            rows = owner.lora_A(args[0].to(owner.lora_A.weight.dtype))
        return (output + owner.lora_B(rows) * scale).to(output.dtype)

    module.register_forward_hook(beside)
