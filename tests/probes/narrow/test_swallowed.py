"""A value that overflows inside of a pass that ends finite: wrong where the same weights in float32 end elsewhere."""

import math

import pytest
import torch
from torch import nn

from repro.probes.model.forward import look
from repro.probes.model.ready import ready
from repro.probes.narrow.smaller import reduce
from repro.probes.narrow.swallowed import OPEN, SOUND, WRONG, asked, origin_of
from repro.probes.reduce.trials import Trials
from repro.probes.rounding.run import hold

CHANNELS = 16


def norm(x):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def clamped(x):
    square = x * x
    if torch.isinf(square).any():  # as T5's layers do
        square = square.clamp(-64_504, 64_504)
    return square.sqrt()


def quotient(x):
    return 100 / (1 + (x * x).sum(-1, keepdim=True)) * x


def gate(x):
    return x * torch.exp(-(x * x) / 1000)  # exp(-inf) is 0, and so is what it should be but for the last digit


def attention(x):
    scores = x @ x.transpose(-1, -2)
    return torch.softmax(torch.nan_to_num(scores) / 400_000, -1) @ x


def zeroed(x):
    return torch.nan_to_num(x * x * 8, posinf=0.0) / 8


def activation(x):
    return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))


def logistic(x):
    return x / (1 + torch.exp(-x))


def masked(x):
    lowest = torch.full((x.shape[-2],) * 2, torch.finfo(torch.float32).min).triu(1)
    return torch.softmax((x @ x.transpose(-1, -2)) / 1000 + lowest.to(x.dtype), -1) @ x


def added_masks(x):
    lowest = torch.full((x.shape[-2],) * 2, torch.finfo(x.dtype).min).to(x.dtype).triu(1)
    both = lowest + lowest * torch.ones_like(lowest)
    return torch.softmax((x @ x.transpose(-1, -2)) / 1000 + both, -1) @ x


def hidden(x):
    square = x * x
    return torch.where(torch.isfinite(square), x, x)


class Model(nn.Module):
    """Two layers with a function of the numbers between them, some of which are near 400."""

    def __init__(self, function, size):
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.end = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.inside = Inside(function, size)

    def forward(self, x):
        return self.end(self.inside(self.begin(x)))


class Inside(nn.Module):
    def __init__(self, function, size):
        super().__init__()
        self.function, self.size = function, size

    def forward(self, x):
        return self.function(x * self.size)


@torch.no_grad()
def told(function, dtype=torch.float16, size=400.0):
    """(the model, the pass, what was born in it, what is said of it)."""
    torch.manual_seed(1)
    loaded, given = ready(Model(function, size).to(dtype).eval(), (torch.randn(2, 6, CHANNELS).to(dtype),))
    seen, born = look(loaded.model, given), []
    assert not seen.bad
    (verdict, _, _), _ = hold(loaded, [seen], born)
    assert verdict == "good"  # each operator by itself
    return loaded, seen, born, asked(loaded, seen, dtype)


@torch.no_grad()
def away(function, dtype, size=400.0):
    """How far the output is from that of float64, in epsilons of its own size: plain PyTorch's answer."""
    torch.manual_seed(1)
    x, model = torch.randn(2, 6, CHANNELS).to(dtype), Model(function, size).to(dtype).eval()
    narrow = model(x).double()
    wide = model.double()(x.double())
    return float((narrow - wide).norm() / wide.norm()) / torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (norm, "aten.mul.Tensor"),
        (clamped, "aten.mul.Tensor"),
        (quotient, "aten.mul.Tensor"),
        (zeroed, "aten.mul.Tensor"),
        (attention, "aten.bmm.default"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_overflow_that_shows_in_the_output_is_wrong_with_its_origin(function, op):
    loaded, seen, born, found = told(function, size=800.0)
    assert away(function, torch.float16, 800.0) > 20
    assert born
    assert (found.verdict, found.address.module, found.address.op) == (WRONG, "inside", op)
    origin = origin_of(loaded, seen, found)
    assert origin["mechanism"] == "overflow"
    assert math.isinf(origin["value"])
    assert abs(origin["reference_value"]) > 65504 == origin["limit"]
    assert "test_swallowed.py" in origin["source"]
    assert origin["confirmed_by"] == "widened"
    assert "where rounding makes" in origin["note"]


@pytest.mark.parametrize(
    ("function", "ops"),
    [
        (norm, ["aten.mul.Tensor", "aten.rsqrt.default"]),
        (quotient, ["aten.mul.Tensor", "aten.reciprocal.default"]),
        (zeroed, ["aten.mul.Tensor", "aten.nan_to_num.default"]),
        (attention, ["aten.bmm.default", "aten.nan_to_num.default"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_operators_from_the_overflow_to_the_finite_number_show_it_alone(function, ops):
    loaded, seen, _, found = told(function, size=800.0)
    verdict, _, payload = reduce(loaded, found, seen, Trials(lambda *_, **__: None, {}))
    program = payload["program"]
    assert (verdict, [call["op"] for call in program["calls"]]) == ("bad", ops)
    assert all(leaf["values"]["kind"] == "constant" for leaf in program["leaves"])
    assert (program["mechanism"], program["limit"]) == ("overflow", 65504.0)
    assert math.isfinite(program["seen"])
    assert abs(program["seen"] - program["expected"]["value"]) > 2 * program["allowed"] > 0


def test_what_changes_a_branch_has_no_such_operators():
    loaded, seen, _, found = told(clamped, size=800.0)
    verdict, reason, payload = reduce(loaded, found, seen, Trials(lambda *_, **__: None, {}))
    assert (verdict, payload["program"], "a branch" in reason) == ("skip", None, True)


@pytest.mark.parametrize(
    ("function", "size"),
    [(gate, 400.0), (activation, 60.0), (logistic, 12.0), (masked, 1.0), (added_masks, 1.0), (hidden, 400.0)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_overflow_that_makes_no_difference_is_sound(function, size):
    *_, born, found = told(function, size=size)
    assert born
    assert found.verdict == SOUND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("function", "size", "verdict"), [(norm, 1e25, WRONG), (added_masks, 1.0, SOUND)])
def test_of_wider_dtypes_too(function, size, verdict, dtype):
    *_, born, found = told(function, dtype, size)
    assert born
    assert found.verdict == verdict


def test_a_mask_that_is_written_as_infinite_asks_nothing():
    def mask(x):
        return torch.softmax((x @ x.transpose(-1, -2)).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf), -1) @ x

    *_, born, found = told(mask, size=1.0)
    assert born == []
    assert found.verdict == SOUND


def test_a_run_that_is_another_one_each_time_could_not_be_told():
    calls = []

    def counting(x):
        calls.append(x)
        return norm(x) + len(calls)

    *_, found = told(counting)
    assert (found.verdict, found.reason) == (OPEN, "a second run gives other numbers")
