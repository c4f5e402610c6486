"""Infinities that a model's code writes into its output, beside those that it computes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repro.probes.live.find import find

INF = math.inf
DENIED = torch.tensor([False, True, False, True])
X = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])


class Head(nn.Module):
    """A linear layer, and what is made of its logits."""

    def __init__(self, then: Callable[[Tensor], object], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4, dtype=dtype)
        self.then = then

    def forward(self, x: Tensor) -> object:
        return self.then(self.linear(x))


def padded(logits: Tensor) -> Tensor:
    wide = logits.new_full((2, 6), -INF)
    wide[:, :4] = logits
    return wide


def assigned(logits: Tensor) -> Tensor:
    logits[:, DENIED] = -INF
    return logits


def looked_up_again(logits: Tensor) -> Tensor:
    masked = logits.masked_fill(DENIED, -INF)
    return torch.where(masked == -INF, masked, masked * 2)


def spoiled(logits: Tensor) -> Tensor:
    """One computed -inf beside those of a mask."""
    masked = logits.masked_fill(DENIED, -INF)
    masked[0, 0] = -(logits[0, 0].abs() + 1e30) * 1e30
    return masked


MEANT = {
    "filled": lambda logits: logits.masked_fill(DENIED, -INF),
    "filled in place": lambda logits: logits.masked_fill_(DENIED, -INF),
    "at an index": lambda logits: logits.index_fill(1, DENIED.nonzero().flatten(), -INF),
    "assigned": assigned,
    "scattered": lambda logits: logits.scatter(1, torch.tensor([[1, 3], [1, 3]]), -INF),
    "constant padding": lambda logits: nn.functional.pad(logits, (0, 2), value=-INF),
    "where": lambda logits: torch.where(DENIED, torch.tensor(-INF), logits),
    "added": lambda logits: logits + torch.zeros(4).masked_fill(DENIED, -INF),
    "padded": padded,
    "looked up again": looked_up_again,
    "in a softmax as well": lambda logits: (
        logits.masked_fill(DENIED, -INF) + logits.masked_fill(DENIED, -INF).softmax(-1)
    ),
    "no box": lambda logits: {"logits": logits, "boxes": logits.masked_fill(torch.tensor([[True], [False]]), INF)},
}
COMPUTED = {
    "one of them computed": (spoiled, "aten.mul.Tensor"),
    "log of zero": (lambda logits: logits + (~DENIED).float().log(), "aten.log.default"),
    "multiplied": (lambda logits: logits.abs() * torch.ones(4).masked_fill(DENIED, -INF) * 2, None),
    "no choice left": (lambda logits: logits.masked_fill(torch.tensor([[True], [False]]), -INF), None),
    "above all": (lambda logits: logits.masked_fill(DENIED, INF), None),
    "a NaN": (lambda logits: logits.masked_fill(DENIED, math.nan), None),
    "a loss": (lambda logits: {"logits": logits, "loss": logits.sum() + torch.tensor(INF)}, None),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", MEANT)
def test_what_the_code_writes_as_a_mask_is_no_fault(how: str, dtype: torch.dtype) -> None:
    head = Head(MEANT[how], dtype)
    with torch.no_grad():
        assert any(bool(part.isinf().any()) for part in parts(head(X.to(dtype))))
    outcome = find(head, (X.to(dtype),), {}).forward
    assert outcome[0] == "good", outcome[1]
    assert "that the code writes there itself" in outcome[1]


@pytest.mark.parametrize("how", COMPUTED)
def test_what_is_computed_or_leaves_nothing_to_choose_is_bad(how: str) -> None:
    then, operator = COMPUTED[how]
    found = find(Head(then), (X,), {})
    assert found.forward[0] == "bad"
    origin = found.bisected[2]["origin"]
    assert operator is None or origin["op"] == operator


def parts(output: object) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else [output]  # type: ignore[list-item]
