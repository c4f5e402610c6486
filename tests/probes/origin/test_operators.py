"""One operator, its inputs, a dtype, and the mechanism that the mathematics has for it: a table, case by case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.handmade import INF, NAN, Function, tape_of
from torch import Tensor
from torch.nn import functional as F

from repro.probes.origin.mechanism import classify
from repro.probes.origin.outside import literal_in_source
from repro.probes.origin.search import earliest
from repro.probes.origin.walk import End

HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64
NARROW = (HALF, BRAIN, SINGLE)
FLOAT = (SINGLE,)
Case = tuple[Callable[[Tensor], Any], list[float], tuple[torch.dtype, ...]]


def out(function: Callable[..., Any], *more: Any) -> Callable[[Tensor], Any]:
    """The form that writes into a tensor that is given."""
    return lambda x: function(x, *more, out=torch.zeros_like(x))


POLES: dict[str, Case] = {
    "log(0)": (torch.log, [0.0], NARROW),
    "log_(0)": (lambda x: (x + 0).log_(), [0.0], NARROW),
    "log(0), out": (out(torch.log), [0.0], NARROW),
    "log2(0)": (torch.log2, [0.0], NARROW),
    "log1p(-1)": (torch.log1p, [-1.0], NARROW),
    "log1p_(-1)": (lambda x: (x + 0).log1p_(), [-1.0], NARROW),
    "atanh(1)": (torch.atanh, [1.0], NARROW),
    "atanh(-1)": (torch.atanh, [-1.0], NARROW),
    "erfinv(1)": (torch.special.erfinv, [1.0], NARROW),
    "erfinv(-1)": (torch.special.erfinv, [-1.0], FLOAT),
    "erfinv_(1)": (lambda x: (x + 0).erfinv_(), [1.0], FLOAT),
    "logit(1)": (torch.logit, [1.0], NARROW),
    "logit(0)": (torch.logit, [0.0], NARROW),
    "lgamma(0)": (torch.lgamma, [0.0], NARROW),
    "lgamma(-1)": (torch.lgamma, [-1.0], NARROW),
    "digamma(0)": (torch.digamma, [0.0], FLOAT),
    "polygamma(1, 0)": (lambda x: torch.polygamma(1, x), [0.0], FLOAT),
    "polygamma(2, 0)": (lambda x: torch.polygamma(2, x), [0.0], FLOAT),
    "zeta(1, 2)": (lambda x: torch.special.zeta(x, 2.0), [1.0], FLOAT),
    "0**-1": (lambda x: x.pow(-1), [0.0], NARROW),
    "0**-300": (lambda x: x.pow(-300.0), [0.0], FLOAT),
    "number ** tensor": (lambda x: torch.pow(0.0, x), [-2.0], FLOAT),
    "tensor ** tensor": (lambda x: torch.pow(x, torch.full_like(x, -2.0)), [0.0], NARROW),
    "rsqrt(0)": (torch.rsqrt, [0.0], NARROW),
    "rsqrt_(0)": (lambda x: (x + 0).rsqrt_(), [0.0], NARROW),
    "reciprocal(0)": (torch.reciprocal, [0.0], NARROW),
    "1/0": (lambda x: 1 / x, [0.0], NARROW),
    "x/0.0": (lambda x: x / 0.0, [1.0], NARROW),
    "x.div_(0)": (lambda x: (x + 0).div_(torch.zeros_like(x)), [1.0], NARROW),
    "div, out": (lambda x: torch.div(x, torch.zeros_like(x), out=torch.zeros_like(x)), [1.0], NARROW),
    "floor_divide by 0": (lambda x: x // torch.zeros_like(x), [1.0], FLOAT),
    "addcdiv by 0": (lambda x: torch.addcdiv(x, x, torch.zeros_like(x)), [1.0], NARROW),
    "addcdiv_ by 0": (lambda x: (x + 0).addcdiv_(x, torch.zeros_like(x)), [1.0], FLOAT),
    "xlogy(1, 0)": (lambda x: torch.xlogy(torch.ones_like(x), x), [0.0], NARROW),
    "xlog1py(1, -1)": (lambda x: torch.special.xlog1py(torch.ones_like(x), x), [-1.0], FLOAT),
    "foreach_div": (lambda x: torch._foreach_div([x], [torch.zeros_like(x)])[0], [1.0], NARROW),
    "foreach_div_": (lambda x: _written(torch._foreach_div_, x + 0, [torch.zeros_like(x)]), [1.0], NARROW),
    "foreach_div by a number": (lambda x: torch._foreach_div([x, x], 0.0)[1], [1.0], FLOAT),
    "foreach_log": (lambda x: torch._foreach_log([x + 1, x])[1], [0.0], NARROW),
    "foreach_log_": (lambda x: _written(torch._foreach_log_, x + 0), [0.0], NARROW),
    "foreach_reciprocal": (lambda x: torch._foreach_reciprocal([x])[0], [0.0], FLOAT),
    "a divisor that underflowed": (lambda x: (x + 1) / (x * x), [1e-5], (HALF,)),
    "a float32 divisor that underflowed": (lambda x: (x + 1) / (x * x), [1e-30], FLOAT),
    "binary cross entropy, not clamped": (lambda x: torch.log(1 - x), [1.0], NARROW),
    "pole in a row of numbers": (torch.log, [1.0, 2.0, 0.0, 5.0], NARROW),
    "kl of a zero": (lambda x: torch.log(x).sum(), [0.0, 1.0], FLOAT),
    "pole in float64": (torch.special.erfinv, [1.0], (DOUBLE,)),
}
INVALID: dict[str, Case] = {
    "0/0": (lambda x: x / x, [0.0], NARROW),
    "0/0.0": (lambda x: x / 0.0, [0.0], NARROW),
    "fmod by 0": (lambda x: torch.fmod(x, torch.zeros_like(x)), [1.0], NARROW),
    "remainder by 0": (lambda x: torch.remainder(x, 0.0), [1.0], FLOAT),
    "acosh(0.5)": (torch.acosh, [0.5], NARROW),
    "acos(2)": (torch.acos, [2.0], NARROW),
    "asin(2)": (torch.asin, [2.0], NARROW),
    "atanh(2)": (torch.atanh, [2.0], FLOAT),
    "log(-1)": (torch.log, [-1.0], NARROW),
    "log1p(-2)": (torch.log1p, [-2.0], NARROW),
    "sqrt(-1)": (torch.sqrt, [-1.0], NARROW),
    "sqrt_(-1)": (lambda x: (x + 0).sqrt_(), [-1.0], NARROW),
    "rsqrt(-1)": (torch.rsqrt, [-1.0], NARROW),
    "sqrt of a huge negative number": (torch.sqrt, [-1e38], FLOAT),
    "acos of a huge number in float64": (torch.acos, [1e200], (DOUBLE,)),
    "(-2)**0.5": (lambda x: x.pow(0.5), [-2.0], NARROW),
    "logit(2)": (torch.logit, [2.0], FLOAT),
    "erfinv(2)": (torch.special.erfinv, [2.0], FLOAT),
    "std of one element": (lambda x: x.std(), [3.0], NARROW),
    "var of one element": (lambda x: x.var(), [3.0], NARROW),
    "var of one element in a dimension": (lambda x: x.reshape(2, 1).var(1), [3.0, 4.0], FLOAT),
    "a mask times zero": (lambda x: torch.full_like(x, -INF) * (x - x), [1.0], NARROW),
    "a mask less a mask": (lambda x: torch.full_like(x, -INF) - torch.full_like(x, -INF), [1.0], FLOAT),
    "infinity, written as a number, times zero": (lambda x: x * INF, [0.0], FLOAT),
    "foreach_sqrt": (lambda x: torch._foreach_sqrt([x])[0], [-1.0], FLOAT),
    "cross entropy over no label": (
        lambda x: F.cross_entropy(x.reshape(1, 2), torch.tensor([-100])), [1.0, 2.0], NARROW
    ),
    "normalised zeros without epsilon": (lambda x: F.normalize(x, dim=0, eps=0.0), [0.0, 0.0], NARROW),
    "a group norm of a constant without epsilon": (
        lambda x: F.group_norm(x.reshape(1, 2, 2), 1, eps=0.0), [1.0] * 4, FLOAT
    ),
    "a mask less the logarithm of its sum": (
        lambda x: torch.full_like(x, -INF) - torch.full_like(x, -INF).logsumexp(0), [1.0, 2.0], NARROW
    ),
    "a softmax by hand of a masked row": (
        lambda x: (torch.full_like(x, -INF) - torch.full_like(x, -INF).amax(0)).exp(), [1.0, 2.0], NARROW
    ),
}  # fmt: skip
OVERFLOWS: dict[str, Case] = {
    "exp(1000)": (torch.exp, [1000.0], NARROW),
    "exp_(1000)": (lambda x: (x + 0).exp_(), [1000.0], NARROW),
    "exp(1000), out": (out(torch.exp), [1000.0], NARROW),
    "exp(100) in float32": (torch.exp, [100.0], FLOAT),
    "exp beside zeros": (torch.exp, [0.0, 0.0, 1000.0], NARROW),
    "cosh(1000)": (torch.cosh, [1000.0], NARROW),
    "sinh(-1000)": (torch.sinh, [-1000.0], FLOAT),
    "expm1(1000)": (torch.expm1, [1000.0], NARROW),
    "exp2(20)": (torch.exp2, [20.0], (HALF,)),
    "exp at the edge of float64": (torch.exp, [709.79], (DOUBLE,)),
    "cosh of 711": (torch.cosh, [711.0], (DOUBLE,)),
    "product": (lambda x: x * 3, [30000.0], (HALF,)),
    "product in place": (lambda x: (x + 0).mul_(3), [30000.0], (HALF,)),
    "sum of two": (lambda x: x + x, [40000.0], (HALF,)),
    "a number beyond the dtype in a sum in float32": (lambda x: x * 1e30 * 1e30, [1.0], FLOAT),
    "1/subnormal": (torch.reciprocal, [6e-8], (HALF,)),
    "x/subnormal": (lambda x: torch.ones_like(x) / x, [6e-8], (HALF,)),
    "huge/tiny in float64": (lambda x: x / torch.tensor([1e-300], dtype=DOUBLE), [1e300], (DOUBLE,)),
    "x**20": (lambda x: x.pow(20), [1e20], FLOAT),
    "x**2 in float64": (lambda x: x.pow(2), [1e200], (DOUBLE,)),
    "cast": (lambda x: x.to(HALF), [1e5], FLOAT),
    "addcmul": (lambda x: torch.addcmul(x, x, x), [300.0], (HALF,)),
    "foreach_mul": (lambda x: torch._foreach_mul([x], [x])[0], [300.0], (HALF,)),
    "foreach_exp": (lambda x: torch._foreach_exp([x])[0], [1000.0], FLOAT),
    "square": (torch.square, [1e30], FLOAT),
    "norm of 1e200 in float64": (lambda x: torch.square(x).sum().sqrt(), [1e200], (DOUBLE,)),
    "matrix product": (lambda x: x.reshape(1, 1) @ x.reshape(1, 1), [300.0], (HALF,)),
    "sum": (lambda x: x.expand(4).sum(), [60000.0], (HALF,)),
    "cumsum": (lambda x: x.expand(4).cumsum(0), [60000.0], (HALF,)),
    "partial product": (lambda x: x.prod(), [1e20, 1e20, 1e-20], FLOAT),
    "partial sum": (lambda x: x.reshape(4, 1).sum(0), [3e38, 3e38, -3e38, -3e38], FLOAT),
    "a row of scores that overflows": (
        lambda x: torch.softmax(x.reshape(1, -1) * -3e4, -1), [3.0, 4.0, 5.0], (HALF,)
    ),
    "scores that a product overflows, and softmax": (
        lambda x: torch.log_softmax((x * -1e38) * 9, -1), [1.0, 2.0], FLOAT
    ),
    "lgamma beyond float16": (torch.lgamma, [20000.0], (HALF,)),
    "softplus of nothing special": (lambda x: F.softplus(x) * 2, [60000.0], (HALF,)),
}  # fmt: skip
MASKED: dict[str, Case] = {
    "softmax over the first dimension": (
        lambda x: torch.softmax(x.reshape(3, 2).masked_fill(torch.tensor([[True, False]] * 3), -INF), 0),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], NARROW,
    ),
    "one row of two": (
        lambda x: torch.softmax(x.reshape(2, 2).masked_fill(torch.tensor([[False, True], [True, True]]), -INF), -1),
        [1.0, 2.0, 3.0, 4.0], NARROW,
    ),
    "softmax": (lambda x: torch.full_like(x, -INF).softmax(-1), [1.0, 2.0], NARROW),
    "log_softmax": (lambda x: torch.full_like(x, -INF).log_softmax(-1), [1.0, 2.0], NARROW),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -INF).softmax(-1), [1.0, 2.0], NARROW),
    "where": (lambda x: torch.where(x > 0, -INF, x).softmax(-1), [1.0, 2.0], FLOAT),
    "finfo.min, twice": (
        lambda x: (x + torch.finfo(x.dtype).min + torch.full_like(x, torch.finfo(x.dtype).min)).softmax(-1),
        [-1.0, -2.0], NARROW,
    ),
    "a mask in place": (lambda x: (x + 0).masked_fill_(x > 0, -INF).softmax(-1), [1.0, 2.0], NARROW),
    "a mask of two parts": (
        lambda x: x.masked_fill(torch.tensor([True, False]), -INF)
        .masked_fill(torch.tensor([False, True]), -INF)
        .softmax(-1),
        [1.0, 2.0], FLOAT,
    ),
}  # fmt: skip
LITERALS: dict[str, Case] = {
    "full(nan)": (lambda x: x + torch.full_like(x, NAN), [1.0], NARROW),
    "full(+inf)": (lambda x: x + torch.full_like(x, INF), [1.0], NARROW),
    "full(7e4)": (lambda x: x * torch.full((1,), 7e4, dtype=x.dtype), [1.0], (HALF,)),
    "full(7e4) that becomes NaN": (lambda x: (x - x) * torch.full((1,), 7e4, dtype=x.dtype), [1.0], (HALF,)),
    "new_full(inf) less itself": (lambda x: x.new_full((1,), INF) - x.new_full((1,), INF), [1.0], FLOAT),
    "masked_fill(nan)": (lambda x: x.masked_fill(x > 0, NAN), [1.0], NARROW),
    "masked_fill_(inf)": (lambda x: (x + 0).masked_fill_(x > 0, INF), [1.0], NARROW),
    "where(nan)": (lambda x: torch.where(x > 0, NAN, x), [1.0], FLOAT),
    "fill_(nan)": (lambda x: torch.zeros_like(x).fill_(NAN) + x, [1.0], NARROW),
    "index_fill(inf)": (lambda x: x.index_fill(0, torch.tensor([0]), INF), [1.0], FLOAT),
    "pad with inf": (lambda x: F.pad(x, (1, 1), value=INF), [1.0], FLOAT),
    "a factor of 4e38 whose product would fit": (lambda x: x * 4e38, [1e-3], FLOAT),
    "a factor of nan": (lambda x: x * NAN, [1.0], NARROW),
    "a summand of inf": (lambda x: x + INF, [1.0], NARROW),
    "foreach": (lambda x: torch._foreach_add([x], INF)[0], [1.0], FLOAT),
    "scalar_tensor": (lambda x: x + torch.scalar_tensor(NAN), [1.0], FLOAT),
}


def _written(function: Callable[..., Any], tensor: Tensor, *more: Any) -> Tensor:
    """What an operator that gives nothing back wrote."""
    function([tensor], *more)
    return tensor


TABLES = {
    "divide_by_zero": POLES,
    "invalid": INVALID,
    "overflow": OVERFLOWS,
    "masked_row": MASKED,
    "literal": LITERALS,
}
CASES = [
    pytest.param(function, values, dtype, mechanism, id=f"{mechanism}: {name} {str(dtype)[6:]}")
    for mechanism, table in TABLES.items()
    for name, (function, values, dtypes) in table.items()
    for dtype in dtypes
]


@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*:UserWarning")
@pytest.mark.parametrize(("function", "values", "dtype", "mechanism"), CASES)
def test_the_mechanism(
    function: Callable[[Tensor], Any], values: list[float], dtype: torch.dtype, mechanism: str
) -> None:
    try:
        origin = earliest(tape_of(Function(function), torch.tensor(values, dtype=dtype)))
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" in str(error):
            pytest.skip(str(error))
        raise
    assert origin is not None, "nothing is bad here"
    assert classify(origin)[0] == mechanism, (origin.end, origin.step and origin.step.op.address.op, classify(origin))


def test_an_impossible_alignment_is_the_logarithm_of_zero() -> None:
    """Three labels cannot be told in one frame: whatever the scores are, the probability is 0."""

    def loss(x: Tensor) -> Tensor:
        scores = x.reshape(1, 1, 4).log_softmax(-1)
        lengths = torch.tensor([1]), torch.tensor([3])
        return F.ctc_loss(scores, torch.tensor([[1, 2, 3]]), *lengths, reduction="none")

    origin = earliest(tape_of(Function(loss), torch.tensor([0.1, 0.2, 0.3, 0.4])))
    mechanism, _, note = classify(origin)
    assert mechanism == "divide_by_zero"
    assert note is not None
    assert "for all finite inputs" in note


def test_the_numbers_that_a_literal_names() -> None:
    origin = earliest(tape_of(Function(lambda x: x * torch.full((1,), 7e4, dtype=HALF)), torch.ones(1, dtype=HALF)))
    mechanism, _, note = classify(origin)
    assert (mechanism, note) == ("literal", "the code gives the number 70000 to the operator; float16 ends at 65504")


def test_a_product_with_a_number_beyond_float16_is_an_overflow_where_the_kernel_holds_the_number() -> None:
    """On the CPU the number stays in float32: 1e-3 times it is finite, so it is the product that does not fit."""
    assert torch.isfinite(torch.tensor([1e-3], dtype=HALF) * 7e4).all()
    origin = earliest(tape_of(Function(lambda x: x * 7e4), torch.ones(1, dtype=HALF)))
    assert classify(origin)[0] == "overflow"


def ends(function: Callable[[Tensor], Any]) -> tuple[End, float | None]:
    """How the walk from the function's output ends once the source has been read, and the number it ends at."""
    origin = earliest(tape_of(Function(function), torch.ones(2)))
    assert origin is not None
    found = literal_in_source(origin)
    return found.end, found.literal


def put(x: Tensor) -> Tensor:
    made = x + 0
    made[x > 0] = float("nan")
    return made


def test_a_number_that_the_reading_statement_writes() -> None:
    assert str(ends(put)) == "(<End.BORN: 'born'>, nan)"
    assert ends(lambda x: x * torch.tensor([1.0, float("inf")])) == (End.BORN, INF)
    assert ends(lambda x: (x * torch.tensor([1.0, 7e4], dtype=HALF)).float()) == (End.BORN, 7e4)


def test_what_was_read_or_computed_elsewhere_is_no_literal() -> None:
    read = [1.0, float("nan")]
    assert ends(lambda x: x * torch.tensor(read)) == (End.OUTSIDE, None)
    assert ends(lambda x: x * torch.tensor([1.0, 7.0]) * torch.tensor(read)) == (End.OUTSIDE, None)
