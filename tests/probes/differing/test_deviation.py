"""How far two tensors are apart, and what of it rounding explains."""

import math

import pytest
import torch

from repro.probes.differing.held.deviation import apart, comparable, drift_of, farthest, held_against
from repro.probes.differing.held.hold import beyond, limits
from repro.probes.differing.held.noise import Noise

EPS = torch.finfo(torch.bfloat16).eps
NAN, INF = float("nan"), float("inf")


def test_the_whole_a_row_and_a_column_by_hand():
    this, other = torch.zeros(2, 2), torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    found = apart(this, other)
    assert found.whole == pytest.approx(1.5)
    assert found.rows.flatten().tolist() == pytest.approx([3 / math.sqrt(2), 0])
    assert found.columns.tolist() == pytest.approx([3 / math.sqrt(2), 0])
    assert farthest(this, other) == (0, 0)


@pytest.mark.parametrize(
    ("this", "other", "mismatched"),
    [
        ([NAN, 1.0], [NAN, 1.0], 0),
        ([INF, 1.0], [INF, 1.0], 0),
        ([NAN, 1.0], [2.0, 1.0], 1),
        ([2.0, 1.0], [NAN, 1.0], 1),
        ([INF, 1.0], [-INF, 1.0], 1),
        ([NAN, 1.0], [INF, 1.0], 1),
    ],
)
def test_nan_agrees_with_nan_and_differs_from_a_number_in_either_direction(this, other, mismatched):
    assert apart(torch.tensor(this), torch.tensor(other)).mismatched == mismatched


def test_the_lowest_number_of_a_dtype_stands_for_minus_infinity():
    this = torch.tensor([0.0, torch.finfo(torch.float16).min], dtype=torch.float16)
    other = torch.tensor([0.0, torch.finfo(torch.float64).min], dtype=torch.float64)
    found = apart(this, other)
    assert (found.mismatched, found.whole) == (0, 0.0)
    assert apart(this, torch.tensor([0.0, -INF])).mismatched == 0


def test_integers_agree_exactly_or_not_at_all():
    assert apart(torch.tensor([1, 2]), torch.tensor([1, 2])).mismatched == 0
    assert apart(torch.tensor([1, 2]), torch.tensor([1, 3])).mismatched == 1


def test_numbers_of_another_kind_are_not_compared():
    assert comparable(torch.ones(1), torch.ones(1, dtype=torch.float16))
    assert not comparable(torch.ones(1), torch.ones(1, dtype=torch.bool))
    assert not comparable(torch.ones(1, dtype=torch.long), torch.ones(1, dtype=torch.bool))


def test_what_random_rounding_does_is_within_rounding():
    values = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    drift = drift_of(apart(values, Noise(1).moved(values)))
    ratio = held_against(apart(values, Noise(2).moved(values)), drift, EPS)
    assert not beyond(ratio)
    assert 0.5 < ratio.whole < 2


@pytest.mark.parametrize("place", [(slice(None), slice(None)), (3, slice(None)), (slice(None), 17)])
def test_ten_percent_in_a_tensor_a_row_or_a_column_is_beyond_it(place):
    values = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    drift = drift_of(apart(values, Noise(1).moved(values)))
    wrong = Noise(2).moved(values).clone()
    wrong[place] = wrong[place] * 1.5
    assert beyond(held_against(apart(values, wrong), drift, EPS))


def test_a_mismatch_that_rounding_makes_too_is_explained():
    values = torch.tensor([[65504.0, 1.0]], dtype=torch.float16)
    over = torch.tensor([[INF, 1.0]], dtype=torch.float16)
    drift = drift_of(apart(values, over))
    assert beyond(held_against(apart(values, over), None, 2**-10))
    assert not beyond(held_against(apart(values, over), drift, 2**-10))


def test_the_limits_are_wider_where_the_order_of_a_sum_shows():
    assert limits(EPS).whole < limits(torch.finfo(torch.float32).eps).whole


def test_what_has_no_element_is_within_rounding():
    nothing = torch.zeros(0, 4)
    assert not beyond(held_against(apart(nothing, nothing), None, EPS))
