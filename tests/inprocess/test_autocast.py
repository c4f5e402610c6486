"""Under autocast, whose cache keeps the weights that it has cast."""

import contextlib

import pytest
import torch
from torch import nn

import repro


def model():
    """The second layer's weight is finite in float32 and not in float16."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        layers[1].weight.mul_(3e5)
    return layers


def half():
    return torch.autocast("cpu", dtype=torch.float16)


def is_the_cast(origin):
    return (origin.module, origin.op, origin.mechanism) == ("1", "aten._to_copy.default", "overflow")


@pytest.mark.parametrize("around", [contextlib.nullcontext, torch.no_grad])
@pytest.mark.parametrize("called_before", [False, True])
def test_a_weight_that_overflows_in_the_cast_is_found_in_the_cast(around, called_before):
    layers, x = model(), torch.randn(2, 8)
    with half(), around():
        if called_before:
            layers(x)
        assert is_the_cast(repro.find(layers, x).origin)
        with repro.watch(layers) as seen:
            layers(x)
    assert is_the_cast(seen.finding.origin)


def test_a_guard_finds_the_cast():
    layers = model()
    optimizer = torch.optim.SGD(layers.parameters(), lr=1e-9)
    with repro.Guard(layers, optimizer, then="note") as guard:
        with half():
            loss = layers(torch.randn(4, 8)).float().square().mean()
        loss.backward()
        optimizer.step()
    assert is_the_cast(guard.finding.origin)


def test_gradients_of_the_programs_own_graph_come_through_after_a_pass_without_any():
    layers = nn.Linear(4, 4)
    x = torch.randn(2, 4)
    with half():
        with torch.no_grad():
            repro.find(layers, x)
        layers(x).float().sum().backward()
    assert layers.weight.grad is not None
