"""Each word of the vocabulary, from numbers whose arithmetic is done by hand."""

import math

import pytest
import torch
from support.handmade import INF, NAN, Function, tape_of
from torch.nn import functional as F

from repro.probes.origin.arithmetic import limit_of
from repro.probes.origin.attention import KNOWN
from repro.probes.origin.mechanism import classify
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
    assert word(lambda x: x * 4e38, 1e-3) == "literal"


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


@pytest.fixture(scope="module")
def naive():
    """Operators whose partial results have their inputs' dtype, and some that are wrong."""
    library = torch.library.Library("naive", "DEF")

    def define(schema, function):
        library.define(schema)
        library.impl(schema.split("(")[0], function, "CPU")

    define("total(Tensor x) -> Tensor", total)
    define("mean(Tensor x) -> Tensor", lambda x: total(x) / x.numel())
    define("norm(Tensor x) -> Tensor", lambda x: total(x * x).sqrt())
    define("centred(Tensor x) -> Tensor", centred)
    define("softplus(Tensor x) -> Tensor", lambda x: torch.log(torch.exp(x) + 1))
    define("dot(Tensor x, Tensor y) -> Tensor", lambda x, y: total(x * y))
    define("total_(Tensor(a!) x) -> ()", total_)
    define("wrong(Tensor x) -> Tensor", lambda x: x * NAN if x.dtype == SINGLE else x.clone())
    define("wrong_at_three(Tensor x) -> Tensor", lambda x: x * NAN if float(x[0]) == 3e5 else x.clone())
    define(
        "wrong_above_five(Tensor x) -> Tensor", lambda x: x * NAN if float(x[0]) > 5 and x.dtype == SINGLE else x * 1
    )
    define("shy(Tensor x) -> Tensor", Shy())
    define(ATTENTION + " -> Tensor", attention)
    define(
        ATTENTION.replace("product", "product_wrong") + " -> Tensor", lambda q, *_, **__: attention(q, *_, **__) * NAN
    )
    yield torch.ops.naive
    library._destroy() if hasattr(library, "_destroy") else None


ATTENTION = (
    "scaled_dot_product(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.,"
    " bool is_causal=False, *, float? scale=None, bool enable_gqa=False)"
)


WRONG = ATTENTION.replace("product", "product_wrong")


def total(x):
    made = torch.zeros((), dtype=x.dtype)
    for value in x.reshape(-1):
        made = made + value
    return made


def total_(x):
    x.copy_(total(x))


def centred(x):
    """A norm that squares before it subtracts."""
    mean = total(x) / x.numel()
    return (x - mean) / (total(x * x) / x.numel() - mean * mean).sqrt()


def wrong_above_five(x):
    return x * NAN if float(x[0]) > 5 and x.dtype == SINGLE else x * 1


class Shy:
    """Wrong the first time only, as code is that races."""

    def __init__(self):
        self.asked = 0

    def __call__(self, x):
        self.asked += 1
        return x * NAN if self.asked == 1 else x * 1


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Scores before scaling in the inputs' dtype; a row without a key is NaN."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -INF)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -INF) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, -1) @ v


def fused(op, mask=None, query=1.0, dtype=SINGLE, heads=1, **more):
    """(mechanism, reference, note) of an attention of two queries, three keys and four channels."""
    q, k, v = (
        torch.full((1, h, n, 4), f, dtype=dtype) for h, n, f in ((2, 2, query), (heads, 3, query), (heads, 3, 1.0))
    )
    origin = earliest(tape_of(Function(lambda x: op(q, k, v, mask, **more)), torch.ones(1)))
    return classify(origin)


def test_a_boolean_mask_that_leaves_a_query_no_key(naive):
    mask = torch.tensor([[True, True, True], [False, False, False]])
    assert fused(naive.scaled_dot_product, mask)[0] == "masked_row"


def test_a_float_mask_that_leaves_a_query_no_key(naive):
    mask = torch.tensor([[0.0, 0.0, 0.0], [-INF, -INF, -INF]])
    assert fused(naive.scaled_dot_product, mask)[0] == "masked_row"


def test_a_mask_of_four_dimensions(naive):
    mask = torch.tensor([[True, True, True], [False, False, False]]).reshape(1, 1, 2, 3)
    assert fused(naive.scaled_dot_product, mask)[0] == "masked_row"


def test_a_mask_that_is_written_as_the_lowest_number(naive):
    """Scores of -2 and the lowest number of float16 are -inf in float16, the whole row."""
    mask = torch.full((2, 3), torch.finfo(HALF).min, dtype=HALF)
    q, k = torch.full((1, 1, 2, 4), -200.0, dtype=HALF), torch.full((1, 1, 3, 4), 80.0, dtype=HALF)
    origin = earliest(tape_of(Function(lambda x: naive.scaled_dot_product(q, k, k, mask)), torch.ones(1)))
    assert classify(origin)[0] == "masked_row"


def test_another_querys_masked_row_is_not_this_ones(naive):
    mask = torch.tensor([[True, True, True], [False, False, False]])
    assert fused(naive.scaled_dot_product_wrong, mask)[:2] == ("kernel", 1.0)


