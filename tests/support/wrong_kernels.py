"""Operators of a library of this test's own, whose kernels are right in float64 and, for one kind of fault, wrong in
the narrower dtypes. The truth is the fault that was chosen: no code under test computes it.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIBRARY = torch.library.Library("wrong", "DEF")
DEFINED = {
    "mm": "(Tensor self, Tensor mat2) -> Tensor",
    "addmm": "(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
    "_softmax": "(Tensor self, int dim, bool half_to_float) -> Tensor",
    "native_layer_norm": "(Tensor input, Tensor? weight, Tensor? bias, float eps) -> Tensor",
    "scaled_dot_product": "(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0,"
    " bool is_causal=False, *, float? scale=None) -> Tensor",
    "sum": "(Tensor self, int[1]? dim, bool keepdim=False) -> Tensor",
    "mean": "(Tensor self, int[1]? dim, bool keepdim=False) -> Tensor",
    "gelu": "(Tensor self, *, str approximate='none') -> Tensor",
    "convolution": "(Tensor input, Tensor weight, Tensor? bias) -> Tensor",
    "rotate": "(Tensor x, Tensor cosine, Tensor sine) -> Tensor",
}
FAULTS: dict[str, dict[str, str]] = {
    "mm": {
        "scaled": "wrong_constant",
        "narrow": "narrow_accumulation",
        "shifted": "wrong_position",
        "one column": "kernel",
        "cut off": "saturation",
    },
    "addmm": {"no bias": "wrong_constant|kernel", "beta": "ignored_argument", "narrow": "narrow_accumulation"},
    "_softmax": {
        "base 2": "kernel",
        "last left out": "kernel",
        "shifted": "wrong_position",
        "scaled": "wrong_constant",
    },
    "native_layer_norm": {
        "epsilon": "wrong_constant",
        "no weight": "ignored_argument",
        "no bias": "ignored_argument",
        "unbiased": "wrong_constant|kernel",
    },
    "scaled_dot_product": {
        "no mask": "ignored_argument",
        "no scale": "ignored_argument",
        "scale": "kernel|wrong_constant",
        "not causal": "ignored_argument",
        "heads": "wrong_position",
        "keys shifted": "kernel|wrong_position",
        "swallowed": "swallowed_nan",
    },
    "sum": {"narrow": "narrow_accumulation", "last left out": "kernel", "scaled": "wrong_constant"},
    "mean": {"narrow": "narrow_accumulation", "count less one": "wrong_constant"},
    "gelu": {"approximate": "ignored_argument", "scaled": "wrong_constant"},
    "convolution": {"no bias": "ignored_argument", "shifted": "wrong_position", "scaled": "wrong_constant"},
    "rotate": {"off by one": "kernel|wrong_position", "sign": "kernel|wrong_constant"},
}
"""Fault of each operator, and the mechanisms by which it may be named."""
chosen: dict[str, str] = {}
"""The fault of each operator, while one is chosen."""


def _added_up(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    total = torch.zeros(*left.shape[:-1], right.shape[-1], dtype=dtype)
    for at in range(left.shape[-1]):
        total = (total + (left[..., at : at + 1] * right[..., at : at + 1, :]).to(dtype)).to(dtype)
    return total


def narrow_of(dtype: torch.dtype) -> torch.dtype:
    """In what a narrow sum of this dtype is kept."""
    return torch.float16 if dtype == torch.float32 else dtype


def right(name: str, *args: object, **kwargs: object) -> Tensor:
    """The operator in whatever dtype it is given."""
    return RIGHT[name](*args, **kwargs)  # type: ignore[operator]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None,
) -> Tensor:  # fmt: skip
    scores = torch.matmul(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return torch.matmul(scores.softmax(-1), value)


RIGHT = {
    "mm": lambda a, b: torch.matmul(a, b),
    "addmm": lambda c, a, b, beta=1, alpha=1: beta * c + alpha * torch.matmul(a, b),
    "_softmax": lambda x, dim, half: x.softmax(dim),
    "native_layer_norm": lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps),
    "scaled_dot_product": _attention,
    "sum": lambda x, dim, keepdim=False: x.sum(dim, keepdim),
    "mean": lambda x, dim, keepdim=False: x.mean(dim, keepdim),
    "gelu": lambda x, approximate="none": F.gelu(x, approximate=approximate),
    "convolution": lambda x, w, b: F.conv1d(x, w, b, padding=1),
    "rotate": lambda x, c, s: x * c + torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1) * s,
}


def _wrong(  # noqa: C901 - a branch for each fault
    name: str, fault: str, dtype: torch.dtype, args: list[Any], kwargs: dict[str, Any]
) -> Tensor:
    """The faulty result; ``args`` are in float32."""
    made = right(name, *args, **kwargs)
    narrow = narrow_of(dtype)
    if fault == "scaled":
        return made * 1.05
    if fault == "shifted":
        return made.roll(1, -2 if made.dim() == 2 or name == "_softmax" else -1)
    if fault == "one column":
        made[..., 1] = 0
        return made
    if fault == "cut off":
        bound = 0.5 * made.abs().max()
        return made.clamp(-bound, bound)
    if name == "mm" and fault == "narrow":
        return _added_up(*args, narrow).float()
    if name == "addmm":
        c, a, b = args
        if fault == "narrow":
            return kwargs.get("beta", 1) * c + kwargs.get("alpha", 1) * _added_up(a, b, narrow).float()
        return torch.matmul(a, b) * kwargs.get("alpha", 1) + (0 if fault == "no bias" else c)
    if fault == "base 2":
        return (args[0] * math.log(2)).softmax(args[1])
    if name == "_softmax":
        made = args[0][..., :-1].softmax(-1)
        return torch.cat((made, made[..., -1:] * 0), -1)
    if name == "native_layer_norm":
        x, w, b, eps = args
        if fault == "epsilon":
            return right(name, x, w, b, 1e-3)
        if fault == "unbiased":
            size = x.shape[-1]
            return (made - b) * math.sqrt((size - 1) / size) + b
        return right(name, x, None if fault == "no weight" else w, None if fault == "no bias" else b, eps)
    if name == "scaled_dot_product":
        q, k, v, mask = args[:4]
        causal = len(args) > 5 and args[5]
        scale = kwargs.get("scale")
        if fault == "no mask":
            return _attention(q, k, v, None, is_causal=causal, scale=scale)
        if fault == "no scale":
            return _attention(q, k, v, mask, is_causal=causal, scale=1.0)
        if fault == "scale":
            return _attention(q, k, v, mask, is_causal=causal, scale=1.3 * (scale or q.shape[-1] ** -0.5))
        if fault == "not causal":
            return _attention(q, k, v, mask, scale=scale)
        if fault == "heads":
            return made.roll(1, 1)
        if fault == "keys shifted":
            return _attention(q, k.roll(1, 2), v, mask, is_causal=causal, scale=scale)
        return made.nan_to_num(0.0)
    if fault == "narrow":
        total = torch.zeros_like(args[0][..., 0], dtype=narrow)
        for at in range(args[0].shape[-1]):
            total = (total + args[0][..., at].to(narrow)).to(narrow)
        return (total.float() / (args[0].shape[-1] if name == "mean" else 1)).reshape(made.shape)
    if fault == "last left out":
        return args[0][..., :-1].sum(-1, keepdim=True)
    if fault == "count less one":
        return made * args[0].shape[-1] / (args[0].shape[-1] - 1)
    if fault == "approximate":
        return F.gelu(args[0])
    if name == "convolution":
        return right(name, args[0], args[1], None)
    x, c, s = args
    return right(name, x, c.roll(1, -2), s.roll(1, -2)) if fault == "off by one" else right(name, x, c, -s)


def _kernel(name: str):  # type: ignore[no-untyped-def]
    def run(*args: object, **kwargs: object) -> Tensor:
        tensor = next(arg for arg in args if isinstance(arg, Tensor))
        if tensor.dtype == torch.float64:
            return right(name, *args, **kwargs)
        wide = [arg.float() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args]
        fault = chosen.get(name)
        made = right(name, *wide, **kwargs) if fault is None else _wrong(name, fault, tensor.dtype, wide, kwargs)
        return made.to(tensor.dtype)

    return run


for _name, _schema in DEFINED.items():
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pointwise,) if _name == "gelu" else ())
    LIBRARY.impl(_name, _kernel(_name), "CPU")
OPS = torch.ops.wrong


class Used(nn.Module):
    """Uses one operator of the library, and every other step of the ordinary kind."""

    def __init__(self, name: str, size: int, tokens: int) -> None:
        super().__init__()
        self.name, self.heads = name, 4
        self.weight = nn.Parameter(torch.randn(size, size) / size**0.5)
        self.bias = nn.Parameter(torch.randn(size))
        self.gain = nn.Parameter(1 + 0.5 * torch.randn(size))
        self.filter = nn.Parameter(torch.randn(size, size, 3) / size**0.5)
        angles = torch.arange(tokens)[:, None] * 0.3 ** torch.arange(size // self.heads)[None]
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())
        self.register_buffer("mask", torch.ones(tokens, tokens, dtype=torch.bool).tril(0) | (torch.arange(tokens) < 2))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, size = x.shape
        heads = x.reshape(batch, tokens, self.heads, -1).transpose(1, 2)
        fault = chosen.get(self.name)
        if self.name == "mm":
            return OPS.mm(x.reshape(-1, size), self.weight).reshape(x.shape)
        if self.name == "addmm":
            return OPS.addmm(self.bias, x.reshape(-1, size), self.weight, beta=2).reshape(x.shape)
        if self.name == "_softmax":
            return (OPS._softmax(heads @ heads.transpose(-1, -2), -1, False) @ heads).transpose(1, 2).reshape(x.shape)
        if self.name == "native_layer_norm":
            return OPS.native_layer_norm(x * 0.02, self.gain, self.bias, 1e-5)
        if self.name == "scaled_dot_product":
            mask = None if fault == "not causal" else self.mask[:tokens, :tokens]
            query = heads.clone()
            if fault == "swallowed":
                query[:, 0, 1] = math.nan
            key = heads.roll(1, -1)
            made = OPS.scaled_dot_product(query, key, heads, mask, 0.0, fault == "not causal", scale=0.15)
            return made.transpose(1, 2).reshape(x.shape)
        if self.name in ("sum", "mean"):
            return x - getattr(OPS, self.name)(x * x, [-1], True)
        if self.name == "gelu":
            return OPS.gelu(x, approximate="tanh")
        if self.name == "convolution":
            return OPS.convolution(x.transpose(1, 2), self.filter, self.bias).transpose(1, 2)
        return OPS.rotate(heads, self.cosine[:tokens], self.sine[:tokens]).transpose(1, 2).reshape(x.shape)


class Layer(nn.Module):
    def __init__(self, name: str, size: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.used = Used(name, size, tokens)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.used(self.norm(x)))


class Network(nn.Module):
    """Layers of ordinary modules, of which layer number ``place`` uses the operator."""

    def __init__(self, name: str, place: int, layers: int = 3, size: int = 128, tokens: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, size)
        self.layers = nn.ModuleList(
            Layer(name, size, tokens) if at == place else nn.TransformerEncoderLayer(size, 4, 128, batch_first=True)
            for at in range(layers)
        )
        self.head = nn.Linear(size, 100)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)
