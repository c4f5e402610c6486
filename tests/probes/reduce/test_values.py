"""Rules for a tensor's values: what each makes, which comes first, and what fits into a script."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
import torch
from support.reducing import trials, values_of
from torch import Tensor

from repro.probes.protocol.wire import jsonable
from repro.probes.reduce.values import BYTES, LISTED, described, fits, make, rounded_to, simplest, whole

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DRAWN = torch.tensor([[1.5410, -0.2934], [-2.1788, 0.5684]])
"""torch.randn(2, 2) of seed 0, as PyTorch's documentation of the generator prints it."""


def kinds_tried(tensor: Tensor, **more: Any) -> list[str]:
    """The kinds of rules in the order of trying, where none does."""
    tried: list[str] = []
    asked, _ = trials()
    simplest(tensor, lambda rule: bool(tried.append(rule["kind"])), asked, "x", **more)
    return list(dict.fromkeys(tried))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_constant_fills(dtype: torch.dtype) -> None:
    made = make({"kind": "constant", "value": 2.5}, (2, 3), dtype)
    assert (made.dtype, made.tolist()) == (dtype, [[2.5] * 3] * 2)


def test_a_closed_form_goes_from_end_to_end_in_row_major_order() -> None:
    made = make({"kind": "linspace", "start": 0.0, "end": 5.0}, (2, 3), torch.float16)
    assert (made.dtype, made.tolist()) == (torch.float16, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_a_seed_gives_the_numbers_of_torchs_generator() -> None:
    made = make({"kind": "normal", "seed": 0, "mean": 10.0, "std": 2.0}, (2, 2), torch.float32)
    assert torch.allclose(made, 10.0 + 2.0 * DRAWN, atol=1e-3)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    make({"kind": "normal", "seed": 1, "mean": 0.0, "std": 1.0}, (4,), torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_elements_are_put_into_a_constant_and_a_short_index_fills_a_row() -> None:
    made = make({"kind": "elements", "base": 1.0, "elements": [[[0, 1], 7.0], [[1], 3.0]]}, (2, 2), torch.float32)
    assert made.tolist() == [[1.0, 7.0], [3.0, 3.0]]


def test_bytes_are_little_endian_and_row_major() -> None:
    packed = base64.b64encode(struct.pack("<4f", 1.0, -2.0, 3.5, 0.25)).decode()
    assert make({"kind": "bytes", "base64": packed}, (2, 2), torch.float32).tolist() == [[1.0, -2.0], [3.5, 0.25]]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("size", [1, 5, LISTED, LISTED + 1])
def test_whole_values_come_back_as_they_were_also_by_the_schema(dtype: torch.dtype, size: int) -> None:
    tensor = (torch.arange(size) * 37 % 101 - 50).abs().to(dtype).reshape(size, 1)
    rule = whole(tensor)
    assert rule["kind"] == "constant" if size == 1 and not dtype.is_complex else True
    assert torch.equal(make(rule, tuple(tensor.shape), dtype), tensor)
    assert torch.equal(values_of(jsonable(described("x", tensor, rule))), tensor)


@pytest.mark.parametrize("size", [2, LISTED + 1])
def test_nan_and_infinities_come_back(size: int) -> None:
    tensor = torch.zeros(size)
    tensor[0], tensor[-1] = float("nan"), float("-inf")
    back = values_of(jsonable(described("x", tensor, whole(tensor))))
    assert torch.isnan(back[0])
    assert back[-1] == float("-inf")


def test_no_more_bytes_than_a_script_should_have() -> None:
    assert fits(torch.zeros(BYTES // 4))
    assert not fits(torch.zeros(BYTES // 4 + 1))
    assert fits(torch.zeros(BYTES // 2, dtype=torch.float16))


def test_the_order_is_constant_closed_form_seed_elements_and_then_what_it_is() -> None:
    assert kinds_tried(torch.randn(3, 4)) == ["constant", "linspace", "normal", "elements", "list"]
    assert kinds_tried(torch.randn(30, 40)) == ["constant", "linspace", "normal", "elements", "bytes"]
    assert kinds_tried(torch.randn(300, 400)) == ["constant", "linspace", "normal", "elements"]


def test_of_a_matrix_of_weights_a_seed_comes_before_other_constants_than_zero() -> None:
    tried: list[Any] = []
    asked, _ = trials()
    simplest(torch.randn(30, 40), lambda rule: bool(tried.append(rule)), asked, "w", rows=(3,))
    assert tried[0] == {"kind": "constant", "value": 0.0}
    assert [rule["kind"] for rule in tried[1:4]] == ["normal"] * 3
    rows = [rule for rule in tried if rule["kind"] == "elements" and rule["elements"][0][0] == [3]]
    assert [len(rule["elements"]) for rule in rows] == [1, 1, 1, 1]


def test_the_first_rule_that_holds_is_taken() -> None:
    asked, _ = trials()
    tensor = torch.tensor([1.0, 2.0, 90000.0, 4.0])
    found = simplest(tensor, lambda rule: bool(make(rule, (4,), torch.float32).max() > 65504), asked, "x")
    assert found == {"kind": "constant", "value": 90000.0}


def test_the_fewest_elements_are_kept_and_rounded_as_far_as_the_fault_allows() -> None:
    """It needs a large value at one place and ordinary ones elsewhere: no constant and no line does."""
    tensor = torch.arange(40, dtype=torch.float32)
    tensor[17] = 54321.0

    def holds(rule: Any) -> bool:
        made = make(rule, (40,), torch.float32)
        return bool(made[17] > 54000 and (made > 54000).sum() == 1)

    asked, _ = trials()
    assert simplest(tensor, holds, asked, "x") == {"kind": "elements", "base": 0.0, "elements": [[[17], 54300.0]]}


def test_two_elements_that_are_needed_together_stay() -> None:
    tensor = torch.zeros(20)
    tensor[[3, 8]] = torch.tensor([5.0, 7.0])

    def holds(rule: Any) -> bool:
        made = make(rule, (20,), torch.float32)
        return made[3] == 5.0 and made[8] == 7.0

    asked, _ = trials()
    found = simplest(tensor, holds, asked, "x")
    assert found is not None
    assert found["elements"] == [[[3], 5.0], [[8], 7.0]]


def test_a_single_short_number_stays_what_the_model_had() -> None:
    asked, _ = trials()
    found = simplest(torch.tensor([55008.0], dtype=torch.float16), lambda rule: True, asked, "x")
    assert found == {"kind": "constant", "value": 55008.0}


def test_too_many_values_are_none() -> None:
    asked, _ = trials()
    assert simplest(torch.randn(4000), lambda rule: False, asked, "x") is None


@pytest.mark.parametrize("tensor", [torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)])
def test_a_tensor_without_elements_has_a_rule(tensor: Tensor) -> None:
    asked, _ = trials()
    found = simplest(
        tensor, lambda rule: make(rule, tuple(tensor.shape), tensor.dtype).shape == tensor.shape, asked, ""
    )
    assert found == {"kind": "constant", "value": 0}


@pytest.mark.parametrize(
    ("tensor", "kinds"),
    [
        (torch.tensor([True, False, True]), ["constant", "elements", "span"]),
        (torch.tensor([True, False, True, False, True]), ["constant", "elements", "list"]),
        (torch.tensor([3, 1, 2]), ["constant", "elements", "list"]),
        (torch.tensor([1j, 2.0]), ["bytes"]),
        (torch.full((3,), float("nan")), ["constant", "elements", "list"]),
    ],
)
def test_other_kinds_of_numbers_have_rules_too(tensor: Tensor, kinds: list[str]) -> None:
    assert kinds_tried(tensor) == kinds


def test_values_that_have_a_rule_only_get_a_simpler_one() -> None:
    rule = {"kind": "normal", "seed": 0, "mean": 0.0, "std": 0.3}
    tensor = make(rule, (4000,), torch.float32)
    assert kinds_tried(tensor, made_by=rule) == ["constant", "linspace"]
    asked, _ = trials()
    assert simplest(tensor, lambda rule: False, asked, "x", made_by=rule) is rule


def test_when_the_time_is_up_the_values_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.probes.reduce import trials as module

    monkeypatch.setattr(module, "SECONDS", -1.0)
    asked, events = trials()
    tensor = torch.randn(5)
    found = simplest(tensor, lambda rule: True, asked, "x")
    assert found is not None
    assert torch.equal(make(found, (5,), torch.float32), tensor)
    assert events == []


@pytest.mark.parametrize(("digits", "expected"), [(1, 7e4), (2, 6.8e4), (3, 6.84e4)])
def test_rounding_is_to_significant_digits(digits: int, expected: float) -> None:
    assert rounded_to(68394.9, digits) == expected
