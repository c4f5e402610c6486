"""A number that the model holds decides: which one, shown by experiments; and where the inputs have a part in it."""

import pytest
import torch
from torch import nn

from repro.probes.live.find import find


class Inner(nn.Module):
    """One layer that is bad by one number of its own, or by what it is given."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.own = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.register_buffer("seen", torch.linspace(0.5, 1.5, 4))
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        if self.kind == "scale":
            return x / self.own
        if self.kind == "root":
            return x * self.own.sqrt()
        if self.kind == "logarithm":
            return x + self.own.log()
        if self.kind == "variance and epsilon":
            return x * torch.rsqrt(self.seen + 1e-5)
        if self.kind == "functional":
            return nn.functional.batch_norm(x, torch.zeros(4), self.seen, self.own)
        if self.kind == "of the inputs":
            return self.layer(x).log()
        return (x - x) / (x.detach() - x.detach()) * self.own  # "of nothing"


class Outer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.last = nn.Linear(3, 4), Inner(kind), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


def held(kind, tensor=None, value=None):
    model = Outer(kind).eval()
    if tensor is not None:
        with torch.no_grad():
            getattr(model.inner, tensor)[2] = value
    before = {name: item.clone() for name, item in model.state_dict().items()}
    found = find(model, (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),), {})
    assert all(torch.equal(before[name], item) for name, item in model.state_dict().items())
    return None if found.bisected is None else found.bisected[2]["origin"]["held"]


KINDS = [
    ("scale", "own", 0.0, 1.0),
    ("root", "own", -0.25, 0.25),
    ("logarithm", "own", -3.0, 3.0),
    ("variance and epsilon", "seen", -0.5, 0.5),
    ("functional", "seen", -0.5, 0.5),
]


@pytest.mark.parametrize(("kind", "tensor", "value", "instead"), KINDS)
def test_the_number_that_decides_is_named(kind, tensor, value, instead):
    found = held(kind, tensor, value)
    assert (found["tensor"], found["index"]) == (f"inner.{tensor}", [2])
    assert (found["value"], found["instead"]) == (value, instead)
    assert found["in_file"] is False  # a module in memory was read from none


@pytest.mark.parametrize("kind", [row[0] for row in KINDS])
def test_the_sound_twin_has_no_origin(kind):
    assert held(kind) is None


@pytest.mark.parametrize("kind", ["of the inputs", "of nothing"])
def test_where_the_inputs_have_a_part_in_it_no_number_is_blamed(kind):
    assert held(kind) is None


def test_several_numbers_of_one_element_are_not_told_apart():
    """Either factor alone leaves the product of the scale at 0."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x / self.own.prod()

    found = find(nn.Sequential(Two()), (torch.ones(2, 2),), {})
    assert found.bisected[2]["origin"]["held"] is None
