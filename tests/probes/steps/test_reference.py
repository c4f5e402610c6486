"""The step ``reference`` in words: of what overflows inside of a finite pass it is said whether that matters."""

import pytest
import torch
from torch import nn

from repro.probes.model.forward import look
from repro.probes.model.ready import ready
from repro.probes.steps.reference import run


class Session:
    def __init__(self, module, *inputs):
        made = [ready(module.half().eval(), (x.half(),)) for x in inputs]
        self.model = made[0][0]
        self.seen = [look(self.model.model, given) for _, given in made]
        self.departure = self.swallowed = None

    def loaded(self):
        return self.model

    def passes(self):
        return self.seen


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


class Logistic(Norm):
    def forward(self, x):
        return self.weight / (1 + torch.exp(-x))


class Underflow(Norm):
    """A number is divided by that float16 takes for zero: rounding may do anything to it."""

    def forward(self, x):
        return torch.exp(-self.weight / (x.abs() * 1e-9) * 1e-9)


def numbers(size):
    torch.manual_seed(0)
    return size * torch.randn(1, 3, 8).clamp(min=-1.2)


def test_a_swallowed_overflow_is_bad_and_of_its_own_input():
    session = Session(nn.Sequential(Norm()), numbers(1.0), numbers(300.0))
    verdict, reason, payload = run(session, "reference")
    assert verdict == "bad"
    assert reason.startswith("aten.mul.Tensor in 0 overflows inside; the output differs from float32's by ")
    assert (payload["prompt"], payload["origin"]["module"], payload["origin"]["mechanism"]) == (1, "0", "overflow")
    assert [row["verdict"] for row in payload["swallowed"]] == ["wrong"]
    assert session.departure is None


def test_a_bad_one_tells_how_the_error_grows_in_the_free_run():
    """Behind the layer with the fault it is beyond rounding, before it not; the same in plain PyTorch."""
    model = nn.Sequential(nn.Linear(8, 8), Norm(), nn.Linear(8, 8)).half()
    with torch.no_grad():
        model[0].weight.mul_(300)
    x = numbers(1.0).half()
    with torch.no_grad():
        inner, wide = model[1](model[0](x)), model.double()[1](model[0](x.double()))
    apart = float((inner.double() - wide).square().mean().sqrt())
    session = Session(model.half(), x)
    _, _, payload = run(session, "reference")
    first, norm, last, end = payload["growth"]
    assert [row["module"] for row in payload["growth"]] == ["0", "1", "2", ""]
    assert first["deviation"] < 5 * first["drift"]
    assert norm["deviation"] == pytest.approx(apart, rel=1e-3)
    assert norm["deviation"] > 20 * norm["drift"]
    assert last["deviation"] == end["deviation"]


@pytest.mark.parametrize(
    ("module", "size", "verdict", "says"),
    [
        (Logistic(), 12.0, "sound", "aten.exp.default in the model gives inf inside, and that makes no difference: "),
        (Underflow(), 1.0, "open", "and whether that matters could not be told: rounding alone moves the output by "),
    ],
    ids=["sound", "open"],
)
def test_what_is_no_fault_or_cannot_be_told_is_good_with_a_note(module, size, verdict, says):
    found = run(Session(module, numbers(size)), "reference")
    assert found[0] == "good"
    assert says in found[1]
    assert [row["verdict"] for row in found[2]["swallowed"]] == [verdict]


def test_what_overflows_nowhere_is_told_no_more_of():
    verdict, reason, payload = run(Session(Norm(), numbers(1.0)), "reference")
    assert (verdict, payload["swallowed"]) == ("good", [])
    assert "inside" not in reason
