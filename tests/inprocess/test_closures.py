"""An optimizer that calls a closure: what is bad in it is named, by a guard as by a watch."""

import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn

import repro


def here(word):
    """ "test_closures.py:LINE" of a marked line of this file."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(at for at, line in enumerate(lines, 1) if line.endswith(f"# BORN: {word}"))
    return f"test_closures.py:{number}"


class InAClosure(nn.Module):
    """A network whose third call, and each behind it, has one fault."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.calls = kind, 0
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        self.calls += 1
        hidden = self.first(x)
        bad = self.calls >= 3 and self.kind == "model"
        return self.last(hidden.log() if bad else hidden.tanh())  # BORN: in the model's call

    def step(self, optimizer, x, wanted):
        def closure():
            optimizer.zero_grad()
            output = self(x)
            loss = (output - wanted).square().mean()
            if self.calls >= 3 and self.kind == "loss":
                loss = loss + (loss - loss) / (loss - loss)  # BORN: in the closure's loss
            if self.calls >= 3 and self.kind == "gradient":
                loss = loss + (output * 0).square().sum().sqrt()  # BORN: in the closure's backward
            loss.backward()
            return loss

        return optimizer.step(closure)


@pytest.mark.parametrize(
    ("kind", "op", "born", "phase"),
    [
        ("model", "aten.log.default", "in the model's call", "forward"),
        ("loss", "aten.div.Tensor", "in the closure's loss", "forward"),
        ("gradient", "aten.div.Tensor", "in the closure's backward", "backward"),
    ],
)
@pytest.mark.parametrize("way", ["by place", "by name", "watched"])
def test_what_a_closure_does_wrong_is_named_as_a_watch_names_it(kind, op, born, phase, way):
    model = InAClosure(kind)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    if way == "by name":
        plain = optimizer.step
        optimizer.step = lambda closure: plain(closure=closure)
    around = repro.watch(model, optimizer) if way == "watched" else repro.Guard(model, optimizer, then="note")
    with around as seen:
        model.step(optimizer, torch.randn(6, 4), torch.randn(6, 1))
    origin = seen.finding.origin
    where = origin.forward_source if phase == "backward" else origin.source
    assert (origin.op, where, origin.phase) == (op, here(born), phase)


def test_a_closure_that_is_sound_is_called_as_often_as_without_a_guard_and_steps_alike():
    ends = []
    for guarded in (False, True):
        model = InAClosure("none")
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
        torch.manual_seed(1)
        x, wanted = torch.randn(6, 4), torch.randn(6, 1)
        with repro.Guard(model, optimizer) if guarded else contextlib.nullcontext():
            losses = [model.step(optimizer, x, wanted).item() for _ in range(3)]
        ends.append((model.calls, losses, [item.tolist() for item in model.parameters()]))
    assert ends[0] == ends[1]


def test_a_bad_closure_is_noted_once_in_a_step_and_the_weights_are_left_alone():
    ends = []
    for guarded in (False, True):
        model = InAClosure("loss")
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
        torch.manual_seed(1)
        x, wanted = torch.randn(6, 4), torch.randn(6, 1)
        guard = repro.Guard(model, optimizer, then="note")
        with guard if guarded else contextlib.nullcontext():
            model.step(optimizer, x, wanted)
        ends.append([str(item.tolist()) for item in model.parameters()])
    assert ends[0] == ends[1]
    assert "The loss holds a NaN or Inf in step 1" in guard.finding.text
