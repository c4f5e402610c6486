"""What a call is given: kept as it was, given by place or by name as it was, and left as it was."""

import copy

import pytest
import torch
from torch import nn

import repro


class InPlace(nn.Module):
    """Shifts its input where it lies."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 1)

    def forward(self, x, *, scale=None):
        x.sub_(1.0)
        if scale is not None:
            scale["by"].mul_(0.5)
        return self.inner(torch.log(x))


def batch(bad):
    x = torch.full((4, 2), 2.7)
    if bad:
        x[3, 0] = 0.5
    return x


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_inputs_that_the_model_writes_to_are_judged_as_given_and_left_so(bad, inference):
    with torch.inference_mode(inference):
        x, scale = batch(bad), {"by": torch.ones(1)}
        before = copy.deepcopy((x, scale))
        found = repro.find(InPlace(), x, scale=scale)
        assert bool(found) is bad
        if bad:
            assert (found.origin.op, found.origin.element) == ("aten.log.default", (3, 0))
        assert torch.equal(x, before[0])
        assert torch.equal(scale["by"], before[1]["by"])


def test_a_watch_and_a_guard_look_into_what_was_given():
    model, x = InPlace(), batch(True)
    with repro.watch(model) as seen:
        model(x)
    assert seen.finding.origin.element == (3, 0)
    assert torch.equal(x, batch(True) - 1.0)  # the program's own pass has done so, once
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with repro.Guard(model, optimizer, then="note") as guard:
        for at in range(3):
            x = batch(at == 1)
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert torch.equal(x, batch(at == 1) - 1.0)
    assert guard.finding.answer.watch.examples == (3,)
    assert guard.finding.origin.element == (3, 0)


def test_a_buffer_that_the_program_fills_anew_is_judged_as_it_was():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return torch.sqrt(self.inner(x).abs())

    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    buffer = torch.zeros(3, 2)
    with repro.Guard(model, optimizer, then="note") as guard:
        for at in range(3):  # three calls, one step
            buffer.fill_(1.0)
            if at == 1:
                buffer[2] = 0.0  # the slope of the root
            model(buffer).sum().backward()
        buffer.fill_(1.0)
        optimizer.step()
    assert torch.equal(buffer, torch.ones(3, 2))
    assert guard.finding.answer.watch.examples == (2,)
    assert guard.finding.origin.phase == "backward"


def test_one_tensor_at_two_places_stays_one():
    class Twice(nn.Module):
        def forward(self, one, two):
            one.add_(1.0)
            return two / (one - two + 1.0)

    x = torch.ones(3)
    assert repro.find(Twice(), x, x).verdict == "good"
    assert torch.equal(x, torch.ones(3))


def test_hooks_find_arguments_by_place_where_they_were_given_so():
    model, met = nn.Linear(2, 2), []
    model.register_forward_pre_hook(lambda module, args: met.append(args[0].shape))
    for bad in (False, True):
        x = torch.full((1, 2), float("nan") if bad else 1.0)
        assert bool(repro.find(model, x)) is bad
    assert len(met) >= 2
    assert all(shape[-1] == 2 for shape in met)
    met.clear()
    seen = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, set(kwargs))), with_kwargs=True)
    with pytest.raises(IndexError):
        repro.find(model, input=torch.ones(1, 2))  # as the program's own call would


def test_a_saved_step_is_what_was_given(tmp_path):
    model = InPlace()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with repro.Guard(model, optimizer, out=tmp_path / "out", then="note"):
        model(batch(True)).sum().backward()
        optimizer.step()
    (row,) = torch.load(tmp_path / "out" / "step" / "step.pt", weights_only=True)
    assert torch.equal(row["inputs"]["x"], batch(True))
    assert row["by_place"] == ["x"]
    assert repro.replay(tmp_path / "out" / "step", InPlace()).origin.element == (3, 0)


class Sums(nn.Module):
    """It holds nothing, or a buffer: what it computes in is what it is given."""

    def __init__(self, held=None):
        super().__init__()
        self.register_buffer("held", held)

    def forward(self, x):
        return x.cumsum(-1)


@pytest.mark.parametrize("held", [None, torch.ones(1, dtype=torch.float16)])
def test_inputs_of_a_module_without_weights_keep_their_dtype(held):
    finding = repro.find(Sums(held), torch.full((1, 1000), 100.0, dtype=torch.float16))
    assert (finding.verdict, finding.origin.mechanism, finding.origin.element) == ("bad", "overflow", (0, 655))
    assert finding.origin.reference_value == 65600  # 656 times 100: beyond 65504
    for x in (torch.full((1, 600), 100.0, dtype=torch.float16), torch.full((1, 2), 1e300, dtype=torch.float64)):
        assert repro.find(Sums(held), x).verdict == "good"
