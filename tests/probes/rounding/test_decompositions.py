"""The vectors of a decomposition are free up to a sign or a rotation; its values are not."""

from unittest import mock

import pytest
import torch
from torch import nn

from repro.probes.model.forward import look
from repro.probes.model.ready import ready
from repro.probes.rounding import reference
from repro.probes.rounding.run import hold


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, x):
        return self.function(x * self.weight)


def told(function, x):
    with torch.no_grad():
        loaded, given = ready(Function(function), (x,))
        return hold(loaded, [look(loaded.model, given)])[0]


def svd(x):
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    return (left * values) @ right


def eigh(x):
    values, vectors = torch.linalg.eigh(x.mT @ x)
    return (vectors * values) @ vectors.mT


def qr(x):
    left, right = torch.linalg.qr(x)
    return left @ right


@pytest.mark.parametrize("function", [svd, eigh, qr, torch.linalg.matrix_rank, torch.linalg.pinv])
@pytest.mark.parametrize("repeated", [False, True], ids=["", "repeated values"])
def test_other_signs_than_in_float64_are_no_fault(function, repeated):
    for seed in range(4):
        torch.manual_seed(seed)
        x = torch.linalg.qr(torch.randn(48, 12))[0] if repeated else torch.randn(48, 12)
        assert told(lambda x: function(x).float(), x)[0] == "good"


def test_wrong_singular_values_are_found():
    def wrong(x):
        return torch.linalg.svdvals(x)

    assert told(wrong, torch.randn(48, 12))[0] == "good"
    own = reference.in_float64

    def other(part, *more):
        found = own(part, *more)
        if found is not None and "svd" in str(part.func):
            found[1] = found[1] * 1.001
        return found

    rooms = [f"repro.probes.rounding.{name}.in_float64" for name in ("check", "allowed")]
    with mock.patch(rooms[0], other), mock.patch(rooms[1], other):
        verdict, reason, _ = told(wrong, torch.randn(48, 12))
    assert verdict == "bad"
    assert "_linalg_svd" in reason
