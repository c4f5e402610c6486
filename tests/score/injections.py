"""What is changed in a model's weights, and what plain arithmetic then says.

An injection changes a seeded model, and answers with the truth. With ``bad=False`` it makes the same change with a
number that does no harm. None of it looks at what the code under test answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from .architectures import TOKEN, Architecture
from .records import Place, Truth

LINEAR = ("aten.addmm", "aten.mm", "aten.bmm", "aten.linear")
"""A projection, by what its inputs' shape and its bias make of it."""
CONVOLUTION = ("aten.convolution", "aten.mkldnn_convolution", "aten._slow_conv2d_forward")
PRODUCT = ("aten.bmm", "aten.baddbmm")
CHANNEL, UNIT = 5, 9
TERM = 4e4 / 65504
"""Of a dtype's largest number: twice this is beyond it, and once is not. The twins add half of it."""
EDGE = 0.95
"""Of a dtype's largest number: a matrix scaled to this is beyond it in its product with inputs of size 1."""
SCORE = 500.0
"""Queries and keys scaled by this are some 700 in size, so that a product of eight is some 1e6."""
CHECKPOINT, CALLER, TRANSFORMERS = "checkpoint", "caller", "transformers"


@dataclass(frozen=True)
class Site:
    """Where a fault is injected: the model, its architecture, the number of the layer, and the dtype it will run in."""

    model: PreTrainedModel
    architecture: Architecture
    layer: int
    dtype: str
    part: str
    bad: bool

    @property
    def limit(self) -> float:
        """The dtype's largest number."""
        return torch.finfo(getattr(torch, self.dtype)).max

    def name(self, part: str, layer: int | None = None) -> str:
        """A part's name in this layer, or in another."""
        return self.architecture.at(part, self.layer if layer is None else layer)

    def module(self, part: str, layer: int | None = None) -> Any:
        """The part itself."""
        return self.model.get_submodule(self.name(part, layer))


Injection = Callable[[Site], Truth]


def rows(module: Any) -> torch.Tensor:
    """The weight as (out, in): Conv1D of GPT-2 keeps it the other way round."""
    weight: torch.Tensor = module.weight
    return weight.t() if type(module).__name__ == "Conv1D" else weight


def seen_by(site: Site, name: str) -> torch.Tensor:
    """What a module is given in a plain forward pass, as (rows, in)."""
    kept: list[torch.Tensor] = []
    handle = site.model.get_submodule(name).register_forward_pre_hook(lambda _, args: kept.append(args[0].detach()))
    try:
        with torch.no_grad():
            site.model(**site.architecture.inputs(site.model))
    finally:
        handle.remove()
    return kept[0].reshape(-1, kept[0].shape[-1])


def aim(site: Site, part: str, layer: int, value: float, row: int | None = None) -> int | None:
    """Make a projection give ``value`` in one channel: by its bias, or else for one row of its input.

    Without ``row`` that is the longest: by Cauchy and Schwarz no other row then gives more.

    Returns:
        The row; None for all of them.
    """
    module = site.module(part, layer)
    if module.bias is not None:
        rows(module)[CHANNEL] = 0.0
        module.bias[CHANNEL] = value
        return None
    inputs = seen_by(site, site.name(part, layer))
    row = int(inputs.norm(dim=1).argmax()) if row is None else row
    rows(module)[CHANNEL] = inputs[row] * (value / inputs[row].dot(inputs[row]))
    return row


def residual_overflow(site: Site) -> Truth:
    """Two terms of a residual add: an earlier layer's, and this one's."""
    term = TERM * site.limit
    add = {"out": "attention_add", "down": "mlp_add"}[site.part]
    if site.architecture.carrier:  # a norm stands behind each add: its bias carries the first term
        site.module("carrier").bias[CHANNEL] = term
        rows(site.module("up"))[:, CHANNEL] = 0.0
        earlier, row = site.name("carrier"), None
    else:
        row = aim(site, site.part, site.layer - 1, term)
        earlier = site.name(site.part, site.layer - 1)
    aim(site, site.part, site.layer, term if site.bad else term / 2, row)
    return Truth(
        (Place(site.name(add), ("aten.add",)),), ("overflow",), (CHECKPOINT, CALLER, TRANSFORMERS),
        f"{earlier} and {site.name(site.part)} each give {term:.3g} to channel {CHANNEL}; only their sum, in the "
        f"residual add of {site.name(add)}, is beyond {site.limit:.4g}",
    )  # fmt: skip


