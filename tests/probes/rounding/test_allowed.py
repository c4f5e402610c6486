"""What rounding allows: badly conditioned inputs are sound, and one wrong factor or a narrow sum is not.

Sound results come from PyTorch's own kernels, or from float64 that is rounded once; wrong ones from plain torch.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from repro.probes.rounding.allowed import held
from repro.probes.rounding.part import part_of
from repro.probes.rounding.reference import in_float64

ATEN = torch.ops.aten
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FUSED = ATEN._scaled_dot_product_flash_attention_for_cpu.default
WHOLE = float(1 << 26)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def judged(func, *args, actual=None, exact=True):
    """The result of a call, or another in its place, held against float64."""
    kwargs = args[-1] if isinstance(args[-1], dict) else {}
    args = args[: len(args) - bool(kwargs)]
    with torch.no_grad():
        made = func(*args, **kwargs)
        results = list(made) if isinstance(made, tuple) else [made]
        part = part_of(func, args, kwargs, "seed", results, WHOLE)
        if actual is not None:
            results[0] = actual
        return held(part, 0, part.take(results)[0], in_float64(part)[0], exact)


def cancelling(length):
    """Numbers near 100 that add up to next to nothing."""
    half = 100 + drawn(16, length // 2)
    return torch.cat((half, -half + 1e-3 * drawn(16, length // 2, seed=1)), -1)


def cancelling_product(length, size):
    """Two matrices of numbers as large as ``size``, whose products cancel."""
    left = size * drawn(8, length // 2).sign()
    right = size * (1 + 0.01 * drawn(length // 2, 8, seed=1))
    return torch.cat((left, -left), -1), torch.cat((right, right * (1 + 1e-3)), 0)


def attention(dtype, length=48, large=1.0):
    shape = (2, 4, length, 16)
    query, key, value = (large * drawn(*shape, seed=at) for at in range(3))
    return [tensor.to(dtype) for tensor in (query, key, value)]


def padded(dtype, length=512, real=7):
    """Attention over a text whose places behind the first ones all hold the same, and are not masked."""
    query, key, value = attention(dtype, length)
    for tensor in (key, value):
        tensor[:, :, real:] = tensor[:, :, real - 1 : real].clone()
    return query[:, :, :256], key, value


HARD = {
    "a sum that cancels": lambda dtype: (ATEN.sum.dim_IntList, cancelling(512).to(dtype), [-1]),
    "a mean that cancels": lambda dtype: (ATEN.mean.dim, cancelling(512).to(dtype), [-1]),
    "a sum of a million numbers": lambda dtype: (ATEN.sum.dim_IntList, (0.01 * drawn(1, 1_000_000)).to(dtype), [-1]),
    "a sum of a million positive numbers": lambda dtype: (
        ATEN.sum.dim_IntList, (0.01 * drawn(1, 1_000_000).abs()).to(dtype), [-1],
    ),
    "a sum of everything": lambda dtype: (ATEN.sum.default, (0.01 * drawn(1000, 1000)).to(dtype)),
    "a product of 8192 that cancels": lambda dtype: (
        ATEN.mm.default,
        *(tensor.to(dtype) for tensor in cancelling_product(8192, 1e2 if dtype == torch.float16 else 1e4)),
    ),
    "a product of 8192": lambda dtype: (ATEN.mm.default, drawn(8, 8192).to(dtype), drawn(8192, 8, seed=1).to(dtype)),
    "an addmm whose bias takes the product away": lambda dtype: (
        ATEN.addmm.default, -1000 * torch.ones(8, dtype=dtype), torch.full((8, 1000), 1.0, dtype=dtype),
        (1 + 1e-2 * drawn(1000, 8)).to(dtype),
    ),
    "a variance about a mean of 1e4": lambda dtype: (ATEN.var.correction, (1e4 + drawn(16, 256)).to(dtype), [-1]),
    "a layer norm about a mean of 1e4": lambda dtype: (
        ATEN.native_layer_norm.default, (1e4 + 10 * drawn(16, 256)).to(dtype), [256], None, None, 1e-5,
    ),
    "a softmax of scores of 80": lambda dtype: (ATEN._softmax.default, (80 * drawn(16, 256)).to(dtype), -1, False),
    "a log softmax of scores of 80": lambda dtype: (
        ATEN._log_softmax.default, (80 * drawn(16, 256)).to(dtype), -1, False,
    ),
    "a softmax of equal scores": lambda dtype: (
        ATEN._softmax.default, torch.full((16, 256), 80.0, dtype=dtype), -1, False,
    ),
    "tails of GELU": lambda dtype: (ATEN.gelu.default, torch.linspace(-14, 14, 2001, dtype=torch.float64).to(dtype)),
    "tails of GELU by tanh": lambda dtype: (
        ATEN.gelu.default, torch.linspace(-6, 6, 2001, dtype=torch.float64).to(dtype), {"approximate": "tanh"},
    ),
    "tails of SiLU": lambda dtype: (ATEN.silu.default, torch.linspace(-80, 80, 2001, dtype=torch.float64).to(dtype)),
    "tails of a sigmoid": lambda dtype: (
        ATEN.sigmoid.default, torch.linspace(-80, 80, 2001, dtype=torch.float64).to(dtype),
    ),
    "one over tiny numbers": lambda dtype: (ATEN.reciprocal.default, (drawn(999).abs() * 1e-3 + 1e-3).to(dtype)),
    "the root of tiny numbers": lambda dtype: (ATEN.rsqrt.default, (drawn(999).abs() * 1e-4 + 1e-6).to(dtype)),
    "subnormal numbers times one": lambda dtype: (
        ATEN.mul.Tensor, (drawn(999) * torch.finfo(dtype).tiny / 8).to(dtype), torch.ones(999, dtype=dtype),
    ),
    "a difference of neighbours": lambda dtype: (
        ATEN.sub.Tensor, (1e3 + drawn(999)).to(dtype), (1e3 + drawn(999, seed=1)).to(dtype),
    ),
    "the sine of large angles": lambda dtype: (ATEN.sin.default, (1e3 * drawn(999)).to(dtype)),
    "the logarithm near one": lambda dtype: (ATEN.log.default, (1 + 1e-2 * drawn(999)).to(dtype)),
    "a power": lambda dtype: (ATEN.pow.Tensor_Scalar, (3 * drawn(999)).to(dtype), 3),
    "a running sum": lambda dtype: (ATEN.cumsum.default, drawn(4, 512).to(dtype), -1),
    "a norm": lambda dtype: (ATEN.linalg_vector_norm.default, drawn(16, 512).to(dtype), 2, [-1]),
    "a convolution that cancels": lambda dtype: (
        ATEN.convolution.default, (100 + drawn(1, 64, 32)).to(dtype), (drawn(32, 64, 3) * 0.05).to(dtype), None,
        [1], [1], [1], False, [0], 1,
    ),
    "a product of equal numbers": lambda dtype: (
        ATEN.mm.default, torch.full((8, 4096), 0.1, dtype=dtype), torch.full((4096, 8), 0.3, dtype=dtype),
    ),
    "a pool of equal numbers": lambda dtype: (
        ATEN._adaptive_avg_pool2d.default, torch.full((2, 8, 224, 224), 0.1, dtype=dtype), [1, 1],
    ),
    "a transposed convolution of equal numbers": lambda dtype: (
        ATEN.convolution.default, torch.full((1, 512, 16, 16), 0.1, dtype=dtype),
        torch.full((512, 8, 4, 4), 0.3, dtype=dtype), None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1,
    ),
    "attention": lambda dtype: (FUSED, *attention(dtype)),
    "attention over padding": lambda dtype: (FUSED, *padded(dtype)),
    "attention of scores of 100": lambda dtype: (FUSED, *attention(dtype, large=5.0)),
}  # fmt: skip


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", HARD)
def test_badly_conditioned_inputs_are_sound(name, dtype, exact):
    found = judged(*HARD[name](dtype), exact=exact)
    assert found is not None
    assert not found.is_beyond, found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", HARD)
def test_float64_that_is_rounded_once_is_sound(name, dtype):
    func, *args = HARD[name](dtype)
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    wide = [arg.double() if isinstance(arg, torch.Tensor) else arg for arg in args]
    made = func(*wide, **kwargs)
    made = made[0] if isinstance(made, tuple) else made
    found = judged(func, *args, *([kwargs] if kwargs else []), actual=made.to(dtype))
    assert not found.is_beyond, found


def narrow_sum(values, dtype):
    total = torch.zeros(values.shape[:-1], dtype=dtype)
    for at in range(values.shape[-1]):
        total = (total + values[..., at].to(dtype)).to(dtype)
    return total


def tensor_float(tensor):
    """Rounded to ten bits behind the leading one, as TensorFloat-32 does."""
    mantissa, exponent = torch.frexp(tensor)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


@pytest.mark.parametrize(("dtype", "kept"), [
    (torch.float32, torch.bfloat16), (torch.float32, torch.float16), (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
], ids=str)  # fmt: skip
def test_a_narrow_sum_is_beyond(dtype, kept):
    values = drawn(16, 512).abs().to(dtype)
    actual = narrow_sum(values, kept).to(dtype)
    assert judged(ATEN.sum.dim_IntList, values, [-1], actual=actual).is_beyond


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_product_with_a_narrow_accumulator_is_beyond(dtype):
    left, right = drawn(16, 512).to(dtype), drawn(512, 16, seed=1).to(dtype)
    kept = torch.float16 if dtype == torch.float32 else dtype
    products = left[:, None, :].float() * right.t()[None].float()
    assert judged(ATEN.mm.default, left, right, actual=narrow_sum(products, kept).to(dtype)).is_beyond


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_numbers_excuse_no_wrong_result(dtype):
    left, right = torch.full((8, 4096), 0.1, dtype=dtype), torch.full((4096, 8), 0.3, dtype=dtype)
    products = left[:, None, :].float() * right.t()[None].float()
    kept = torch.bfloat16 if dtype == torch.float32 else dtype
    assert judged(ATEN.mm.default, left, right, actual=narrow_sum(products, kept).to(dtype)).is_beyond
    query, key, value = padded(dtype)
    made = FUSED(query, key, value)[0]
    dropped = FUSED(query, key[:, :, :16], value[:, :, :16])[0]
    assert judged(FUSED, query, key, value, actual=dropped).is_beyond
    assert judged(FUSED, query, key, value, actual=(made.double() * 1.25).to(dtype)).is_beyond


def test_a_pool_of_equal_numbers_with_a_wrong_factor_is_beyond():
    pool = ATEN._adaptive_avg_pool2d.default
    given = torch.full((2, 8, 224, 224), 0.1)
    assert judged(pool, given, [1, 1], actual=pool(given, [1, 1]) * 1.02).is_beyond


def test_inputs_rounded_to_tensor_float_are_beyond_in_float32():
    left, right = drawn(64, 512).float(), drawn(512, 64, seed=1).float()
    actual = (tensor_float(left).double() @ tensor_float(right).double()).float()
    assert judged(ATEN.mm.default, left, right, actual=actual).is_beyond


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_wrong_factor_is_beyond(dtype):
    values = drawn(64, 256).to(dtype)
    wrong = (values.double().softmax(-1) * 1.02).to(dtype)
    assert judged(ATEN._softmax.default, values, -1, False, actual=wrong).is_beyond


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("given", "used"), [(1e-5, 1e-3), (1e-3, 1e-5), (1e-6, 1e-3)])
def test_another_epsilon_is_beyond(dtype, given, used):
    values = (0.02 * drawn(16, 256)).to(dtype)
    wrong = F.layer_norm(values.double(), [256], eps=used).to(dtype)
    assert judged(ATEN.native_layer_norm.default, values, [256], None, None, given, actual=wrong).is_beyond


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_element_of_many_is_enough(dtype):
    left, right = drawn(16, 64).to(dtype), drawn(64, 16, seed=1).to(dtype)
    wrong = (left.double() @ right.double()).to(dtype)
    wrong[3, 5] = 0.0
    found = judged(ATEN.mm.default, left, right, actual=wrong)
    assert found.is_beyond
    assert found.at == (3, 5)
    assert found.value == 0.0
    assert found.reference == pytest.approx(float((left.double() @ right.double())[3, 5]))


def test_a_nan_that_becomes_a_number_is_beyond_and_the_other_way_round():
    values = torch.tensor([1.0, math.nan, 2.0])
    swallowed = judged(ATEN.mul.Tensor, values, torch.ones(3), actual=torch.tensor([1.0, 0.0, 2.0]))
    assert swallowed.swallowed
    assert swallowed.is_beyond
    assert swallowed.at == (1,)
    made = judged(ATEN.mul.Tensor, torch.ones(3), torch.ones(3), actual=torch.tensor([1.0, 1.0, math.nan]))
    assert made.made
    assert made.at == (2,)


def test_two_nans_at_one_place_agree():
    values = torch.tensor([1.0, math.nan, 2.0])
    assert not judged(ATEN.mul.Tensor, values, torch.ones(3)).is_beyond


def test_what_the_dtype_cannot_hold_may_be_infinite_and_not_a_number():
    values = torch.full((4,), 6e4, dtype=torch.float16)
    assert not judged(ATEN.add.Tensor, values, values).is_beyond
    cut_off = torch.full((4,), 65504.0, dtype=torch.float16)
    assert judged(ATEN.add.Tensor, values, values, actual=cut_off).is_beyond


def test_complex_and_empty_results_are_not_judged():
    assert judged(ATEN.mul.Tensor, torch.ones(3, dtype=torch.complex64), 2.0) is None
    assert judged(ATEN.mul.Tensor, torch.ones(0), 2.0) is None


@pytest.mark.parametrize("size", [1.01, 0.99])
def test_a_transposed_convolution_that_is_a_little_off_is_beyond(size):
    x, weight = drawn(1, 32, 12, 12).half(), drawn(32, 8, 4, 4, seed=1).half()
    args = (x, weight, None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1)
    func = torch.ops.aten.convolution.default
    assert not judged(func, *args).is_beyond
    assert judged(func, *args, actual=(func(*args).double() * size).half()).is_beyond


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gelu_of_another_formula_is_beyond(dtype):
    func, x = torch.ops.aten.gelu.default, drawn(4, 96).mul(2).to(dtype)
    assert not judged(func, x).is_beyond
    if dtype == torch.float32:
        assert judged(func, x, actual=func(x, approximate="tanh")).is_beyond
    assert judged(func, x, actual=(x.double() * torch.sigmoid(1.702 * x.double())).to(dtype)).is_beyond


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("apart", [1e-3, 1e-6, 0.0])
def test_distances_of_near_points_by_products_are_sound(apart, dtype):
    """As torch.cdist documents it; that they are far from the truth is shown by the way without products."""
    x = drawn(2, 30, 64).to(dtype)
    func = ATEN._euclidean_dist.default
    assert not judged(func, x, x + apart).is_beyond
    exact = torch.cdist(x.double(), (x + apart).double(), compute_mode="donot_use_mm_for_euclid_dist")
    if dtype == torch.float32 and apart < 1e-4:
        assert float((func(x, x + apart) - exact).abs().max()) > 1e-4


def test_distances_that_are_off_by_a_factor_are_beyond():
    x, y = drawn(2, 30, 64).float(), drawn(2, 40, 64, seed=1).float()
    func = ATEN._euclidean_dist.default
    assert not judged(func, x, y).is_beyond
    assert judged(func, x, y, actual=func(x, y) * 1.0005).is_beyond
