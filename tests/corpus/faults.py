"""The injected faults, what must be found in each, and their sound twins.

A fault is injected in the weights or the files of a tiny model, so that an ordinary `from_pretrained` shows it. The
same function writes the sound twin, with the one number, setting or file that makes the fault put right.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from . import families, files
from .families import BOS, DEFAULT_IDS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS

CUSTOM = Path(__file__).parent / "custom"

POSITION = next(i for i, t in enumerate(DEFAULT_IDS) if i > 1 and t > 2 and DEFAULT_IDS.count(t) == 1)
"""Where the token that carries a fault stands in the default ids. It stands there once."""
TOKEN = DEFAULT_IDS[POSITION]
CHANNEL = 5
UNIT = 9
"""The unit of an MLP's inner layer that carries a fault."""
FLOAT16_WORKAROUNDS = ("dtype=float32", "dtype=bfloat16")
FUSED = "attn=sdpa"
"""The CPU's fused attention keeps its scores in float32."""


@dataclass(frozen=True)
class Truth:
    """What must be found. None, or an empty tuple, says nothing about that answer."""

    verdict: str = "good"
    kind: str | None = None
    """nonfinite, weights, load, files or crash, as in verdict.json."""
    step: str | None = None
    """The first step that sees the fault: files, weights, load, forward or bisect."""
    module: str | None = None
    op: str | None = None
    """The operator's name up to its overload, such as `aten.bmm`: a prefix of the answer."""
    mechanism: str | None = None
    also_module: tuple[str, ...] = ()
    """Other names of the same module, in other releases of transformers."""
    also_mechanism: tuple[str, ...] = ()
    """Other names for the mechanism that are right, where one operator does two things at once."""
    also_verdict: tuple[str, ...] = ()
    token_index: int | None = None
    channel_index: int | None = None
    tensor: str | None = None
    tensor_index: tuple[int, ...] | None = None
    also_tensor: tuple[str, ...] = ()
    """Other names of the same tensor, where weights are tied."""
    workarounds: tuple[str, ...] = ()
    """Ablations that are good."""
    loads: bool = True
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    misaligned: bool = False
    unset_buffers: tuple[str, ...] = ()
    """From transformers 5 on, which builds on the meta device. Release 4 runs the constructor, and nothing is unset."""
    missing_file: str | None = None
    ruled_out_modules: tuple[str, ...] = ()
    """Modules whose output is not finite, which does no harm."""
    signal: str | None = None


@dataclass(frozen=True)
class InjectedFault:
    """One model folder: `build` writes it, `truth` says what is in it."""

    name: str
    family: str
    fault: str
    write: Callable[[Path], None]
    truth: Truth
    dtype: str = "float32"
    attn: str | None = None
    prompt: str | None = None
    """Text for the folder's tokenizer; None: no tokenizer, the default ids."""
    sound_prompt: str | None = None
    """Text with which the same model is good."""
    trust_remote_code: bool = False
    twin: str | None = None
    """The name of the sound twin; None for a sound model."""

    def build(self, folder: Path) -> None:
        """Write the model into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder)
        if self.prompt is not None:
            families.write_tokenizer(folder)

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids that the model gets."""
        return DEFAULT_IDS if self.prompt is None else families.prompt_ids(self.prompt)


Parameters = dict[str, torch.nn.Parameter]
Injector = Callable[[Parameters, bool], None]
"""Changes the parameters; with False, in the way that leaves the model sound."""


