"""Modules that PyTorch treats in ways of its own: TorchScript, vmap, per-sample gradients, lazy and packed ones."""

import pytest
import torch
from torch import nn

import repro


class Log(nn.Module):
    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.inner, self.shift = nn.Linear(2, 2), shift

    def forward(self, x):
        return torch.log(self.inner(x).abs() + self.shift)


class Mapped(Log):
    def forward(self, x):
        return torch.func.vmap(lambda row: torch.log(self.inner(row).abs() + self.shift))(x)


class Holder(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.inner = torch.jit.script(Log(shift))

    def forward(self, x):
        return self.inner(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [lambda c: torch.jit.script(Log(c)), Mapped, Holder], ids=["script", "vmap", "child"])
def test_each_way_to_ask_gives_an_answer(make):
    x = torch.ones(3, 2)
    for shift, bad in ((1.0, False), (-100.0, True)):
        model = make(shift)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        assert bool(repro.find(model, x)) is bad
        with repro.watch(model) as seen:
            model(x).sum().backward()
        assert bool(seen.finding) is bad
        optimizer.zero_grad()
        with repro.Guard(model, optimizer, then="note") as guard:
            model(x).sum().backward()
            optimizer.step()
        assert bool(guard.findings) is bad


def test_per_sample_gradients_are_watched():
    layer = nn.Linear(2, 1)
    held = dict(layer.named_parameters())

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, (row,)).mul(0).abs().sqrt().sum()

    with repro.watch(layer) as seen:
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(held, torch.ones(3, 2))
        weights = gradients["weight"]
    assert weights.isnan().any()
    assert seen.finding.verdict == "bad"


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_module_is_called_once_before_it_is_asked():
    found = repro.find(nn.LazyLinear(2), torch.ones(1, 2))
    assert found.verdict == "skip"
    assert "call it once" in found.text
    layer = nn.LazyLinear(2)
    with repro.watch(layer) as seen:
        layer(torch.ones(1, 2))
    assert seen.finding.verdict == "good"


def test_packed_sequences_are_guarded_and_saved(tmp_path):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with repro.Guard(layer, optimizer, out=tmp_path / "out", then="note") as guard:
        for step in range(3):
            rows = [torch.randn(size, 3) for size in (4, 3, 2)]
            if step == 1:
                rows[1][2, 0] = float("nan")
            layer(nn.utils.rnn.pack_sequence(rows))[0].data.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert guard.finding.answer.watch.step == 2
    assert (tmp_path / "out" / "report.md").exists()
    assert repro.find(nn.LSTM(3, 4), nn.utils.rnn.pack_sequence(rows)).verdict == "good"
