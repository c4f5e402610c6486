"""A step of the optimizer's own that goes bad: its state is saved with it, and it is made again elsewhere."""

import json

import pytest
import torch
from torch import nn

import repro
from repro.core.errors import UsageError
from repro.probes.live import saved


class Own(torch.optim.Adam):
    """An optimizer that is none of torch.optim's own."""


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def adam(parameters, kind=torch.optim.Adam, eps=0.0):
    return kind(parameters, eps=eps, betas=(0.0, 0.0), foreach=False)


def rmsprop(parameters):
    return torch.optim.RMSprop(parameters, eps=0.0, alpha=0.0, momentum=0.9, foreach=False)


def guarded(folder, make, then="note"):
    """Two steps, of which the second has gradients of 0 alone, by which these optimizers divide."""
    net = model()
    optimizer = make(net.parameters())
    with repro.Guard(net, optimizer, then=then, out=folder) as guard:
        for factor in (1.0, 0.0):
            optimizer.zero_grad()
            (net(torch.ones(3, 4)) * factor).sum().backward()
            optimizer.step()
    return guard


@pytest.mark.parametrize("make", [adam, rmsprop])
def test_the_step_replays_from_the_saved_state_to_the_same_origin(tmp_path, make):
    guard = guarded(tmp_path / "out", make)
    before, step = guard.finding.origin, tmp_path / "out" / "step"
    again = repro.replay(step, model())
    after = again.origin
    assert (before.phase, before.op, before.mechanism) == ("optimizer", "aten.addcdiv_.default", "invalid")
    for field in ("phase", "op", "mechanism", "source", "element"):
        assert getattr(after, field) == getattr(before, field)
    assert again.verdict == "bad"
    told = json.loads((step / "step.json").read_text("utf-8"))["optimizer"]
    held = torch.load(step / "optimizer.pt", weights_only=True)
    assert (told["saved"], told["class"]) == (True, type(make(model().parameters())).__name__)
    assert set(held["state"]) == set(held["gradients"]) == {name for name, _ in model().named_parameters()}


def test_with_an_epsilon_in_the_saved_step_it_is_good(tmp_path):
    """The sound twin: what is read is what decides."""
    guarded(tmp_path / "out", adam)
    path = tmp_path / "out" / "step" / "optimizer.pt"
    held = torch.load(path, weights_only=True)
    held["groups"][0]["eps"] = 1e-8
    torch.save(held, path)
    assert repro.replay(tmp_path / "out" / "step", model()).origin is None


@pytest.mark.parametrize(
    ("make", "largest", "why"),
    [
        (lambda parameters: adam(parameters, Own), saved.LARGEST, "is none of torch.optim's own optimizers"),
        (adam, 100, "and 100 are saved at most"),
    ],
)
def test_a_state_that_is_not_saved_is_said_with_the_reason(tmp_path, monkeypatch, make, largest, why):
    monkeypatch.setattr(saved, "LARGEST", largest)
    guarded(tmp_path / "out", make)
    step = tmp_path / "out" / "step"
    assert not (step / "optimizer.pt").exists()
    assert why in json.loads((step / "step.json").read_text("utf-8"))["optimizer"]["why"]
    if largest == saved.LARGEST and (step / "weights.pt").exists():
        with pytest.raises(UsageError, match="its step cannot be made again"):
            repro.replay(step, model())


def test_the_state_is_no_part_of_a_step_whose_gradient_is_bad(tmp_path):
    net = model()
    optimizer = adam(net.parameters(), eps=1e-8)
    with repro.Guard(net, optimizer, then="note", out=tmp_path / "out"):
        (net(torch.ones(3, 4)).sum() * 0).sqrt().backward()
        optimizer.step()
    step = tmp_path / "out" / "step"
    assert not (step / "optimizer.pt").exists()
    assert json.loads((step / "step.json").read_text("utf-8"))["optimizer"] is None
