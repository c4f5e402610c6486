"""A NaN or Inf in a buffer of the model, which a batch norm or a running mean keeps from step to step."""

import pytest
import torch
from torch import nn

import repro

INF = float("inf")


class Running(nn.Module):
    """Keeps a running ratio. Beside it: a mask, the best so far, and a row that is -inf from the first call on."""

    def __init__(self, fault):
        super().__init__()
        self.layer, self.fault = nn.Linear(4, 4), fault
        self.register_buffer("ratio", torch.zeros(4))
        self.register_buffer("mask", torch.full((4, 4), -INF).triu(1))
        self.register_buffer("best", torch.tensor(INF))
        self.register_buffer("row", torch.zeros(1))

    def forward(self, x):
        zero = (x * 0).sum(0)
        self.ratio.mul_(0.9).add_(zero / zero if self.fault else zero)  # BORN
        self.row = torch.full((1,), -INF)
        return self.layer(x)


LINE = f"test_buffers.py:{Running.forward.__code__.co_firstlineno + 2}"


def guarded(model, x, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.Guard(model, optimizer, **options) as guard:
        model(x).sum().backward()
        optimizer.step()
    return guard


@pytest.mark.parametrize("fault", [False, True])
def test_a_bad_buffer_is_found_with_its_line_and_what_is_meant_is_not(fault):
    guard = guarded(Running(fault), torch.randn(3, 4), then="note")
    model = Running(fault)
    with repro.watch(model) as seen:
        model(torch.randn(3, 4))
    assert seen.finding.verdict == ("bad" if fault else "good")
    assert (guard.finding is not None) == fault
    if fault:
        for finding in (guard.finding, seen.finding):
            assert (finding.origin.source, finding.origin.phase) == (LINE, "forward")
            assert "buffer ratio" in finding.text


@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_the_variance_of_a_batch_norm_that_overflows_is_seen_and_put_back(scale):
    """Its square is beyond float32, and the output is 0; PyTorch's operator does not say that it writes there."""
    x = torch.tensor([[1.0], [2.0], [4.0]]) * scale
    guard = guarded(nn.Sequential(nn.BatchNorm1d(1)), x, then="skip")
    assert guard.skipped == (scale > 1)
    model = nn.BatchNorm1d(1)
    with repro.watch(model) as seen:
        model(x)
    assert seen.finding.verdict == ("bad" if scale > 1 else "good")
    if scale > 1:
        assert guard._model[0].running_var.item() == 1
        assert (seen.finding.origin, "buffer running_var" in seen.finding.text) == (None, True)
