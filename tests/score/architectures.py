"""The architectures as data (``architectures.toml``), and tiny seeded models of them."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from corpus import families
from transformers import PreTrainedModel

DATA = Path(__file__).with_name("architectures.toml")
IMAGE, WAVE, SPECTROGRAM = "pixel_values", "input_values", "input_features"
SHAPES = {IMAGE: (1, 3, 16, 16), WAVE: (1, 400)}
PROMPT = "w17 w42 w99 w5 w63 w28 w110 w77 w34 w51 w88"
"""Each word is a token, and stands there once."""
TOKEN = 99


@dataclass(frozen=True)
class Architecture:
    """How one architecture is built, and what its parts are called. architectures.toml says what each name means."""

    name: str
    layer: str
    family: str = ""
    config: str = ""
    model: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    input: str = "input_ids"
    shape: tuple[int, ...] = ()
    embedding: str = ""
    attention: str = ""
    q: str = ""
    k: str = ""
    out: str = ""
    attention_add: str = ""
    mlp: str = ""
    gate: str = ""
    up: str = ""
    down: str = ""
    mlp_add: str = ""
    carrier: str = ""
    norm: str = ""
    norm_op: str = ""
    weight_ops: tuple[str, ...] = ()
    first_norm: str = ""
    eps: str = ""
    zero_op: str = ""
    zeroed: tuple[str, ...] = ()
    head: str = ""
    experts: str = ""
    statistics: str = ""
    patches: str = ""

    def at(self, part: str, layer: int) -> str:
        """The full name of a part: "q" in layer 1. "" where this architecture has none."""
        name: str = getattr(self, part)
        if not name.startswith("."):
            return name
        return self.layer.format(layer) + name.rstrip(".")

    def build(self, **changed: Any) -> PreTrainedModel:
        """A model with seeded weights, in float32, in evaluation mode; ``changed`` overrides its configuration."""
        if self.family:
            return families.build(self.family, **changed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = getattr(transformers, self.config)(**{**self.arguments, **changed})
            return getattr(transformers, self.model)(config).eval()

    def inputs(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        """What the oracle feeds: the prompt's ids, and seeded noise for everything else."""
        ids = torch.tensor([families.prompt_ids(PROMPT)])
        given: dict[str, torch.Tensor] = {}
        if self.embedding:
            given["input_ids"] = ids
        if self.input != "input_ids":
            shape = self.shape or SHAPES[self.input]
            given[self.input] = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        if model.config.is_encoder_decoder:
            given["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
        return given


def _expanded(name: str, row: dict[str, Any], shared: dict[str, Any]) -> Architecture:
    """One architecture, with what it shares filled in."""
    own = dict(row)
    arguments = {**shared["sizes"].get(own.pop("sizes", ""), {}), **own.pop("more", {})}
    parts = own.pop("parts", None)
    if parts is not None:
        image = {k: v for k, v in shared["sizes"]["image"].items() if k != "initializer_range"}
        arguments.update(text_config=parts, vision_config=image)
    for dropped in own.pop("drop", ()):
        arguments.pop(dropped)
    named = {**shared["names"].get(own.pop("names", ""), {}), **own}
    return Architecture(
        name=name, arguments=arguments, **{k: tuple(v) if isinstance(v, list) else v for k, v in named.items()}
    )


@functools.cache
def architectures() -> dict[str, Architecture]:
    """All of them, by name."""
    data = tomllib.loads(DATA.read_text("utf-8"))
    shared = {key: data.pop(key) for key in ("sizes", "names")}
    return {name: _expanded(name, row, shared) for name, row in data.items()}