def linear_overflow(site: Site) -> Truth:
    """A projection whose largest weight is just below the dtype's largest number."""
    module = site.module(site.part)
    module.weight.div_(module.weight.abs().max()).mul_(EDGE * site.limit if site.bad else 2.0)
    ops = CONVOLUTION if site.part == "patches" else LINEAR
    return Truth(
        (Place(site.name(site.part), ops),), ("overflow",), (CHECKPOINT, CALLER),
        f"the weights of {site.name(site.part)} reach {EDGE:g} of the largest number, which their product with inputs "
        "of size 1 exceeds",
    )  # fmt: skip


def qk_overflow(site: Site) -> Truth:
    """Queries and keys that fit, and their product that does not."""
    factor = SCORE * math.sqrt(site.limit / 65504) if site.bad else 3.0
    at = site.name("attention")
    if site.architecture.q:
        for part in ("q", "k"):
            rows(site.module(part)).mul_(factor)
    else:  # GPT-2, GPT-NeoX and Bloom have one matrix for q, k and v
        heads = site.model.config.num_attention_heads
        fused = rows(site.model.get_submodule(at + FUSED[site.architecture.name]))
        size = fused.shape[1]
        if site.architecture.name == "gpt2":
            fused[: 2 * size].mul_(factor)
        else:
            fused.view(heads, 3, size // heads, size)[:, :2].mul_(factor)
    return Truth(
        (Place(at, PRODUCT),), ("overflow",), (CHECKPOINT, CALLER, TRANSFORMERS),
        f"queries and keys of {at} are multiplied by {factor:.3g}; they fit, and the products of q and k do not",
    )  # fmt: skip


FUSED = {"gpt2": ".c_attn", "gpt_neox": ".query_key_value", "bloom": ".query_key_value"}


def gate_overflow(site: Site) -> Truth:
    """Both factors of a gated MLP fit, and their product does not."""
    factor = 300.0 * math.sqrt(site.limit / 65504) if site.bad else 2.0
    for part in ("gate", "up"):
        site.module(part).weight.mul_(factor)
    return Truth(
        (Place(site.name("mlp"), ("aten.mul",)),), ("overflow",), (CHECKPOINT, CALLER, TRANSFORMERS),
        f"{site.name('gate')} and {site.name('up')} are multiplied by {factor:.3g}; both fit, and their product does "
        "not",
    )  # fmt: skip


def norm_scale_overflow(site: Site) -> Truth:
    """A norm's own weight is just below the dtype's largest number."""
    site.module("norm").weight.fill_(EDGE * site.limit if site.bad else 3.0)
    name = site.name("norm")
    return Truth(
        (Place(name, (site.architecture.norm_op,)),), ("overflow",), (CHECKPOINT, CALLER),
        f"the weight of {name} is {EDGE:g} of the largest number: an ordinary value above 1.06 overflows",
    )  # fmt: skip


def zero_norm(site: Site) -> Truth:
    """One token is embedded as zeros, and the norm has no epsilon (the configuration's is 0)."""
    name, model = site.architecture.first_norm, site.model
    if site.bad:
        model.get_submodule(site.architecture.embedding).weight[TOKEN] = 0.0
        for table in site.architecture.zeroed:
            model.get_submodule(table).weight.zero_()
    op = site.architecture.zero_op
    return Truth(
        (Place(name, (op,)),), ("divide_by_zero",) if op == "aten.rsqrt" else ("divide_by_zero", "invalid"),
        (CHECKPOINT,),
        f"token {TOKEN} is embedded as zeros and the configuration's epsilon is 0: {name} divides by the root of 0",
    )  # fmt: skip


def names(site: Site, name: str) -> tuple[str, ...]:
    """All names of a parameter; none where the file may have others than the model, which are not asked then."""
    if site.architecture.input != "input_ids":
        return ()
    wanted = site.model.get_parameter(name)
    return tuple(known for known, found in site.model.named_parameters(remove_duplicate=False) if found is wanted)


def _bad_weight(site: Site, module: str, parameter: str, index: tuple[int, ...], ops: tuple[str, ...],
                value: float) -> Truth:  # fmt: skip
    site.model.get_parameter(parameter)[index] = value if site.bad else 0.01
    return Truth(
        (Place(module, ops),), ("bad_weights",), (CHECKPOINT,),
        f"{parameter}{list(index)} is {value} in the file; {module} is the first to read it",
        tensors=names(site, parameter),
        index=index,
    )  # fmt: skip


def nan_weight(site: Site) -> Truth:
    """NaN at one place of a projection's weight."""
    return _weight(site, math.nan)


def inf_weight(site: Site) -> Truth:
    """Inf at one place of a projection's weight."""
    return _weight(site, math.inf)


def _weight(site: Site, value: float) -> Truth:
    name, shape = site.name(site.part), site.module(site.part).weight.shape
    if site.part == "patches":
        index = (CHANNEL, *([0] * (len(shape) - 1)))
        return _bad_weight(site, name, f"{name}.weight", index, CONVOLUTION, value)
    return _bad_weight(site, name, f"{name}.weight", (min(UNIT, shape[0] - 1), CHANNEL), LINEAR, value)


def nan_weights(site: Site) -> Truth:
    """NaN in the same projection of two layers; the earlier explains the later."""
    later = f"{site.name(site.part, site.layer + 1)}.weight"
    site.model.get_parameter(later)[2, CHANNEL] = math.nan if site.bad else 0.01
    return _weight(site, math.nan)


def linear_overflows(site: Site) -> Truth:
    """The same projection of this layer and of the next is too large; the earlier overflows first."""
    weight = site.module(site.part, site.layer + 1).weight
    weight.div_(weight.abs().max()).mul_(EDGE * site.limit if site.bad else 2.0)
    return linear_overflow(site)


def nan_bias(site: Site) -> Truth:
    """NaN in a projection's bias."""
    name = site.name(site.part)
    return _bad_weight(site, name, f"{name}.bias", (CHANNEL,), LINEAR, math.nan)


def nan_embedding(site: Site) -> Truth:
    """NaN in the row of one token of the prompt."""
    name = site.architecture.embedding
    return _bad_weight(site, name, f"{name}.weight", (TOKEN, CHANNEL), ("aten.embedding",), math.nan)


def _norm(site: Site, value: float) -> Truth:
    name = site.name("norm")
    ops = site.architecture.weight_ops or (site.architecture.norm_op,)
    return _bad_weight(site, name, f"{name}.weight", (CHANNEL,), ops, value)


def nan_norm(site: Site) -> Truth:
    """NaN in a norm's weight."""
    return _norm(site, math.nan)


def inf_norm(site: Site) -> Truth:
    """Inf in a norm's weight."""
    return _norm(site, math.inf)


def nan_expert(site: Site) -> Truth:
    """NaN at the same place of every expert, so that it does not matter which of them a token is given to."""
    name = site.name("experts")
    parameter = site.model.get_parameter(f"{name}.gate_up_proj")
    parameter[:, 3, CHANNEL] = math.nan if site.bad else 0.01
    return Truth(
        (Place(name, (*LINEAR, "aten._grouped_mm")),), ("bad_weights",), (CHECKPOINT,),
        f"{name}.gate_up_proj[:, 3, {CHANNEL}] is NaN in the file; {name} is the first to read it",
    )  # fmt: skip


def nan_statistics(site: Site) -> Truth:
    """NaN in the running variance of a batch norm: a buffer, not a parameter."""
    name = site.name("statistics")
    site.module("statistics").running_var[CHANNEL] = math.nan if site.bad else 1.0
    tensor = f"{name}.running_var"
    return Truth(
        (Place(name, ("aten.native_batch_norm", "aten._native_batch_norm_legit", "aten._batch_norm_with_update")),),
        ("bad_weights",), (CHECKPOINT,), f"{tensor}[{CHANNEL}] is NaN in the file; {name} reads it", tensors=(tensor,),
    )  # fmt: skip


def weight_beyond(site: Site) -> Truth:
    """A weight that the file holds, in float32, and the dtype that is asked for does not."""
    name = site.name(site.part)
    index = (CHANNEL, UNIT) if site.part != "embedding" else (TOKEN, CHANNEL)
    tensor = f"{name}.weight"
    site.model.get_parameter(tensor)[index] = 1e5 if site.bad else 10.0
    return Truth(
        (Place(name, LINEAR if site.part != "embedding" else ("aten.embedding",)),), ("overflow",), (CALLER,),
        f"{tensor}{list(index)} is 1e5 in a file of float32, and float16, which is asked for, ends at 65504",
        tensors=names(site, tensor),
        index=index,
    )  # fmt: skip


INJECTIONS: dict[str, Injection] = {
    made.__name__: made
    for made in (
        residual_overflow,
        linear_overflow,
        linear_overflows,
        qk_overflow,
        gate_overflow,
        norm_scale_overflow,
        zero_norm,
        nan_weight,
        inf_weight,
        nan_weights,
        nan_bias,
        nan_embedding,
        nan_norm,
        inf_norm,
        nan_expert,
        nan_statistics,
        weight_beyond,
    )
}
