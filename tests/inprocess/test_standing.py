"""Modules that keep a state in plain attributes: each pass begins with what the call began with."""

import contextlib

import pytest
import torch
from torch import nn

import repro


class Stream(nn.Module):
    """Keeps its state as a tensor, in a list and in a counter; bad where an input is 0 and by its own weight."""

    def __init__(self, fault):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.state, self.seen, self.calls, self.fault = None, [], 0, fault

    def forward(self, x):
        self.calls += 1
        self.state = x if self.state is None else 0.5 * self.state + x
        self.seen.append(self.state)
        size = self.state.abs().sum(-1, keepdim=True)
        y = self.layer(self.state) / (size if self.fault else size + 1)
        self.state = self.state + y
        return y


class Scripted(nn.Module):
    state: torch.Tensor

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.state = torch.zeros(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = torch.tanh(self.layer(x) + self.state)
        return self.state


LINE = f"test_standing.py:{Stream.forward.__code__.co_firstlineno + 5}"


def zeros_at(row):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    x[row] = 0
    return x


@pytest.mark.parametrize("way", ["find", "watch", "guard"])
def test_the_origin_is_the_operator_and_not_the_state_that_it_left(way):
    model, x = Stream(True), zeros_at(1)
    if way == "find":
        found = repro.find(model, x)
        assert (model.state, model.seen, model.calls) == (None, [], 0)
    elif way == "watch":
        with repro.watch(model) as seen:
            model(x)
        found = seen.finding
        assert (len(model.seen), model.calls) == (1, 1)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = repro.Guard(model, optimizer, then="note")
        with guard:
            model(x).sum().backward()
        found = guard.finding
        assert (len(model.seen), model.calls) == (1, 1)
    assert (found.origin.source, found.origin.op, found.origin.mechanism) == (LINE, "aten.div.Tensor", "divide_by_zero")


def test_a_stream_goes_on_as_if_nobody_had_asked():
    asked, plain = Stream(False), Stream(False)
    for number in range(3):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(number))
        assert repro.find(asked, x).verdict == "good"
        assert torch.equal(asked(x), plain(x))
    assert torch.equal(asked.state, plain.state)
    assert asked.calls == 3


def test_a_call_in_the_middle_of_a_stream_is_made_again_from_its_state(tmp_path):
    """The third example's state is 0 at the second call alone: the first had given it."""
    model = Stream(True)
    model.layer.weight.data.zero_()
    model.layer.bias.data.zero_()
    first = torch.ones(3, 4)
    model(first)
    found = repro.find(model, torch.tensor([1.0, 1.0, -0.5])[:, None].expand(3, 4))
    assert (found.origin.source, found.origin.element[0]) == (LINE, 2)
    assert model.calls == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("outer", [False, True])
def test_a_scripted_module_with_a_state_is_walked_through(outer):
    scripted = torch.jit.script(Scripted())
    model = nn.Sequential(scripted) if outer else scripted
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    before = scripted.state.clone()
    assert repro.find(model, x).verdict == "good"
    with torch.no_grad():
        scripted.layer.weight[1, 2] = float("nan")
    found = repro.find(model, x)
    assert (found.origin.mechanism, found.origin.tensor_index) == ("bad_weights", (1, 2))
    assert found.origin.tensor.endswith("layer.weight")
    assert torch.equal(scripted.state, before)


def test_what_raises_in_the_block_counts_with_what_it_looked_at():
    """A check of the program's own raises for a NaN that no variable of the block holds."""

    class Checked(nn.Module):
        def __init__(self, fault):
            super().__init__()
            self.fault = fault

        def forward(self, x):
            found = x / (x - x if self.fault else x + 9)
            if not torch.isfinite(found).all() or not self.fault:
                raise ValueError("not finite")
            return found

    for fault in (True, False):
        seen = repro.watch()
        with contextlib.suppress(ValueError), seen:
            Checked(fault)(torch.ones(2))
        assert seen.finding.verdict == ("bad" if fault else "good")
    assert repro.watch().finding.verdict == "skip"
