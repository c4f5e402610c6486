"""Random rounding: by how much, and what is left alone."""

import pytest
import torch

from repro.probes.differing.held.noise import Noise, is_view
from repro.probes.observe.watch import Address, OpCall, Watch, watched

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_moves_by_one_unit_in_the_last_place_in_one_case_of_six(dtype):
    ones = torch.ones(60_000, dtype=dtype) * 1.5
    moved = Noise(0).moved(ones).double()
    steps = (moved - 1.5) / torch.finfo(dtype).eps
    assert set(steps.tolist()) == {-1.0, 0.0, 1.0}
    assert (steps != 0).double().mean().item() == pytest.approx(1 / 6, abs=0.01)
    assert steps.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_the_largest_number_nan_and_inf_stay(dtype):
    largest = torch.finfo(dtype).max
    kept = torch.tensor([0.0, largest, -largest, float("inf"), -float("inf"), float("nan")], dtype=dtype).repeat(200)
    assert torch.equal(Noise(0).moved(kept).nan_to_num(7.0, 8.0, 9.0), kept.nan_to_num(7.0, 8.0, 9.0))


def test_the_tensor_itself_is_not_written_to():
    given = torch.full((1000,), 1.5)
    Noise(0).moved(given)
    assert bool((given == 1.5).all())


def test_the_same_seed_gives_the_same_movements_and_another_one_others():
    given = torch.full((1000,), 1.5)
    assert torch.equal(Noise(3).moved(given), Noise(3).moved(given))
    assert not torch.equal(Noise(3).moved(given), Noise(4).moved(given))


class Halves(torch.nn.Module):
    """A view, arithmetic, a constant, and a write in place."""

    def forward(self, x):
        view = x[:, :500]
        doubled = view * 2
        constant = torch.arange(500, dtype=torch.float32)
        doubled.add_(0.0)
        return view, doubled, constant


def test_a_view_and_a_constant_are_exact_and_arithmetic_is_not():
    model, given = Halves(), torch.full((2, 1000), 1.5)
    with watched(model, Watch(Noise(0).visit)):
        view, doubled, constant = model(given)
    assert bool((given == 1.5).all())
    assert torch.equal(view, torch.full((2, 500), 1.5))
    assert torch.equal(constant, torch.arange(500, dtype=torch.float32))
    assert 0.2 < (doubled != 3.0).double().mean().item() < 0.4  # moved behind the product, and again in place


def test_a_view_is_told_by_its_memory():
    given = torch.ones(4)
    call = OpCall(Address("", 0, "aten.view.default", 0), None, (given,), {})
    assert is_view(call, given.view(2, 2))
    assert not is_view(call, given.clone())
