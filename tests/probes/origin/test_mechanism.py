"""Each word of the vocabulary, from numbers whose arithmetic is done by hand."""

import math

import pytest
import torch
from support.handmade import INF, NAN, Function, born_at, tape_of
from torch.nn import functional as F

from repro.probes.origin.mechanism import classify, limit_of
from repro.probes.origin.search import earliest

HALF, SINGLE, DOUBLE = torch.float16, torch.float32, torch.float64
aten = torch.ops.aten


def word(function, *values, dtype=SINGLE):
    """The mechanism of the one fault in a function of one tensor."""
    given = values[0] if isinstance(values[0], torch.Tensor) else torch.tensor(values, dtype=dtype)
    origin = earliest(tape_of(Function(function), given))
    return classify(origin)[0]


# --- the limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "bits", "exponent"), [(HALF, 10, 15), (torch.bfloat16, 7, 127), (SINGLE, 23, 127), (DOUBLE, 52, 1023)]
)
def test_the_limit_of_a_dtype(dtype, bits, exponent):
    assert limit_of(dtype) == math.ldexp(2 - 2.0**-bits, exponent)


# --- overflow: finite inputs, the result beyond the limit --------------------------------------------------------

OVERFLOWS = {
    "product": (lambda x: x * x, 1e30, SINGLE),
    "sum": (lambda x: x + x, 3e38, SINGLE),
    "difference": (lambda x: -x - x, 3e38, SINGLE),
    "quotient": (lambda x: x / 1e-30, 1e30, SINGLE),
    "quotient of tensors": (lambda x: x / torch.tensor([1e-30]), 1e30, SINGLE),
    "exponential": (torch.exp, 1000.0, SINGLE),
    "hyperbolic sine": (torch.sinh, 100.0, SINGLE),
    "square": (lambda x: x.pow(2), 1e30, SINGLE),
    "cube in float16": (lambda x: x.pow(3), 100.0, HALF),
    "square in float16": (torch.square, 300.0, HALF),
    "product in float16": (lambda x: x * 2, 60000.0, HALF),
    "product in float64": (lambda x: x * x, 1e200, DOUBLE),
    "quotient in float64": (lambda x: x / torch.tensor([1e-200], dtype=DOUBLE), 1e200, DOUBLE),
    "reciprocal of a subnormal": (torch.reciprocal, 1e-40, SINGLE),
    "reciprocal in float16": (torch.reciprocal, 6e-8, HALF),
    "cast": (lambda x: x.to(HALF), 1e5, SINGLE),
    "cast to float32": (lambda x: x.float(), 1e39, DOUBLE),
    "cast to bfloat16": (lambda x: x.bfloat16(), 3.4e38, SINGLE),
    "sum in float16": (lambda x: x.expand(4).sum(), 60000.0, HALF),
    "running sum in float16": (lambda x: x.expand(4).cumsum(0), 60000.0, HALF),
    "norm in float16": (lambda x: x.expand(4).norm(), 60000.0, HALF),
    "variance": (lambda x: torch.stack([x, -x]).var(), 1e30, SINGLE),
    "matrix product": (lambda x: x.reshape(1, 1) @ x.reshape(1, 1), 1e30, SINGLE),
    "power beyond float64": (lambda x: x.pow(20), 1e20, SINGLE),
    "power in float64": (lambda x: x.pow(2), 1e200, DOUBLE),
    "reciprocal of a subnormal in float64": (torch.reciprocal, 1e-310, DOUBLE),
}


BEYOND = {"power beyond float64", "power in float64", "reciprocal of a subnormal in float64"}


@pytest.mark.parametrize("name", sorted(OVERFLOWS))
def test_an_overflow(name):
    function, value, dtype = OVERFLOWS[name]
    assert word(function, value, dtype=dtype) == "overflow"


def test_a_scalar_beyond_the_dtype():
    """4e38 is infinite as a float32, so all is infinite, whatever it is multiplied with."""
    assert word(lambda x: x * 4e38, 1e-3) == "overflow"


def test_the_value_that_float64_gives():
    origin = earliest(tape_of(Function(lambda x: x * x), torch.tensor([0.0, 300.0], dtype=HALF)))
    assert classify(origin) == ("overflow", 90000.0, None)


# --- divide by zero: an exact infinity from finite operands ------------------------------------------------------

