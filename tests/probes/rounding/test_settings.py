"""Fewer digits that somebody allowed are no fault, and the same digits without leave are one."""

import pytest
import torch

from repro.probes.rounding.allowed import held
from repro.probes.rounding.part import part_of
from repro.probes.rounding.reference import in_float64
from repro.probes.rounding.settings import is_set, permitted

MM = torch.ops.aten.mm.default


def tf32(values: torch.Tensor) -> torch.Tensor:
    """Rounded to the ten bits of TensorFloat-32."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


def asked():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(24, 96, generator=generator), torch.randn(96, 40, generator=generator)
    made = (tf32(a).double() @ tf32(b).double()).float()
    part = part_of(MM, (a, b), {}, "", [made], 1 << 20)
    assert part is not None
    return part, made


@pytest.mark.parametrize(("precision", "beyond"), [("highest", True), ("high", False), ("medium", False)])
def test_tensorfloat32_is_a_fault_only_where_nobody_allowed_it(precision, beyond):
    part, made = asked()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = held(part, 0, made, in_float64(part)[0])
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.is_beyond is beyond


def test_what_multiplies_nothing_is_not_touched_by_the_settings():
    x = torch.randn(8, 8)
    part = part_of(torch.ops.aten.add.Tensor, (x, x), {}, "", [x + x], 1 << 20)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert permitted(part, torch.float32) == 0.0
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("error", "counts"), [(AttributeError, True), (RuntimeError, True), (None, False)])
def test_a_setting_that_this_release_does_not_tell_counts_as_on(error, counts):
    def read() -> bool:
        if error is not None:
            raise error
        return False

    assert is_set(read) is counts
