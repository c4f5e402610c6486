"""Formulas that lose their digits, beside formulas of the same function that do not and inputs of which any would."""

import pytest
import torch
from torch import nn

from repro.probes.differing.diff import answer, held_against, make
from repro.probes.differing.ways import in_other_dtype, plain
from repro.probes.model.ready import ready


class Formula(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.formula, self.end = (
            nn.Parameter(torch.ones(1)),
            Formula(function),
            nn.LazyLinear(4, bias=False),
        )

    def forward(self, x):
        return self.end(self.formula(x * self.scale))


def told(function, x, dtype, against="float32"):
    model = Model(function)
    model(x.float())
    loaded, given = ready(model.to(dtype).eval(), (x.to(dtype),))
    this = plain((given,))
    with torch.no_grad():
        made = make(loaded.model, this, (given,), lambda *_: None)
        return answer(
            held_against(loaded.model, made, in_other_dtype(loaded, (given,), against), lambda *_: None), this
        )


def variance(x):
    return (x * x).mean(-1, keepdim=True) - x.mean(-1, keepdim=True) ** 2 + 0 * x


def normed(x):
    spread = (x * x).mean(-1, keepdim=True) - x.mean(-1, keepdim=True) ** 2
    return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(spread.clamp(min=0) + 1e-3)


def two_passes(x):
    return (x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 0 * x


def softplus(x):
    return torch.log(1 + torch.exp(x))


def cosine(x):
    return (1 - torch.cos(x)) / (x * x)


def root(x):
    return torch.sqrt(x + 1) - torch.sqrt(x)


def numbers(kind):
    torch.manual_seed(1)
    drawn = torch.rand(2, 6, 32)
    return {"offset": 60 + drawn, "low": -8 - drawn, "small": 0.01 + 0.01 * drawn, "large": 1000 + 9000 * drawn}[kind]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("function", "kind", "op"),
    [
        (variance, "offset", "aten.sub.Tensor"),
        (softplus, "low", "aten.log.default"),
        (cosine, "small", "aten.rsub.Scalar"),
        (root, "large", "aten.sub.Tensor"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_formula_that_loses_its_digits_is_named(function, kind, op, dtype):
    verdict, reason, payload = told(function, numbers(kind), dtype)
    found = payload["departure"]
    assert verdict == "bad"
    assert (found["module"], found["mechanism"], found["op"], found["side"]) == ("formula", "cancellation", op, "this")
    assert found["condition"] > 16
    assert "test_lost.py" in found["source"]
    assert "its result is off by " in reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (nn.functional.softplus, "low"),
        (lambda x: 1 / (torch.sqrt(x + 1) + torch.sqrt(x)), "large"),
        (lambda x: x - 60, "offset"),
        (lambda x: x - x.mean(-1, keepdim=True), "offset"),
        (two_passes, "offset"),
        (lambda x: torch.sin(x), "large"),
        (lambda x: torch.softmax(x, -1), "large"),
    ],
    ids=("softplus", "quotient", "difference", "mean", "two passes", "sine", "softmax"),
)
def test_a_stable_formula_and_badly_conditioned_inputs_are_good(function, kind, dtype):
    verdict, reason, payload = told(function, numbers(kind), dtype)
    assert (verdict, payload["departure"]) == ("good", None), reason


def test_the_first_operator_is_named_not_the_one_that_makes_the_most_of_it():
    verdict, _, payload = told(normed, numbers("offset"), torch.float16)
    assert (verdict, payload["departure"]["op"]) == ("bad", "aten.sub.Tensor")


def test_in_float32_against_float64_too():
    x = 4000 + numbers("offset")
    verdict, _, payload = told(variance, x, torch.float32, "float64")
    assert (verdict, payload["departure"]["mechanism"]) == ("bad", "cancellation")
    assert told(two_passes, x, torch.float32, "float64")[0] == "good"
