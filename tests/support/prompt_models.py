"""Tiny models for files of prompts: each fails for some prompts only, and which is known from how it is made.

The first five are ordinary Llama checkpoints in which one number of one token's embedding is large. In float16 that
token's own row passes the greatest finite number, 65504, in one layer; a later layer spreads it to the other tokens.
`write_odd` is custom code whose behaviour hangs on token ids.
"""

import json
import textwrap

import torch
from corpus import files
from corpus.families import BOS, HIDDEN, LAYERS, PAD, VOCAB, build, write_tokenizer

RARE = 77
"""The token that the `rare` model cannot take."""
CHANNEL, UNIT = 5, 9
LIMIT = 65504.0


def write_llama(folder, token=None, layer=1):
    """A Llama with the corpus' tokenizer. The row of `token` overflows in `layer`; with None it is sound."""
    model = build("llama")
    if token is not None:
        with torch.no_grad():
            model.model.embed_tokens.weight[:, CHANNEL] = 0.0
            model.model.embed_tokens.weight[token, CHANNEL] = 60_000.0
            mlp = model.model.layers[layer].mlp
            mlp.gate_proj.weight[UNIT] = 0.0
            mlp.up_proj.weight[UNIT] = 0.0
            mlp.gate_proj.weight[UNIT, CHANNEL] = 4.0
            mlp.up_proj.weight[UNIT, CHANNEL] = 4.0
            # The norm makes the channel sqrt(32) = 5.66 where it dominates: 22.6 * 22.6 * 20 = 10,240 are added to
            # 60,000. Elsewhere it is what earlier layers wrote, of the order of 1: some hundreds.
            mlp.down_proj.weight[:, UNIT] = 0.0
            mlp.down_proj.weight[CHANNEL, UNIT] = 20.0
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_lines(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


POISON, KILL, RAISE, WAIT = 99, 98, 97, 96
"""What `write_odd` does with a token: POISON makes every *other* row of its batch infinite in layer 1; KILL sends the
process SIGKILL; RAISE raises; WAIT waits as long as there is a file, which the variable ODD_WAIT names."""

CONFIGURATION = """
    from transformers import PretrainedConfig


    class OddConfig(PretrainedConfig):
        model_type = "odd"

        def __init__(self, vocab_size=128, hidden_size=32, num_hidden_layers=3, **kwargs):
            self.vocab_size, self.hidden_size = vocab_size, hidden_size
            self.num_hidden_layers = num_hidden_layers
            super().__init__(**kwargs)
"""

MODELING = f"""
    import os
    import signal
    import time

    import torch
    from torch import nn
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    from .configuration_odd import OddConfig


    class OddLayer(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.linear = nn.Linear(size, size, bias=False)

        def forward(self, x, spoilt=None):
            x = x + torch.tanh(self.linear(x))
            return x if spoilt is None else torch.where(spoilt, float("inf"), x)


    class OddForCausalLM(PreTrainedModel):
        config_class = OddConfig
        base_model_prefix = "model"

        def __init__(self, config):
            super().__init__(config)
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(OddLayer(config.hidden_size) for _ in range(config.num_hidden_layers))
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.post_init()

        def get_input_embeddings(self):
            return self.embed_tokens

        def forward(self, input_ids=None, attention_mask=None, use_cache=None, return_dict=None, **kwargs):
            if (input_ids == {KILL}).any():
                os.kill(os.getpid(), signal.SIGKILL)
            if (input_ids == {RAISE}).any():
                raise IndexError("no such token here")
            while (input_ids == {WAIT}).any() and os.path.exists(os.environ["ODD_WAIT"]):
                time.sleep(0.05)
            poison = (input_ids == {POISON}).any(1)
            others = poison.sum() - poison.long() > 0
            x = self.embed_tokens(input_ids)
            for number, layer in enumerate(self.layers):
                x = layer(x, others[:, None, None] if number == 1 else None)
            return CausalLMOutput(logits=self.lm_head(x))
"""


def write_odd(folder, tokenizer=True):
    """Custom code whose output for a row hangs on the other rows of the batch, or that ends the process."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weights = {"embed_tokens.weight": torch.randn(VOCAB, HIDDEN, generator=generator)}
    for number in range(LAYERS):
        weights[f"layers.{number}.linear.weight"] = torch.randn(HIDDEN, HIDDEN, generator=generator) / 4
    weights["lm_head.weight"] = torch.randn(VOCAB, HIDDEN, generator=generator)
    files.write(folder / files.WEIGHTS, weights)
    description = {
        "architectures": ["OddForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM",
        },
        "model_type": "odd", "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "tie_word_embeddings": False, "pad_token_id": PAD, "bos_token_id": BOS,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "configuration_odd.py").write_text(textwrap.dedent(CONFIGURATION), encoding="utf-8")
    (folder / "modeling_odd.py").write_text(textwrap.dedent(MODELING), encoding="utf-8")
    if tokenizer:
        write_tokenizer(folder)
    return folder