POLES = {
    "1/0": (lambda x: 1 / x, 0.0),
    "-1/0": (lambda x: -1 / x, 0.0),
    "1/-0": (lambda x: 1 / x, -0.0),
    "reciprocal": (torch.reciprocal, 0.0),
    "rsqrt": (torch.rsqrt, 0.0),
    "log": (torch.log, 0.0),
    "log2": (torch.log2, 0.0),
    "log10": (torch.log10, 0.0),
    "log1p": (torch.log1p, -1.0),
    "pow": (lambda x: x.pow(-1.0), 0.0),
    "pow half": (lambda x: x.pow(-0.5), 0.0),
    "tensor pow": (lambda x: torch.pow(x, torch.tensor([-2.0])), 0.0),
    "atanh": (torch.atanh, 1.0),
    "by an integer zero": (lambda x: (x + 1) / torch.tensor([0]), 0.0),
    "by the number zero": (lambda x: (x + 1) / 0, 0.0),
    "true_divide": (lambda x: torch.true_divide(torch.ones(1), x), 0.0),
}


@pytest.mark.parametrize("dtype", [SINGLE, HALF, DOUBLE], ids=str)
@pytest.mark.parametrize("name", sorted(POLES))
def test_a_pole(name, dtype):
    function, value = POLES[name]
    assert word(function, value, dtype=dtype) == "divide_by_zero"


def test_an_overflow_beside_a_pole_is_told_by_its_own_element():
    def function(x):
        return x / torch.tensor([1e-300, 0.0], dtype=DOUBLE)

    assert word(function, 1e300, 1.0, dtype=DOUBLE) == "overflow"


# --- invalid: no number is the answer ----------------------------------------------------------------------------

INVALID = {
    "0/0": (lambda x: x / x, 0.0),
    "sqrt": (torch.sqrt, -1.0),
    "rsqrt": (torch.rsqrt, -1.0),
    "log": (torch.log, -1.0),
    "acos": (torch.acos, 2.0),
    "pow": (lambda x: x.pow(0.5), -2.0),
    "remainder": (lambda x: torch.fmod(x + 1, x), 0.0),
    "mean of nothing": (lambda x: x[:0].mean(), 1.0),
}


@pytest.mark.parametrize("name", sorted(INVALID))
def test_what_is_invalid(name):
    function, value = INVALID[name]
    assert word(function, value) == "invalid"


def test_a_layer_norm_of_a_constant_row_without_epsilon():
    assert word(lambda x: F.layer_norm(x, (2,), eps=0.0), 1.0, 1.0) in ("invalid", "divide_by_zero")


# --- masked row --------------------------------------------------------------------------------------------------


def test_a_softmax_of_minus_infinity_throughout():
    assert word(lambda x: torch.full_like(x, -INF).softmax(-1), 1.0, 2.0) == "masked_row"


def attention(mask, query=1.0, value=1.0):
    """One head, two queries, three keys, four channels."""

    def function(x):
        q, k, v = (torch.full((1, 1, n, 4), f) for n, f in ((2, query), (3, query), (3, value)))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask) + x

    return function


FUSED = aten._scaled_dot_product_flash_attention_for_cpu.default


def fused(mask, query=1.0, dtype=SINGLE, value=1.0):
    """The word for a fused kernel that gave NaN for query 1, channel 2."""
    q, k, v = (torch.full((1, 1, n, 4), f, dtype=dtype) for n, f in ((2, query), (3, query), (3, value)))
    output = torch.ones(1, 1, 2, 4, dtype=dtype)
    output[0, 0, 1] = NAN
    return classify(
        born_at(FUSED, q, k, v, 0.0, False, *([] if mask is None else [mask]), output=output, index=(0, 0, 1, 2))
    )


def test_a_boolean_mask_that_leaves_a_query_no_key():
    mask = torch.tensor([[True, True, True], [False, False, False]])
    origin_word = fused(mask)[0]
    assert origin_word == "masked_row"


def test_a_float_mask_that_leaves_a_query_no_key():
    assert fused(torch.tensor([[0.0, 0.0, 0.0], [-INF, -INF, -INF]]))[0] == "masked_row"


def test_a_mask_of_four_dimensions():
    mask = torch.tensor([[True, True, True], [False, False, False]]).reshape(1, 1, 2, 3)
    assert fused(mask)[0] == "masked_row"


