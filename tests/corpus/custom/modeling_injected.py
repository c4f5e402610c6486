"""A small decoder with the habits of custom model code, sound and not, chosen by its configuration.

norm       wide: squares in float32 | narrow: squares in the model's dtype
           one_pass: a layer norm in the model's dtype, its variance the mean square less the squared mean
mask       finite: lowest finite number | literal: -inf where the future is | module: the same, returned by a sub-module
           strict: -inf on the diagonal too, so that the first row is masked throughout
gate       plain | log: log of a ReLU, and a `where` that drops log(0)
positions  none | unset: a non-persistent buffer that nothing restores after loading | restored: `_init_weights` does
           persistent: the buffer is in the file
memory     plain | empty: the attention output is gathered in uninitialised memory, in two writes
crash      none, or a signal's name, sent to the own process at `crash_at` (init or forward), for `crash_dtype` only
"""

import math
import os
import signal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_injected import InjectedConfig


class InjectedRMSNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.kind = config.norm

    def forward(self, x):
        if self.kind == "one_pass":
            mean = x.mean(-1, keepdim=True)
            variance = x.pow(2).mean(-1, keepdim=True) - mean.pow(2)
            return self.weight * ((x - mean) * torch.rsqrt(variance + 1e-2))
        wide = x if self.kind == "narrow" else x.float()
        variance = wide.pow(2).mean(-1, keepdim=True)
        return self.weight * (wide * torch.rsqrt(variance + 1e-5)).to(x.dtype)


class InjectedMask(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.kind = config.mask

    def forward(self, x):
        length = x.shape[1]
        lowest = torch.finfo(x.dtype).min if self.kind == "finite" else -math.inf
        diagonal = 0 if self.kind == "strict" else 1
        return torch.full((length, length), lowest, dtype=x.dtype, device=x.device).triu(diagonal)


class InjectedAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.empty = config.memory == "empty"
        self.mask = None if config.mask == "module" else InjectedMask(config).forward
        size = config.hidden_size
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def forward(self, x, mask=None):
        batch, length, size = x.shape
        shape = (batch, length, self.heads, size // self.heads)
        q, k, v = (p(x).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        scores = torch.matmul(q, k.transpose(2, 3)) * shape[-1] ** -0.5
        weights = torch.softmax(scores + (self.mask(x) if mask is None else mask), dim=-1)
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(x.shape)
        if self.empty:
            gathered = torch.empty(mixed.shape, dtype=mixed.dtype, device=mixed.device)
            gathered[..., : size // 2] = mixed[..., : size // 2]
            gathered[..., size // 2 :] = mixed[..., size // 2 :]
            mixed = gathered
        return self.o_proj(mixed)


class InjectedMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.log = config.gate == "log"
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        hidden = torch.relu(self.up_proj(x))
        if self.log:
            hidden = torch.where(hidden > 0, torch.log(hidden), torch.zeros_like(hidden))
        return self.down_proj(hidden)


class InjectedLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_norm = InjectedRMSNorm(config)
        self.attention = InjectedAttention(config)
        self.post_norm = InjectedRMSNorm(config)
        self.mlp = InjectedMLP(config)

    def forward(self, x, mask=None):
        x = x + self.attention(self.input_norm(x), mask)
        return x + self.mlp(self.post_norm(x))


def position_table(config):
    angles = torch.arange(64).float()[:, None] / (10.0 ** (torch.arange(config.hidden_size) / config.hidden_size))
    return angles.sin()


class InjectedPositions(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.register_buffer("table", position_table(config), persistent=config.positions == "persistent")

    def forward(self, x):
        return x + self.table[: x.shape[1]].to(x.dtype)


def crash(config, moment, dtype):
    if config.crash and config.crash_at == moment and config.crash_dtype in (None, str(dtype).replace("torch.", "")):
        os.kill(os.getpid(), getattr(signal, config.crash))


class InjectedForCausalLM(PreTrainedModel):
    config_class = InjectedConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        crash(config, "init", torch.get_default_dtype())
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = None if config.positions == "none" else InjectedPositions(config)
        self.mask = InjectedMask(config) if config.mask == "module" else None
        self.layers = nn.ModuleList(InjectedLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = InjectedRMSNorm(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, InjectedPositions) and self.config.positions == "restored":
            with torch.no_grad():
                module.table.copy_(position_table(self.config))

    def get_input_embeddings(self):
        return self.embed_tokens

    def forward(self, input_ids=None, attention_mask=None, use_cache=None, return_dict=None, **kwargs):
        crash(self.config, "forward", self.lm_head.weight.dtype)
        x = self.embed_tokens(input_ids)
        if self.positions is not None:
            x = self.positions(x)
        mask = None if self.mask is None else self.mask(x)
        for layer in self.layers:
            x = layer(x, mask)
        return CausalLMOutput(logits=self.lm_head(self.norm(x)))