def _weights(family: str, injector: Injector, bad: bool, **config: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model = families.build(family, **config)
        _inject(model, injector, bad)
        model.save_pretrained(folder)

    return write


def _inject(model: PreTrainedModel, injector: Injector, bad: bool) -> None:
    with torch.no_grad():
        injector(dict(model.named_parameters(remove_duplicate=False)), bad)


def _pair(name: str, family: str, fault: str, injector: Injector, truth: Truth, dtype: str, attn: str | None = None,
          shape: str | None = None, twin_truth: Truth | None = None, prompt: str | None = None,
          sound_prompt: str | None = None, **config: object) -> Iterator[InjectedFault]:  # fmt: skip
    """The fault and its twin. `shape` is the builder's name where it differs from the family's."""
    for bad in (True, False):
        yield InjectedFault(
            name if bad else f"{name}-sound", family, fault, _weights(shape or family, injector, bad, **config),
            truth if bad else twin_truth or Truth(), dtype, attn, prompt, sound_prompt,
            twin=f"{name}-sound" if bad else None,
        )  # fmt: skip


# Names of the modules in layer 1, by family.
ATTENTION = {
    "gpt2": "transformer.h.1.attn", "gpt_neox": "gpt_neox.layers.1.attention", "llama": "model.layers.1.self_attn",
    "gemma3": "model.layers.1.self_attn", "bert": "bert.encoder.layer.1.attention.self",
    "t5": "encoder.block.1.layer.0.SelfAttention",
}  # fmt: skip
EMBEDDING = {
    "gpt2": "transformer.wte", "gpt_neox": "gpt_neox.embed_in", "llama": "model.embed_tokens",
    "gemma3": "model.embed_tokens", "bert": "bert.embeddings.word_embeddings", "t5": "encoder.embed_tokens",
}  # fmt: skip
TABLE = {**{k: f"{v}.weight" for k, v in EMBEDDING.items()}, "t5": "shared.weight"}
TIED = {"t5": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")}
NORM = {
    "gpt2": "transformer.h.1.ln_2", "gpt_neox": "gpt_neox.layers.1.post_attention_layernorm",
    "llama": "model.layers.1.post_attention_layernorm", "gemma3": "model.layers.1.pre_feedforward_layernorm",
    "bert": "bert.embeddings.LayerNorm", "t5": "encoder.block.1.layer.1.layer_norm",
}  # fmt: skip
FIRST_NORM = {
    "gpt2": "transformer.h.0.ln_1", "gpt_neox": "gpt_neox.layers.0.input_layernorm",
    "llama": "model.layers.0.input_layernorm", "gemma3": "model.layers.0.input_layernorm",
    "bert": "bert.embeddings.LayerNorm", "t5": "encoder.block.0.layer.0.layer_norm",
}  # fmt: skip


def _embed_scale(family: str) -> float:
    """Gemma multiplies its embeddings by the root of the hidden size."""
    return math.sqrt(HIDDEN) if family == "gemma3" else 1.0


def _loud_token(p: Parameters, family: str, value: float, token: int = TOKEN) -> None:
    """One token gets a large value in one channel: a norm then gives it nearly the root of the hidden size there."""
    p[TABLE[family]][token, CHANNEL] = value / _embed_scale(family)


# --- overflow in q.k ---------------------------------------------------------------------------------------------


def _qk(family: str) -> Injector:
    """Query and key weights are equal and large: a token's score with itself is the square of its query's length.

    The squares are near 8 * 280 ** 2 = 627200 before any scaling; queries and keys stay below 2000.
    """

    def injector(p: Parameters, bad: bool) -> None:
        factor = 200.0 if bad else 5.0
        at = ATTENTION[family]
        if family == "gpt2":
            weight = p[f"{at}.c_attn.weight"]
            weight[:, :HIDDEN] *= factor
            weight[:, HIDDEN : 2 * HIDDEN] = weight[:, :HIDDEN]
        elif family == "gpt_neox":
            heads = p[f"{at}.query_key_value.weight"].view(HEADS, 3 * HEAD_DIM, HIDDEN)
            heads[:, :HEAD_DIM] *= factor
            heads[:, HEAD_DIM : 2 * HEAD_DIM] = heads[:, :HEAD_DIM]
        elif family in ("llama", "gemma3"):
            key = p[f"{at}.k_proj.weight"]
            if family == "llama":
                key *= factor
            else:  # the norms on queries and keys undo any scale of the projections
                p[f"{at}.q_norm.weight"].fill_(factor)
                p[f"{at}.k_norm.weight"].fill_(factor)
            shared = key.view(KV_HEADS, 1, HEAD_DIM, HIDDEN).expand(-1, HEADS // KV_HEADS, -1, -1)
            p[f"{at}.q_proj.weight"].copy_(shared.reshape(HIDDEN, HIDDEN))
        elif family == "bert":
            p[f"{at}.query.weight"].mul_(factor)
            p[f"{at}.key.weight"].copy_(p[f"{at}.query.weight"])
        else:
            p[f"{at}.q.weight"].mul_(factor)
            p[f"{at}.k.weight"].copy_(p[f"{at}.q.weight"])

    return injector


def _qk_faults() -> Iterator[InjectedFault]:
    for family in families.FAMILIES:
        truth = Truth(
            "bad", "nonfinite", "forward", ATTENTION[family], "aten.bmm", "overflow",
            workarounds=(*FLOAT16_WORKAROUNDS, FUSED),
        )  # fmt: skip
        yield from _pair(f"{family}-qk-overflow", family, "qk_overflow", _qk(family), truth, "float16", "eager")

    def cross(p: Parameters, bad: bool) -> None:
        for name in ("q", "k"):
            p[f"decoder.block.1.layer.1.EncDecAttention.{name}.weight"].mul_(200.0 if bad else 5.0)

    truth = Truth(
        "bad", "nonfinite", "forward", "decoder.block.1.layer.1.EncDecAttention", "aten.bmm", "overflow",
        workarounds=(*FLOAT16_WORKAROUNDS, FUSED),
    )  # fmt: skip
    yield from _pair("t5-cross-qk-overflow", "t5", "qk_overflow", cross, truth, "float16", "eager")


# --- overflow in a residual add ----------------------------------------------------------------------------------

HALF = 40000.0
"""Twice this is beyond float16's 65504, and once is not. The twins add half of it: 60000."""
LOUD = math.sqrt(HIDDEN)
"""What a norm without weights gives the channel that outweighs all others."""


def _push(p: Parameters, up: list[str], down: str, height: float) -> None:
    """Without biases: the unit sees the loud channel alone, and gives `height` to that channel for the loud token.

    Silu and the tanh GELU leave 5.66 nearly as it is, so the unit's product is 5.66 ** 2 for a gated MLP. A token of an
    ordinary size in the channel (below 3) gives less than a third of `height`.
    """
    for name in up:
        p[name][UNIT] = 0.0
        p[name][UNIT, CHANNEL] = 1.0
    p[down][CHANNEL] = 0.0
    p[down][CHANNEL, UNIT] = height / LOUD ** len(up)


def _residual(family: str, token: int = TOKEN) -> Injector:
    def injector(p: Parameters, bad: bool) -> None:
        height = HALF if bad else HALF / 2
        if family == "bert":  # norms stand behind the adds: their bias carries the first term, for every token
            p["bert.encoder.layer.1.attention.output.LayerNorm.bias"][CHANNEL] = HALF
            p["bert.encoder.layer.1.intermediate.dense.weight"][:, CHANNEL] = 0.0
            p["bert.encoder.layer.1.output.dense.bias"][CHANNEL] = height
            return
        _loud_token(p, family, HALF, token)
        if family == "gpt2":
            p["transformer.h.1.mlp.c_proj.bias"][CHANNEL] = height
        elif family == "gpt_neox":
            p["gpt_neox.layers.1.mlp.dense_4h_to_h.bias"][CHANNEL] = height
        elif family in ("llama", "gemma3"):
            mlp = "model.layers.1.mlp"
            up = [f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight"]
            _push(p, up, f"{mlp}.down_proj.weight", height)
            if family == "gemma3":  # the norm behind the MLP takes any scale away and gives its own
                p["model.layers.1.post_feedforward_layernorm.weight"][CHANNEL] = height / LOUD - 1.0
        else:  # t5: the attention's output projection sees the loud channel of the value, in block 0
            p["shared.weight"][:, CHANNEL] = 0.0
            _loud_token(p, family, HALF, token)
            at = "encoder.block.0.layer.0.SelfAttention"
            for name in ("v", "o"):
                p[f"{at}.{name}.weight"][CHANNEL] = 0.0
            p[f"{at}.q.weight"].zero_()
            p[f"{at}.relative_attention_bias.weight"].zero_()
            p[f"{at}.v.weight"][CHANNEL, CHANNEL] = 100.0  # even attention: the mean over the tokens is 566 / 13
            p[f"{at}.o.weight"][CHANNEL, CHANNEL] = height * len(DEFAULT_IDS) / (100.0 * LOUD)

    return injector


RESIDUAL = {
    "gpt2": "transformer.h.1", "gpt_neox": "gpt_neox.layers.1", "llama": "model.layers.1", "gemma3": "model.layers.1",
    "bert": "bert.encoder.layer.1.output",
}  # fmt: skip


def _residual_truth(family: str, token_index: int | None, workarounds: tuple[str, ...] = FLOAT16_WORKAROUNDS) -> Truth:
    return Truth(
        "bad", "nonfinite", "forward", RESIDUAL[family], "aten.add", "overflow", token_index=token_index,
        channel_index=CHANNEL, workarounds=workarounds,
    )  # fmt: skip


def _residual_faults() -> Iterator[InjectedFault]:
    for family in RESIDUAL:
        truth = _residual_truth(family, None if family == "bert" else POSITION)
        name = f"{family}-residual-overflow"
        yield from _pair(name, family, "residual_overflow", _residual(family), truth, "float16")
    # T5 clamps what its attention layer gives back, so the same fault does no harm: the model is good.
    guarded = Truth(ruled_out_modules=("encoder.block.0.layer.0",))
    yield InjectedFault(
        "t5-residual-overflow-clamped", "t5", "residual_overflow", _weights("t5", _residual("t5"), True), guarded,
        "float16", twin="t5-residual-overflow-clamped-sound",
    )  # fmt: skip
    yield InjectedFault(
        "t5-residual-overflow-clamped-sound", "t5", "residual_overflow", _weights("t5", _residual("t5"), False),
        Truth(), "float16",
    )  # fmt: skip
    # As in the real Gemma: the first special token carries the large value, every prompt fails, and none without it.
    for family in ("gemma3", "gpt2"):
        truth = _residual_truth(family, 0, (*FLOAT16_WORKAROUNDS, "no_first_special_token"))
        yield from _pair(
            f"{family}-residual-overflow-bos", family, "residual_overflow", _residual(family, BOS), truth, "float16",
            prompt="w44 w47 w117 w64",
        )  # fmt: skip


# --- overflow in an MLP product ----------------------------------------------------------------------------------

PRODUCT = 91700.0
"""1.4 times float16's limit for the loud token; an ordinary token (below 4 where the loud one has 5.66) stays below."""


def _mlp(family: str) -> Injector:
    def injector(p: Parameters, bad: bool) -> None:
        height = PRODUCT if bad else PRODUCT / 2
        if family == "bert":  # every token: the unit's bias is its value
            layer = "bert.encoder.layer.1"
            p[f"{layer}.intermediate.dense.weight"][UNIT] = 0.0
            p[f"{layer}.intermediate.dense.bias"][UNIT] = 500.0
            p[f"{layer}.output.dense.weight"][CHANNEL, UNIT] = height / 500.0
            return
        _loud_token(p, family, 100.0)
        if family in ("llama", "gemma3", "t5_gated"):
            pair = {"t5_gated": ("wi_0", "wi_1", "wo")}.get(family, ("gate_proj", "up_proj", "down_proj"))
            mlp = "encoder.block.1.layer.1.DenseReluDense" if family == "t5_gated" else "model.layers.1.mlp"
            for name in pair[:2]:
                p[f"{mlp}.{name}.weight"][UNIT] = 0.0
                p[f"{mlp}.{name}.weight"][UNIT, CHANNEL] = math.sqrt(height) / LOUD
            p[f"{mlp}.{pair[2]}.weight"][:, UNIT] *= 1e-3
        elif family == "t5":
            mlp = "encoder.block.1.layer.1.DenseReluDense"
            p[f"{mlp}.wi.weight"][UNIT] = 0.0
            p[f"{mlp}.wi.weight"][UNIT, CHANNEL] = height / LOUD
            p[f"{mlp}.wo.weight"][:, UNIT] *= 1e-3
        elif family == "gpt2":  # Conv1D: inputs in rows
            mlp = "transformer.h.1.mlp"
            p[f"{mlp}.c_fc.weight"][:, UNIT] = 0.0
            p[f"{mlp}.c_fc.weight"][CHANNEL, UNIT] = 100.0
            p[f"{mlp}.c_proj.weight"][UNIT, CHANNEL] = height / (100.0 * LOUD)
        else:
            mlp = "gpt_neox.layers.1.mlp"
            p[f"{mlp}.dense_h_to_4h.weight"][UNIT] = 0.0
            p[f"{mlp}.dense_h_to_4h.weight"][UNIT, CHANNEL] = 100.0
            p[f"{mlp}.dense_4h_to_h.weight"][CHANNEL, UNIT] = height / (100.0 * LOUD)

    return injector


TABLE["t5_gated"] = TABLE["t5"]
PRODUCTS = {
    "gpt2": ("transformer.h.1.mlp.c_proj", "aten.addmm", CHANNEL),
    "gpt_neox": ("gpt_neox.layers.1.mlp.dense_4h_to_h", "aten.addmm", CHANNEL),
    "llama": ("model.layers.1.mlp", "aten.mul", UNIT),
    "gemma3": ("model.layers.1.mlp", "aten.mul", UNIT),
    "bert": ("bert.encoder.layer.1.output.dense", "aten.addmm", CHANNEL),
    "t5": ("encoder.block.1.layer.1.DenseReluDense.wi", "aten.mm", UNIT),
    "t5_gated": ("encoder.block.1.layer.1.DenseReluDense", "aten.mul", UNIT),
}


def _mlp_faults() -> Iterator[InjectedFault]:
    for shape, (module, op, channel) in PRODUCTS.items():
        truth = Truth(
            "bad", "nonfinite", "forward", module, op, "overflow", token_index=None if shape == "bert" else POSITION,
            channel_index=channel, workarounds=FLOAT16_WORKAROUNDS,
        )  # fmt: skip
        family = "t5" if shape == "t5_gated" else shape
        yield from _pair(f"{shape}-mlp-overflow", family, "mlp_overflow", _mlp(shape), truth, "float16", shape=shape)


# --- overflow in a norm's scale ----------------------------------------------------------------------------------

NORM_OP = {
    "gpt2": "aten.native_layer_norm", "gpt_neox": "aten.native_layer_norm", "llama": "aten.mul",
    "gemma3": "aten._to_copy", "bert": "aten.native_layer_norm", "t5": "aten.mul",
}  # fmt: skip


def _norm_scale(family: str) -> Injector:
    """The norm's own weight takes the loud channel beyond the limit. What reads that channel reads little of it."""

    def injector(p: Parameters, bad: bool) -> None:
        _loud_token(p, family, 100.0)
        scale = (PRODUCT if bad else PRODUCT / 2) / LOUD
        p[f"{NORM[family]}.weight"][CHANNEL] = scale - 1.0 if family == "gemma3" else scale
        if family == "gpt2":
            p["transformer.h.1.mlp.c_fc.weight"][CHANNEL] *= 1e-3
        elif family == "gpt_neox":
            p["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][:, CHANNEL] *= 1e-3
        elif family in ("llama", "gemma3"):
            for name in ("gate_proj", "up_proj"):
                p[f"model.layers.1.mlp.{name}.weight"][:, CHANNEL] *= 1e-3
        elif family == "bert":
            for name in ("query", "key", "value"):
                p[f"bert.encoder.layer.0.attention.self.{name}.weight"][:, CHANNEL] *= 1e-3
        else:
            p["encoder.block.1.layer.1.DenseReluDense.wi.weight"][:, CHANNEL] *= 1e-3

    return injector


def _norm_scale_faults() -> Iterator[InjectedFault]:
    for family in families.FAMILIES:
        truth = Truth(
            "bad", "nonfinite", "forward", NORM[family], NORM_OP[family], "overflow", token_index=POSITION,
            channel_index=CHANNEL, workarounds=FLOAT16_WORKAROUNDS,
        )  # fmt: skip
        name = f"{family}-norm-scale-overflow"
        yield from _pair(name, family, "norm_scale_overflow", _norm_scale(family), truth, "float16")


# --- 0/0 in a norm -----------------------------------------------------------------------------------------------

EPS = {
    "gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps", "llama": "rms_norm_eps", "gemma3": "rms_norm_eps",
    "bert": "layer_norm_eps", "t5": "layer_norm_epsilon",
}  # fmt: skip


def _zero_row(family: str) -> Injector:
    """The norm's input is exactly zero for one token: its row, and where the model adds a position, that too."""

    def injector(p: Parameters, bad: bool) -> None:
        p[TABLE[family]][TOKEN] = 0.0
        if family == "gpt2":
            p["transformer.wpe.weight"][POSITION] = 0.0
        elif family == "bert":
            p["bert.embeddings.position_embeddings.weight"][POSITION] = 0.0
            p["bert.embeddings.token_type_embeddings.weight"][0] = 0.0

    return injector


def _zero_faults() -> Iterator[InjectedFault]:
    for family in families.FAMILIES:
        fused = NORM_OP[family] == "aten.native_layer_norm"
        truth = Truth(
            "bad", "nonfinite", "forward", FIRST_NORM[family],
            "aten.native_layer_norm" if fused else "aten.rsqrt",
            "invalid" if fused else "divide_by_zero",  # fused: 1/sqrt(0) and 0 * inf in one operator, which gives NaN
            also_mechanism=("divide_by_zero",) if fused else (),
            token_index=POSITION,
        )  # fmt: skip
        name = f"{family}-zero-norm"
        for bad in (True, False):
            config = {EPS[family]: 0.0 if bad else 1e-6}
            yield InjectedFault(
                name if bad else f"{name}-sound", family, "zero_norm",
                _weights(family, _zero_row(family), bad, **config), truth if bad else Truth(),
                twin=f"{name}-sound" if bad else None,
            )  # fmt: skip


# --- bad weights -------------------------------------------------------------------------------------------------


def _nan_row(family: str) -> Injector:
    def injector(p: Parameters, bad: bool) -> None:
        p[TABLE[family]][TOKEN, CHANNEL] = math.nan if bad else 0.5

    return injector


def _inf_norm(family: str) -> Injector:
    def injector(p: Parameters, bad: bool) -> None:
        p[f"{NORM[family]}.weight"][CHANNEL] = math.inf if bad else 1.5

    return injector


def _bad_weight_faults() -> Iterator[InjectedFault]:
    with_token = f"w44 w47 w{TOKEN} w64 w67"
    for family in families.FAMILIES:
        tokenizer = family in ("gpt2", "llama", "bert")
        truth = Truth(
            "bad", "weights", "weights", EMBEDDING[family], "aten.embedding", "bad_weights",
            also_module=("shared",) if family == "t5" else (),
            token_index=3 if tokenizer else POSITION, channel_index=CHANNEL, tensor=TABLE[family],
            tensor_index=(TOKEN, CHANNEL), also_tensor=TIED.get(family, ()),
        )  # fmt: skip
        yield from _pair(
            f"{family}-nan-embedding", family, "nan_embedding", _nan_row(family), truth, "float32",
            prompt=with_token if tokenizer else None, sound_prompt="w44 w47 w64 w67" if tokenizer else None,
        )  # fmt: skip
        truth = Truth(
            "bad", "weights", "weights", NORM[family], "aten.add" if family == "gemma3" else NORM_OP[family],
            "bad_weights", channel_index=CHANNEL, tensor=f"{NORM[family]}.weight", tensor_index=(CHANNEL,),
        )  # fmt: skip
        yield from _pair(f"{family}-inf-norm", family, "inf_norm", _inf_norm(family), truth, "float32")

    # The head is the embedding: a bad row spoils one logit of every prompt, and the prompt never reads it as a token.
    unread = next(t for t in range(3, families.VOCAB) if t not in DEFAULT_IDS)

    def tied(p: Parameters, bad: bool) -> None:
        p["transformer.wte.weight"][unread, CHANNEL] = math.nan if bad else 0.5

    truth = Truth(
        "bad", "weights", "weights", "lm_head", "aten.mm", "bad_weights", channel_index=unread,
        tensor="transformer.wte.weight", tensor_index=(unread, CHANNEL), also_tensor=("lm_head.weight",),
    )  # fmt: skip
    yield from _pair("gpt2-nan-tied-head", "gpt2", "nan_tied_head", tied, truth, "float32", tied=True)

    def linear(p: Parameters, bad: bool) -> None:
        p["model.layers.1.mlp.down_proj.weight"][CHANNEL, UNIT] = math.nan if bad else 0.5

    truth = Truth(
        "bad", "weights", "weights", "model.layers.1.mlp.down_proj", "aten.mm", "bad_weights", channel_index=CHANNEL,
        tensor="model.layers.1.mlp.down_proj.weight", tensor_index=(CHANNEL, UNIT),
    )  # fmt: skip
    yield from _pair("llama-nan-linear", "llama", "nan_linear", linear, truth, "float32")


# --- sound models ------------------------------------------------------------------------------------------------


def _nothing(p: Parameters, bad: bool) -> None:
    """Leaves the weights as they are."""


def _sound_faults() -> Iterator[InjectedFault]:
    for family in (*families.FAMILIES, "bert_plain", "t5_gated"):
        for dtype in ("float32", "float16", "bfloat16"):
            yield InjectedFault(
                f"{family}-sound-{dtype}", family, "none", _weights(family, _nothing, False), Truth(), dtype
            )
    for family in ("gpt2", "gpt_neox", "llama", "gemma3", "bert"):
        write = _weights(family, _nothing, False, tied=True)
        yield InjectedFault(f"{family}-sound-tied", family, "none", write, Truth())
    write = _weights("llama", _nothing, False)
    yield InjectedFault("llama-sound-tokenizer", "llama", "none", write, Truth(), prompt="w44 w47 w117 w64")


# --- files -------------------------------------------------------------------------------------------------------


def _edited(family: str, edit: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        families.build(family).save_pretrained(folder)
        edit(folder)

    return write


LOST = {
    "gpt2": "transformer.h.1.mlp.c_fc.weight", "gpt_neox": "gpt_neox.layers.1.mlp.dense_h_to_4h.weight",
    "llama": "model.layers.1.mlp.up_proj.weight", "gemma3": "model.layers.1.mlp.up_proj.weight",
    "bert": "bert.encoder.layer.1.intermediate.dense.weight", "t5": "encoder.block.1.layer.1.DenseReluDense.wi.weight",
}  # fmt: skip


def _lose_shard(folder: Path) -> None:
    (folder / files.shard(folder)[1]).unlink()


def _cut_shape(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensor = files.read(folder / files.WEIGHTS)[name]
        files.change(folder, replace={name: tensor[:-1]})

    return edit


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: files.change(folder, drop=(name,))


def _renamed(name: str) -> Callable[[Path], None]:
    return lambda folder: files.change(folder, rename={name: f"{name}_old"})


def _file_faults() -> Iterator[InjectedFault]:
    for family in families.FAMILIES:
        lost = LOST[family]
        faults: list[tuple[str, Callable[[Path], object], Truth]] = [
            ("truncated", files.truncate, Truth("bad", "files", "files", loads=False)),
            ("missing_shard", _lose_shard,
             Truth("bad", "files", "files", loads=False, missing_file="model-00002-of-00002.safetensors")),
            ("missing_key", _without(lost), Truth("bad", "load", "load", missing_keys=(lost,))),
            ("mismatched_shape", _cut_shape(lost), Truth("bad", "load", "load", loads=False, mismatched=(lost,))),
            ("misaligned", files.misalign, Truth(misaligned=True)),
        ]  # fmt: skip
        if family in ("gpt2", "llama"):
            truth = Truth("bad", "load", "load", missing_keys=(lost,), unexpected_keys=(f"{lost}_old",))
            faults.append(("renamed_key", _renamed(lost), truth))
        for fault, edit, truth in faults:
            name = f"{family}-{fault.replace('_', '-')}"
            yield InjectedFault(name, family, fault, _edited(family, edit), truth, twin=f"{family}-files-sound")
        yield InjectedFault(f"{family}-files-sound", family, "none", _edited(family, _rewrite), Truth())
    yield InjectedFault("gpt2-sharded-sound", "gpt2", "none", _edited("gpt2", files.shard), Truth())


def _rewrite(folder: Path) -> None:
    """The same hand as the faults', with nothing wrong: what the twins of the file faults are."""
    files.change(folder)


MARKER = "pickle-ran"


class _Runs:
    """Unpickled, it makes a file in the model's folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def _evil_pickle(folder: Path) -> None:
    tensors: dict[str, object] = dict(files.read(folder / files.WEIGHTS))
    (folder / files.WEIGHTS).unlink()
    torch.save({**tensors, "payload": _Runs(folder / MARKER)}, folder / "pytorch_model.bin")


def _pickle_faults() -> Iterator[InjectedFault]:
    yield InjectedFault(
        "gpt2-pickle-runs-code", "gpt2", "pickle", _edited("gpt2", _evil_pickle),
        Truth("bad", "files", "files", loads=False, also_verdict=("skip",)), twin="gpt2-pickle-sound",
    )  # fmt: skip
    yield InjectedFault("gpt2-pickle-sound", "gpt2", "pickle", _edited("gpt2", files.to_pickle), Truth())


# --- custom code -------------------------------------------------------------------------------------------------


def _custom(injector: Injector = _nothing, bad: bool = True, **config: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from .custom.configuration_injected import InjectedConfig
        from .custom.modeling_injected import InjectedForCausalLM

        quiet = {k: v for k, v in config.items() if not k.startswith("crash")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = InjectedForCausalLM(InjectedConfig(tie_word_embeddings=False, **quiet))
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    torch.nn.init.normal_(parameter, 0.0, families.SPREAD)
        _inject(model, injector, bad)
        files.write(folder / files.WEIGHTS, model.state_dict())
        description = {
            "architectures": ["InjectedForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration_injected.InjectedConfig",
                "AutoModelForCausalLM": "modeling_injected.InjectedForCausalLM",
            },
            "model_type": "injected",
            "vocab_size": families.VOCAB,
            "hidden_size": HIDDEN,
            "intermediate_size": families.INNER,
            "num_hidden_layers": families.LAYERS,
            "num_attention_heads": HEADS,
            "tie_word_embeddings": False,
            **config,
        }
        (folder / "config.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
        for name in ("configuration_injected.py", "modeling_injected.py"):
            shutil.copyfile(CUSTOM / name, folder / name)

    return write


def _custom_residual(p: Parameters, bad: bool) -> None:
    p["embed_tokens.weight"][TOKEN, CHANNEL] = HALF
    _push(p, ["layers.1.mlp.up_proj.weight"], "layers.1.mlp.down_proj.weight", HALF if bad else HALF / 2)


def _square(p: Parameters, bad: bool) -> None:
    """Squares in float16 overflow beyond 255.9: both terms of E[x * x] - E[x] * E[x] are infinite."""
    p["embed_tokens.weight"][TOKEN] += 300.0 if bad else 1.0


def _silent_square(p: Parameters, bad: bool) -> None:
    """One square overflows, and the root's inverse is 0: the norm gives zeros, finite and wrong."""
    p["embed_tokens.weight"][TOKEN, CHANNEL] = 300.0 if bad else 200.0


def _final_scale(p: Parameters, bad: bool) -> None:
    p["embed_tokens.weight"][TOKEN, CHANNEL] = 100.0
    p["norm.weight"][CHANNEL] = (PRODUCT if bad else PRODUCT / 2) / LOUD
    p["lm_head.weight"][:, CHANNEL] *= 1e-3


def _custom_faults() -> Iterator[InjectedFault]:
    def fault(name: str, fault: str, write: Callable[[Path], None], truth: Truth | None = None,
              dtype: str = "float32", twin: str | None = None) -> InjectedFault:  # fmt: skip
        return InjectedFault(
            f"custom-{name}", "custom", fault, write, truth or Truth(), dtype, trust_remote_code=True,
            twin=f"custom-{twin}" if twin else None,
        )  # fmt: skip

    def overflow(module: str, op: str, ruled_out: tuple[str, ...] = ()) -> Truth:
        return Truth(
            "bad", "nonfinite", "forward", module, op, "overflow", token_index=POSITION, channel_index=CHANNEL,
            workarounds=FLOAT16_WORKAROUNDS, ruled_out_modules=ruled_out,
        )  # fmt: skip

    yield fault("sound", "none", _custom())
    yield fault("sound-float16", "none", _custom(), dtype="float16")

    square = Truth("bad", "nonfinite", "forward", "layers.0.input_norm", "aten.pow", "overflow", token_index=POSITION,
                   workarounds=FLOAT16_WORKAROUNDS)  # fmt: skip
    for name, injector, norm, truth in (
        ("norm-square", _square, "one_pass", square),
        ("norm-square-silent", _silent_square, "narrow", Truth(also_verdict=("bad",))),
    ):
        kind = "norm_square_overflow"
        yield fault(name, kind, _custom(injector, norm=norm), truth, "float16", f"{name}-sound")
        yield fault(f"{name}-sound", kind, _custom(injector, False, norm=norm), dtype="float16")

    masked = Truth("bad", "nonfinite", "forward", "layers.0.attention", "aten._softmax", "masked_row", token_index=0)
    yield fault("masked-row", "masked_row", _custom(mask="strict"), masked, twin="literal-mask")
    yield fault("literal-mask", "literal_mask", _custom(mask="literal"))
    yield fault("literal-mask-float16", "literal_mask", _custom(mask="literal"), dtype="float16")

    harmless = ("mask",)
    yield fault("mask-module", "mask_module", _custom(mask="module"), Truth(ruled_out_modules=harmless))
    add = overflow("layers.1", "aten.add", harmless)
    yield fault("mask-module-residual", "mask_module", _custom(_custom_residual, mask="module"), add, "float16",
                "mask-module-residual-sound")  # fmt: skip
    yield fault("mask-module-residual-sound", "mask_module", _custom(_custom_residual, False, mask="module"),
                Truth(ruled_out_modules=harmless), "float16")  # fmt: skip

    yield fault("log-where", "log_where", _custom(gate="log"))
    yield fault("log-where-norm-scale", "log_where", _custom(_final_scale, gate="log"),
                overflow("norm", "aten.mul"), "float16", "log-where-norm-scale-sound")  # fmt: skip
    yield fault("log-where-norm-scale-sound", "log_where", _custom(_final_scale, False, gate="log"), dtype="float16")

    yield fault("empty-overwritten", "empty_overwritten", _custom(memory="empty"))

    unset = Truth("bad", "load", "load", mechanism="unset_memory", tensor="positions.table",
                  unset_buffers=("positions.table",))  # fmt: skip
    yield fault("unset-buffer", "unset_buffer", _custom(positions="unset"), unset, twin="restored-buffer")
    yield fault("restored-buffer", "unset_buffer", _custom(positions="restored"))
    yield fault("persistent-buffer", "unset_buffer", _custom(positions="persistent"))

    for name, signal, at, dtype in (
        ("crash-sigsegv-float16", "SIGSEGV", "forward", "float16"),
        ("crash-sigbus", "SIGBUS", "forward", None),
        ("crash-sigkill-float16", "SIGKILL", "forward", "float16"),
        ("crash-sigsegv-load", "SIGSEGV", "init", None),
    ):
        config = {"crash": signal, "crash_at": at, "crash_dtype": dtype}
        step = "load" if at == "init" else "forward"
        truth = Truth("bad", "crash", step, signal=signal, loads=at != "init", also_verdict=("skip",),
                      workarounds=FLOAT16_WORKAROUNDS if dtype else ())  # fmt: skip
        yield fault(name, "crash", _custom(**config), truth, dtype or "float32", "sound")


def _every() -> Iterator[InjectedFault]:
    yield from _qk_faults()
    yield from _residual_faults()
    yield from _mlp_faults()
    yield from _norm_scale_faults()
    yield from _zero_faults()
    yield from _bad_weight_faults()
    yield from _sound_faults()
    yield from _file_faults()
    yield from _pickle_faults()
    yield from _custom_faults()


FAULTS: tuple[InjectedFault, ...] = tuple(_every())
BY_NAME: dict[str, InjectedFault] = {fault.name: fault for fault in FAULTS}
FAULTY: tuple[InjectedFault, ...] = tuple(fault for fault in FAULTS if fault.twin is not None)
"""The faults, without the sound models."""