def test_another_querys_masked_row_is_not_this_ones():
    mask = torch.tensor([[False, False, False], [True, True, True]])
    assert fused(mask)[0] == "kernel"


def test_a_fused_score_that_overflows():
    """q . k = 4 * 300 * 300 = 360000, beyond float16 before it is scaled."""
    found, reference, note = fused(None, 300.0, HALF)
    assert (found, reference) == ("overflow", 1.0)
    assert "360000" in note


def test_a_fused_kernel_that_has_no_excuse():
    assert fused(None)[:2] == ("kernel", 1.0)


# --- overflow inside: the result fits, a partial result does not -------------------------------------------------


def partial(func, *args, output, index=()):
    return classify(born_at(func, *args, output=output, index=index))[0]


def test_a_mean_whose_sum_overflows():
    values = torch.full((4,), 60000.0, dtype=HALF)
    assert partial(aten.mean.default, values, output=torch.tensor(INF, dtype=HALF)) == "overflow"


def test_a_sum_whose_partial_sum_overflows():
    values = torch.tensor([60000.0, 60000.0, -60000.0], dtype=HALF)
    assert partial(aten.sum.default, values, output=torch.tensor(INF, dtype=HALF)) == "overflow"


def test_a_norm_whose_squares_overflow():
    values = torch.tensor([3000.0, 4000.0], dtype=HALF)
    assert partial(aten.norm.Scalar, values, output=torch.tensor(INF, dtype=HALF)) == "overflow"


def test_a_layer_norm_whose_squares_overflow():
    values, shape = torch.tensor([[1e25, -1e25]]), [2]
    found = partial(
        aten.native_layer_norm.default, values, shape, None, None, 1e-5, output=torch.full((1, 2), NAN), index=(0, 0)
    )
    assert found == "overflow"


def test_a_dot_product_whose_terms_cancel():
    left, right = torch.tensor([[60000.0, 60000.0]], dtype=HALF), torch.tensor([[2.0], [-2.0]], dtype=HALF)
    assert partial(aten.mm.default, left, right, output=torch.full((1, 1), NAN, dtype=HALF), index=(0, 0)) == "overflow"


def test_a_product_over_a_dimension_whose_partial_product_overflows():
    """1e20 * 1e20 is beyond float32; times 1e-20 it would fit again."""
    assert word(lambda x: x.prod(), 1e20, 1e20, 1e-20) == "overflow"


def test_a_sum_over_the_first_dimension_whose_partial_sum_overflows():
    assert word(lambda x: x.reshape(4, 1).sum(0), 3e38, 3e38, -3e38, -3e38) == "overflow"


def test_a_sum_over_two_dimensions_whose_partial_sum_overflows():
    values = torch.tensor([[60000.0], [60000.0], [-60000.0]], dtype=HALF)
    assert partial(aten.sum.default, values, output=torch.tensor(INF, dtype=HALF)) == "overflow"


def test_a_convolution_whose_terms_cancel():
    values = torch.tensor([[[60000.0, 60000.0]]], dtype=HALF)
    kernel = torch.tensor([[[2.0, -2.0]]], dtype=HALF)
    arguments = (values, kernel, None, [1], [0], [1], False, [0], 1)
    output = torch.full((1, 1, 1), NAN, dtype=HALF)
    assert partial(aten.convolution.default, *arguments, output=output, index=(0, 0, 0)) == "overflow"


# --- kernel and unknown: nothing of the above --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("func", "arguments"),
    [
        (aten.add.Tensor, (torch.ones(2), torch.ones(2))),
        (aten.mul.Tensor, (torch.ones(2), 0.5)),
        (aten.softmax.int, (torch.ones(2), 0)),
        (aten.gelu.default, (torch.ones(2),)),
    ],
    ids=["add", "mul", "softmax", "gelu"],
)
def test_a_kernel_that_gives_nan_of_small_numbers(func, arguments):
    assert partial(func, *arguments, output=torch.full((2,), NAN), index=(1,)) == "kernel"


def test_a_product_of_small_numbers_that_is_nan():
    assert (
        partial(aten.mm.default, torch.ones(1, 2), torch.ones(2, 1), output=torch.full((1, 1), NAN), index=(0, 0))
        == "kernel"
    )


def test_a_cast_of_a_small_number_is_no_kernels_fault():
    assert partial(aten._to_copy.default, torch.ones(1), output=torch.full((1,), NAN), index=(0,)) == "unknown"
