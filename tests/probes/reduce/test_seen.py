"""What the last operator of a few shows by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from repro.probes.reduce.program import Call, Leaf, Program, look
from repro.probes.reduce.seen import Seen

aten = torch.ops.aten
INF = float("inf")


def shown(func: Any, *args: Any, leaves: tuple[Tensor, ...] = (), **kwargs: Any) -> Seen | None:
    return look(Program(leaves, (Call(func, args, kwargs),)))


def test_an_operator_that_takes_and_gives_lists() -> None:
    x, y = torch.ones(2), torch.tensor([1.0, 0.0])
    seen = shown(aten._foreach_div.List, [Leaf(0), Leaf(0)], [Leaf(0), Leaf(1)], leaves=(x, y))
    assert seen is not None
    assert (seen.mechanism, seen.output, seen.index, seen.value) == ("divide_by_zero", 1, (1,), INF)
    assert seen.sound


@pytest.mark.parametrize(
    ("number", "dtype", "limit"), [(float("nan"), torch.float32, None), (INF, torch.float16, 65504.0)], ids=str
)
def test_a_number_that_is_only_written_down(number: float, dtype: torch.dtype, limit: float | None) -> None:
    seen = shown(aten.full.default, [2], number, dtype=dtype)
    assert seen is not None
    assert (seen.mechanism, seen.sound) == ("literal", True)
    assert limit is None or seen.limit == limit


def test_a_mask_is_nothing_that_is_shown() -> None:
    assert shown(aten.full.default, [2], -INF, dtype=torch.float32) is None


def test_a_given_nan_is_no_operators_own() -> None:
    assert shown(aten.add.Tensor, Leaf(0), 1.0, leaves=(torch.tensor([float("nan")]),)) is None


def test_a_row_of_a_mask_is_sound_for_a_masked_row() -> None:
    seen = shown(aten._softmax.default, Leaf(0), 0, False, leaves=(torch.full((3,), -INF),))
    assert seen is not None
    assert (seen.mechanism, seen.sound) == ("masked_row", True)


def test_what_float64_gives_is_expected() -> None:
    seen = shown(aten.mul.Tensor, Leaf(0), Leaf(0), leaves=(torch.tensor([300.0], dtype=torch.float16),))
    assert seen is not None
    assert (seen.mechanism, seen.expected, seen.limit) == ("overflow", 90000.0, 65504.0)
