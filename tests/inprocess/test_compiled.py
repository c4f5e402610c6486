"""Modules under torch.compile: guarded and watched, and never traced."""

import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn

import repro
from inprocess.test_find import same, state_of

STEPS = 3


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return torch.sqrt(self.inner(x).abs() - x[0, 0])  # BORN


def line():
    with Path(__file__).open(encoding="utf-8") as opened:
        return f"test_compiled.py:{next(at for at, text in enumerate(opened, 1) if '# BORN' in text)}"


def compiled(how, **options):
    """(what is guarded, what is called, the module)."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    module = Root()
    if how == "in place":
        module.compile(backend="eager", **options)
        return module, module, module
    wrapped = torch.compile(module, backend="eager", **options)
    return (wrapped if how == "wrapper" else module), wrapped, module


HOW = ["wrapper", "module", "in place"]


def train(guarded, called, module, bad=True, then="note"):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    guard = repro.Guard(guarded, optimizer, then=then)
    with contextlib.suppress(repro.FaultFound), guard:
        for at in range(STEPS):
            x = torch.ones(3, 4)
            x[0, 0] = 50.0 if bad and at == 1 else -1.0
            called(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return guard


@pytest.mark.parametrize("how", HOW)
def test_the_loop_goes_on_and_the_origin_is_named(how):
    guard = train(*compiled(how))
    assert guard.steps == STEPS
    assert guard.finding.answer.watch.step == 2
    assert (guard.finding.origin.op, guard.finding.origin.source) == ("aten.sqrt.default", line())


@pytest.mark.parametrize("how", HOW)
def test_a_sound_loop_has_no_more_graphs_and_breaks_than_without_the_guard(how):
    counters = torch._dynamo.utils.counters

    def counted(guarded):
        guard, called, module = compiled(how, fullgraph=True)
        before = state_of(module)[1]
        counters.clear()
        if guarded:
            assert train(guard, called, module, bad=False).finding is None
        else:
            optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
            for _ in range(STEPS):
                x = torch.ones(3, 4)
                x[0, 0] = -1.0
                called(x).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        assert same(state_of(module)[1], before)
        return dict(counters["frames"]), dict(counters["graph_break"]), counters["stats"]["unique_graphs"]

    assert counted(True) == counted(False)


def test_a_module_that_is_compiled_within_the_loop_is_met_from_the_second_step_on():
    torch._dynamo.reset()
    module = Root()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    with repro.Guard(module, optimizer, then="note") as guard:
        called = torch.compile(module, backend="eager", fullgraph=True)
        for at in range(STEPS):
            x = torch.ones(3, 4)
            x[0, 0] = 50.0 if at == 1 else -1.0
            called(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert guard.finding.origin.source == line()


def test_a_model_inside_of_a_compiled_function_is_told_by_its_gradients():
    torch._dynamo.reset()
    module = Root()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    loss = torch.compile(lambda x: module(x).sum(), backend="eager", fullgraph=True)
    with repro.Guard(module, optimizer, then="note") as guard:
        x = torch.full((3, 4), 50.0)
        loss(x).backward()
        optimizer.step()
    assert guard.finding.verdict == "bad"
    assert guard.finding.origin is None
    assert "inside of compiled code" in guard.finding.text


@pytest.mark.parametrize("how", HOW)
def test_a_bad_gradient_is_seen_by_a_watch(how):
    guarded, called, module = compiled(how)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    with torch.no_grad():
        module.inner.weight[1] = 0
        module.inner.bias[1] = 0  # the root of 0 has an infinite slope, and the slope of its magnitude is 0
    x = torch.zeros(3, 4)
    with repro.watch(guarded, optimizer) as seen:
        called(x).sum().backward()
        optimizer.step()
    assert module.inner.bias.grad.isnan().any()
    assert (seen.finding.origin.phase, seen.finding.origin.forward_source) == ("backward", line())
    assert seen.finding.origin.gradient in ("inner.weight", "inner.bias")
    module.load_state_dict(Root().state_dict())
    assert called(torch.full((3, 4), -1.0)).isfinite().all()


def test_a_module_without_a_length_is_no_trouble():
    class Sized(Root):
        def __len__(self):
            raise TypeError("no length")

    module = Sized()
    with torch.no_grad():
        module.inner.weight.zero_()
        module.inner.bias.zero_()
    with repro.watch(module) as seen:
        module(torch.zeros(3, 4)).sum().backward()
    assert seen.finding.origin.forward_source == line()


def test_what_goes_wrong_in_the_search_is_told_and_the_loop_goes_on(monkeypatch):
    from repro.probes.live import again

    def fails(*_):
        raise LookupError("no such thing")

    monkeypatch.setattr(again.Again, "look_into", fails)
    module = Root()
    guard = train(module, module, module)
    assert guard.steps == STEPS
    assert guard.finding.verdict == "bad"
    assert "LookupError: no such thing" in guard.finding.text
