"""Tiny seeded models of six shapes, and a tiny tokenizer.

Each model has three layers, a hidden size of 32 and a vocabulary of 128, is built in a few milliseconds, and is finite
in float32, float16 and bfloat16. The initial spread is wide enough that the logits are far from uniform.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

VOCAB = 128
HIDDEN = 32
INNER = 64
LAYERS = 3
HEADS = 4
KV_HEADS = 2
HEAD_DIM = HIDDEN // HEADS
SPREAD = 0.25
"""Standard deviation of the initial weights: with a hidden size of 32 it gives logits with a deviation near 1.4."""

PAD, BOS, UNK = 0, 1, 2
LENGTH = 13
DEFAULT_IDS: tuple[int, ...] = tuple(
    torch.randint(0, VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(0))[0].tolist()
)
"""The ids that the kit uses where a folder has no tokenizer."""


def _special() -> dict[str, int]:
    return {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": BOS}


def gpt2_config(tied: bool = False, **more: object) -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_inner=INNER,
        initializer_range=SPREAD, tie_word_embeddings=tied, **{**_special(), **more},
    )  # fmt: skip


def gpt_neox_config(tied: bool = False, **more: object) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=64, initializer_range=SPREAD, tie_word_embeddings=tied,
        **{**_special(), **more},
    )  # fmt: skip


def llama_config(tied: bool = False, **more: object) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, intermediate_size=INNER, max_position_embeddings=64,
        initializer_range=SPREAD, tie_word_embeddings=tied, **{**_special(), **more},
    )  # fmt: skip


def gemma3_config(tied: bool = False, **more: object) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM, intermediate_size=INNER,
        max_position_embeddings=64, sliding_window=32, initializer_range=SPREAD, tie_word_embeddings=tied,
        **{**_special(), **more},
    )  # fmt: skip


def bert_config(tied: bool = False, **more: object) -> BertConfig:
    return BertConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=64, initializer_range=SPREAD, tie_word_embeddings=tied,
        pad_token_id=PAD, **more,
    )  # fmt: skip


def t5_config(**more: object) -> T5Config:
    """T5's embeddings are tied: transformers 5 ties encoder, decoder and head whatever the configuration says."""
    return T5Config(
        vocab_size=VOCAB, d_model=HIDDEN, d_kv=HEAD_DIM, d_ff=INNER, num_layers=LAYERS, num_heads=HEADS,
        pad_token_id=PAD, eos_token_id=BOS, decoder_start_token_id=PAD, **more,
    )  # fmt: skip


_BUILDERS: dict[str, tuple[Callable[..., object], Callable[..., PreTrainedModel]]] = {
    "gpt2": (gpt2_config, GPT2LMHeadModel),
    "gpt_neox": (gpt_neox_config, GPTNeoXForCausalLM),
    "llama": (llama_config, LlamaForCausalLM),
    "gemma3": (gemma3_config, Gemma3ForCausalLM),
    "bert": (bert_config, BertForMaskedLM),
    "bert_plain": (bert_config, BertModel),
    "t5": (t5_config, T5ForConditionalGeneration),
    "t5_gated": (t5_config, T5ForConditionalGeneration),
}
FAMILIES: tuple[str, ...] = ("gpt2", "gpt_neox", "llama", "gemma3", "bert", "t5")
"""The six shapes. `build` also knows `bert_plain` (no head) and `t5_gated` (T5 1.1's gated MLP)."""


def build(family: str, seed: int = 0, **config: object) -> PreTrainedModel:
    """A model of the family with seeded weights, in float32, in evaluation mode. `config` overrides config fields."""
    make_config, make_model = _BUILDERS[family]
    if family == "t5_gated":
        config = {"feed_forward_proj": "gated-gelu", **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(make_config(**config))
        if family.startswith("t5"):
            _calm_t5(model)
    return model.eval()


def _calm_t5(model: PreTrainedModel) -> None:
    """T5 scales each kind of matrix in its own way. Bring them to the others' spread; the embedding keeps its own."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name != "shared.weight":
                parameter.normal_(0.0, SPREAD)


def write_tokenizer(folder: Path) -> None:
    """Give a model folder a real tokenizer: one word `w<i>` for each id, and `<bos>` in front of every text.

    Both files are written by hand, so that the releases 4 and 5 of transformers read the same folder.
    """
    words = {"<pad>": PAD, "<bos>": BOS, "<unk>": UNK, **{f"w{i}": i for i in range(3, VOCAB)}}
    special = [
        {
            "id": index, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True,
        }
        for word, index in list(words.items())[:3]
    ]  # fmt: skip
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "model_max_length": 64, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def prompt_ids(prompt: str) -> tuple[int, ...]:
    """What the tokenizer of `write_tokenizer` makes of a prompt of words `w<i>`, reckoned by hand."""
    return (BOS, *(int(word[1:]) for word in prompt.split()))
