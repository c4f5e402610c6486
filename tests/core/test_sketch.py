"""How far two outputs are apart, from their sketches: against the plain difference, which tests know."""

import pytest
import torch
from torch import nn

from repro.core.encoding import decode, replace
from repro.core.finite.sketch import Sketch, apart
from repro.probes.differing.sketch import DIRECTIONS, sketch
from repro.probes.model.forward import look
from repro.probes.model.ready import ready

ROWS, WORDS = 40, 300


class Net(nn.Module):
    """``off`` is added to one logit; ``again`` rounds otherwise what comes to the same."""

    def __init__(self, off=0.0, again=False):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(64, 64), nn.Linear(64, WORDS)
        self.off, self.again = off, again

    def forward(self, x):
        if self.again:
            x = self.inner(x)
            weight = torch.cat([self.head.weight[:, 32:], self.head.weight[:, :32]], 1)
            logits = torch.cat([x[..., 32:], x[..., :32]], -1) @ weight.T + self.head.bias
        else:
            logits = self.head(self.inner(x))
        logits[..., 7, 11] += self.off
        return {"logits": logits}


def sketched(dtype=torch.float32, **changes):
    x = torch.randn(1, ROWS, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        loaded, given = ready(Net(**changes).to(dtype), (x,))
        return [decode(Sketch, sketch(loaded, look(loaded.model, given)))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_another_order_of_a_sum_is_within_rounding(dtype):
    found = apart(sketched(dtype), sketched(dtype, again=True))
    assert found.agree
    assert found.degree > 0 or dtype != torch.float32
    assert apart(sketched(dtype), sketched(dtype)).degree == 0


@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 0.01), (torch.bfloat16, 2.0), (torch.float16, 0.5)], ids=str
)
def test_one_element_that_is_off_is_seen_wherever_it_is(dtype, off):
    found = apart(sketched(dtype), sketched(dtype, off=off))
    assert not found.agree
    assert found.rows == 32


def test_a_likeliest_token_that_differs_is_counted():
    assert apart(sketched(), sketched(off=0.0)).flips == 0
    changed = replace(sketched()[0], likeliest=(*sketched()[0].likeliest[:-1], WORDS))
    assert apart(sketched(), [changed]).flips == 1


def test_the_estimate_is_the_difference():
    """Of one element that is off by 1: on every direction it counts once, with its sign."""
    pairs = zip(sketched()[0].groups, sketched(off=1.0)[0].groups, strict=True)
    squares = [sum((a - b) ** 2 for a, b in zip(x.on, y.on, strict=True)) for x, y in pairs]
    assert sum(squares) / DIRECTIONS == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"given": "other"}, "token ids"),
        ({"shape": (1, 2)}, "logits [1"),
        ({"why_not": "a second run"}, "a second run"),
    ],
)
def test_what_cannot_be_compared_is_said(change, said):
    found = apart(sketched(), [replace(sketched()[0], **change)])
    assert (found.degree, found.agree, said in found.why_not) == (None, False, True)
    assert apart(sketched(), []).why_not is not None
