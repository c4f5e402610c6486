"""Figures of tensors, held against Python's own arithmetic."""

import math
import struct

import pytest
import torch
from support.handmade import INF, NAN

from repro.probes.values import figures as summary
from repro.probes.values.figures import (
    describe,
    digest,
    first_bad_index,
    is_bad,
    same_values,
    tensors_in,
    unravel,
    widen,
)

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float64, torch.float32, *HALVES)
FLOAT8 = [getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_counts_of_what_is_not_finite(dtype):
    figures = describe(torch.tensor([NAN, 1.0, INF, -INF, INF, -2.0, NAN, NAN], dtype=dtype))
    assert (figures["nan"], figures["posinf"], figures["neginf"]) == (3, 2, 1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_range_and_mean_are_those_of_the_finite_elements(dtype):
    figures = describe(torch.tensor([NAN, 1.0, INF, -4.0, -INF], dtype=dtype))
    assert (figures["min"], figures["max"], figures["mean"]) == (-4.0, 1.0, -1.5)


def test_shape_and_dtype_are_told():
    figures = describe(torch.zeros(2, 0, 3, dtype=torch.bfloat16))
    assert figures == {"shape": [2, 0, 3], "dtype": "bfloat16"}


def test_a_tensor_of_nan_only_has_no_range():
    figures = describe(torch.full((2, 2), NAN))
    assert figures["nan"] == 4
    assert all(math.isnan(figures[key]) for key in ("min", "max", "mean"))


def test_a_scalar():
    figures = describe(torch.tensor(-INF))
    assert (figures["shape"], figures["neginf"]) == ([], 1)


def test_integers_have_no_range():
    assert describe(torch.arange(3)) == {"shape": [3], "dtype": "int64"}


def test_a_mean_that_would_overflow_in_float16():
    assert describe(torch.full((100,), 60000.0, dtype=torch.float16))["mean"] == 60000.0


def test_a_mean_that_would_overflow_in_float32():
    large = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    assert describe(torch.full((4,), large))["mean"] == large


def test_a_mean_of_many_small_numbers_keeps_its_digits():
    figures = describe(torch.full((1_000_000,), 0.1))
    assert figures["mean"] == pytest.approx(struct.unpack("<f", struct.pack("<f", 0.1))[0], rel=1e-12)


def test_a_complex_tensor_counts_each_part():
    figures = describe(torch.tensor([complex(NAN, 1.0), complex(2.0, INF)]))
    assert (figures["nan"], figures["posinf"], figures["min"], figures["max"]) == (1, 1, 1.0, 2.0)


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_a_float8_tensor(dtype):
    figures = describe(torch.tensor([1.0, NAN, -2.0]).to(dtype))
    assert (figures["nan"], figures["min"], figures["max"], figures["mean"]) == (1, -2.0, 1.0, -0.5)


def test_a_tensor_that_requires_gradients():
    assert describe(torch.ones(2, requires_grad=True))["mean"] == 1.0


def test_widening_never_narrows():
    assert widen(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_bad_element_is_seen_at_every_place(value):
    for place in range(70):  # longer than a vector register, with a tail
        tensor = torch.zeros(70)
        tensor[place] = value
        assert is_bad(tensor)
        assert first_bad_index(tensor) == [place]


def test_finite_extremes_are_not_bad():
    assert not any(is_bad(torch.tensor([torch.finfo(t).max, -torch.finfo(t).max], dtype=t)) for t in FLOATS)


def test_integers_are_never_bad():
    assert not is_bad(torch.tensor([2**62]))


def test_tensors_of_nested_containers_in_order():
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    found = list(tensors_in({"a": (one, [two, None, "text"]), "b": {"c": three}}))
    assert [id(tensor) for tensor in found] == [id(one), id(two), id(three)]


def test_the_digest_is_over_dtype_shape_and_bytes():
    values = torch.tensor([[1.0, 2.0]])
    others = [values.T.contiguous(), values.double(), torch.tensor([[1.0, 2.5]]), values.view(torch.int32)]
    assert len({digest(tensor) for tensor in [values, *others]}) == 5


def test_the_digest_of_equal_values_is_equal():
    values = torch.arange(6.0).reshape(2, 3)
    assert digest(values) == digest(values.T.contiguous().T) == digest(values.clone())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0),
        torch.tensor(1.5),
        torch.tensor([True, False]),
        torch.tensor([1j]),
        torch.tensor(3, dtype=torch.int8),
        torch.ones(3, dtype=torch.bfloat16),
    ],
    ids=lambda tensor: str(tensor.dtype),
)
def test_every_kind_of_tensor_has_a_digest(tensor):
    assert len(bytes.fromhex(digest(tensor))) == 32


def test_the_digest_tells_zero_from_minus_zero():
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_nan_at_the_same_place_is_equal():
    assert same_values(torch.tensor([NAN, 1.0, INF]), torch.tensor([NAN, 1.0, INF]))


def test_nan_with_another_payload_is_equal():
    one, two = (
        torch.frombuffer(bytearray(struct.pack("<I", bits)), dtype=torch.float32) for bits in (0x7FC00000, 0xFFC00001)
    )
    assert same_values(one, two)


@pytest.mark.parametrize(
    "other",
    [[1.0, NAN, INF], [NAN, 1.0, -INF], [NAN, 1.0000001, INF], [1.0, 1.0, INF], [NAN, 1.0, 3.0]],
)
def test_values_that_differ(other):
    assert not same_values(torch.tensor([NAN, 1.0, INF]), torch.tensor(other))


def test_another_shape_or_dtype_is_not_the_same():
    values = torch.ones(2)
    assert not same_values(values, values.reshape(1, 2))
    assert not same_values(values, values.double())


def test_integers_are_compared():
    assert same_values(torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert not same_values(torch.tensor([1, 2]), torch.tensor([1, 3]))


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_float8_values_are_compared(dtype):
    one, two = torch.tensor([1.0, NAN]).to(dtype), torch.tensor([2.0, NAN]).to(dtype)
    assert same_values(one, one.clone())
    assert not same_values(one, two)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 1, 4), (2, 2, 2, 2), ()])
def test_unravel_is_the_inverse_of_row_major_counting(shape):
    indices = [[]]
    for size in shape:
        indices = [[*index, at] for index in indices for at in range(size)]
    assert [unravel(flat, shape) for flat in range(len(indices))] == indices


def test_the_first_bad_element_in_row_major_order():
    values = torch.zeros(3, 4, dtype=torch.float16)
    values[1, 3] = INF
    values[2, 0] = NAN
    assert first_bad_index(values) == [1, 3]
    assert first_bad_index(values.T) == [0, 2]


def test_the_name_of_a_dtype():
    assert summary.dtype_name(torch.bfloat16) == "bfloat16"
