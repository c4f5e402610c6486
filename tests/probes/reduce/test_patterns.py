"""Masks and indices as closed forms: the kit's rule and the host's lines give the very tensor that was there."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from repro.core.encoding import decode, encode
from repro.core.payloads import Leaf
from repro.probes.reduce.patterns import closed_form, made
from repro.probes.reduce.values import described
from repro.reproducer.code.tensors import tensor_lines

INF = float("inf")
ONES = torch.ones(4, 6)
FORMS = {
    "causal": (torch.full((5, 5), -INF).triu(1), "torch.full((5, 5), float(\"-inf\"), dtype=torch.float32).triu(1)"),
    "causal, bool": (torch.ones(5, 5, dtype=torch.bool).tril(), "torch.ones((5, 5), dtype=torch.bool).tril()"),
    "causal, in a batch": (torch.full((2, 1, 5, 5), -INF).triu(1), ".triu(1)"),
    "a band": (torch.full((9, 9), -INF).triu(1) + torch.full((9, 9), -INF).tril(-4), ".tril().triu(-3)"),
    "not in a band": (~torch.ones(6, 6, dtype=torch.bool).tril(1).triu(-1), "~torch.ones((6, 6), dtype=torch.bool)"),
    "a band of other numbers": (torch.full((4, 6), 2.0).masked_fill(ONES.triu(2).bool(), 7.0), ".triu(2), 7.0)"),
    "a prefix": (torch.cat([torch.full((1, 1, 1, 512), -INF), torch.zeros(1, 1, 1, 1)], -1), "[..., :512] = "),
    "left padding": (torch.tensor([[0, 0, 1, 1, 1]] * 3), "x[..., 2:] = 1"),
    "one row": (torch.zeros(4, 3).index_fill(0, torch.tensor([2]), 5.0), "x[2:3] = 5.0"),
    "positions": (torch.arange(70)[None], "torch.arange(70, dtype=torch.int64).reshape(1, 70)"),
    "every third": (torch.arange(4, 40, 3), "torch.arange(4, 40, 3, dtype=torch.int64)"),
    "downwards": (torch.arange(9, -1, -1), "torch.arange(9, -1, -1, dtype=torch.int64)"),
    "distances in float16": (torch.arange(80).half() * -0.5, "(-0.5 * torch.arange(80, dtype=torch.float64))"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_closed_form_is_found_and_its_lines_make_the_same_tensor(name: str) -> None:
    tensor, words = FORMS[name]
    rule = closed_form(tensor)
    assert rule is not None
    assert torch.equal(made(rule, tuple(tensor.shape), tensor.dtype), tensor)
    leaf = decode(Leaf, json.loads(encode(described("x", tensor, rule))))
    lines = tensor_lines([leaf])
    assert words in "\n".join(lines)
    space: dict[str, object] = {"torch": torch}
    exec("\n".join(lines), space)
    again = space["x"]
    assert isinstance(again, Tensor)
    assert again.dtype == tensor.dtype
    assert torch.equal(again, tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0]), torch.tensor([1, 2, 4, 8]), torch.tensor([float("nan"), 0.0, 0.0]),
        torch.eye(4).flip(0), torch.ones(5), torch.tensor([0.0, 1.0]), torch.zeros(0), torch.tensor([1j, 0j, 0j]),
        torch.tensor([[0, 1, 1], [1, 1, 0]]), torch.randn(3, 3, generator=torch.Generator().manual_seed(0)),
    ],
)  # fmt: skip
def test_what_has_none_is_left_as_it_is(tensor: Tensor) -> None:
    assert closed_form(tensor) is None