def test_a_fused_score_that_overflows(naive):
    """q . k = 4 * 300 * 300 = 360000, beyond float16 before it is scaled."""
    found, reference, note = fused(naive.scaled_dot_product, None, 300.0, HALF)
    assert (found, reference) == ("overflow", 1.0)
    assert "360000" in note


def test_a_fused_kernel_that_has_no_excuse(naive):
    assert fused(naive.scaled_dot_product_wrong)[:2] == ("kernel", 1.0)


def test_a_fused_kernel_whose_heads_share_keys(naive):
    assert fused(naive.scaled_dot_product_wrong, heads=2, scale=0.3)[:2] == ("kernel", 1.0)
    assert fused(naive.scaled_dot_product_wrong, enable_gqa=True)[:2] == ("kernel", 1.0)


def test_a_dropout_cannot_be_held_against_anything(naive):
    assert fused(naive.scaled_dot_product_wrong, dropout_p=0.1)[0] == "unknown"


def test_a_causal_triangle_of_two_lengths_is_not_known_here(naive):
    assert fused(naive.scaled_dot_product_wrong, is_causal=True)[0] == "unknown"


def test_a_causal_row_reads_no_later_key(naive):
    """Query 0 sees key 0 alone; the others are so large that float64 would notice."""
    q = k = torch.ones(1, 1, 3, 4)
    v = torch.tensor([1.0, 9.0, 9.0]).reshape(1, 1, 3, 1).expand(1, 1, 3, 4)
    function = Function(lambda x: naive.scaled_dot_product_wrong(q, k, v, None, 0.0, True))
    assert classify(earliest(tape_of(function, torch.ones(1))))[:2] == ("kernel", 1.0)


@pytest.mark.parametrize("name", [name for name in dir(torch.ops.aten) if name.startswith("_scaled_dot_product")])
def test_every_fused_attention_of_this_torch_has_arguments_that_are_known(name):
    for overload in getattr(aten, name).overloads():
        names = [argument.name for argument in getattr(getattr(aten, name), overload)._schema.arguments]
        if "backward" in name or overload == "quantized":
            continue
        assert names[:3] == ["query", "key", "value"]
        assert set(names) <= KNOWN | {"dropout_p", "dropout_mask"}


# --- overflow inside: the result fits, a partial result does not -------------------------------------------------


def found(function, values, dtype):
    return classify(earliest(tape_of(Function(function), torch.tensor(values, dtype=dtype))))


PARTIAL = {
    "mean": ("mean", [60000.0] * 4, HALF, 60000.0),
    "total": ("total", [60000.0, 60000.0, -60000.0], HALF, 60000.0),
    "norm": ("norm", [3000.0, 4000.0], HALF, 5000.0),
    "norm in float32": ("norm", [3e30, 4e30], SINGLE, 5e30),
    "centred": ("centred", [1e25, 3e25], SINGLE, -1.0),
    "softplus": ("softplus", [100.0], SINGLE, 100.0),
}


@pytest.mark.parametrize("name", sorted(PARTIAL))
def test_a_partial_result_that_overflows(naive, name):
    op, values, dtype, exact = PARTIAL[name]
    mechanism, reference, note = found(getattr(naive, op), values, dtype)
    assert (mechanism, reference) == ("overflow", pytest.approx(exact, rel=1e-6))
    assert "partial result" in note


def test_a_dot_product_whose_terms_cancel(naive):
    y = torch.tensor([2.0, -2.0], dtype=HALF)
    assert found(lambda x: naive.dot(x, y), [60000.0, 60000.0], HALF)[0] == "overflow"


def test_an_operator_that_gives_nothing_back(naive):
    def function(x):
        memory = x + 0
        naive.total_(memory)
        return memory

    assert found(function, [60000.0, 60000.0, -60000.0], HALF)[0] == "overflow"


def test_a_product_over_a_dimension_whose_partial_product_overflows():
    """1e20 * 1e20 is beyond float32; times 1e-20 it would fit again."""
    assert word(lambda x: x.prod(), 1e20, 1e20, 1e-20) == "overflow"


def test_a_sum_over_the_first_dimension_whose_partial_sum_overflows():
    assert word(lambda x: x.reshape(4, 1).sum(0), 3e38, 3e38, -3e38, -3e38) == "overflow"


# --- kernel and unknown: nothing of the above --------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1.0, 2.0], [1e30, 2.0], [0.0], [1e-40]])
def test_a_kernel_that_gives_nan_of_numbers(naive, values):
    assert found(naive.wrong, values, SINGLE)[:2] == ("kernel", pytest.approx(values[0], rel=1e-6))


def test_a_kernel_that_is_wrong_for_one_number_is_no_overflow(naive):
    assert found(lambda x: naive.wrong_at_three(x.float()), [3e5], DOUBLE)[0] == "invalid"  # as float64 has it too
    assert found(naive.wrong_above_five, [6.0], SINGLE)[0] == "kernel"


def test_a_value_that_does_not_come_again_is_not_explained(naive):
    mechanism, _, note = found(naive.shy, [1.0], SINGLE)
    assert mechanism == "unknown"
    assert "run again" in note
