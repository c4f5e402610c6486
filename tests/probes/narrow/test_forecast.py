"""What would overflow in a narrower dtype, against what plain PyTorch computes in it."""

import copy

import pytest
import torch
from corpus.families import FAMILIES
from support.handmade import load_folder
from torch import nn

from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.model.precision import in_dtype
from repro.probes.model.ready import ready
from repro.probes.narrow.forecast import ABSORBED, OVERFLOWS, SOUND, WRONG, dtypes_here, forecast, smallest_beyond
from repro.probes.narrow.kernels import holds_narrow
from repro.probes.narrow.shadow import CannotFollow
from repro.probes.narrow.words import sentence

CPU = torch.device("cpu")
TOKENS, CHANNELS = 5, 8


class Scaled(nn.Module):
    """A residual stream of three layers, whose ``at``-th one has one large weight; ``norm`` as models have it."""

    def __init__(self, at=1, factor=1.0, wide_norm=True):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.copy_(torch.eye(CHANNELS))
                layer.bias.zero_()
            self.layers[at].weight[3, 3] = factor
        self.wide_norm = wide_norm

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        wide = x.float() if self.wide_norm else x
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True))).to(x.dtype)


class Function(nn.Module):
    """A weight of ones, times the input, through a function."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CHANNELS))
        self.function = function

    def forward(self, x):
        return self.function(x * self.weight)


def told(module, x, dtype=None):
    """The forecast's rows by dtype, of a module and one input."""
    with torch.no_grad():
        loaded, given = ready(module if dtype is None else module.to(dtype), (x if dtype is None else x.to(dtype),))
    found = forecast(loaded, [look(loaded.model, given)])
    return {row["dtype"]: row for row in found["dtypes"]}


def narrow_is_bad(module, x, dtype=torch.float16):
    """Plain PyTorch's answer."""
    with torch.no_grad():
        return not bool(torch.isfinite(copy.deepcopy(module).to(dtype)(x.to(dtype))).all())


def ones(size=1.0):
    x = torch.full((1, TOKENS, CHANNELS), 1.0)
    x[0, 2, 3] = size
    return x


def test_the_first_operator_is_named_and_what_follows_is_listed():
    row = told(Scaled(at=1, factor=10_000.0), ones(10.0))["float16"]
    first = row["first"]
    assert (row["verdict"], first["module"], first["op"]) == (OVERFLOWS, "layers.1", "aten.addmm.default")
    assert (first["element"], first["absmax"]) == ([2, 3], 200_000.0)
    assert [item["module"] for item in row["modules"]] == ["layers.1", "", "layers.2"]
    assert first["ratio"] == 65504.0 / 200_000.0


def test_what_stays_within_says_how_far_it_is_from_the_limit():
    row = told(Scaled(at=1, factor=100.0), ones(10.0))["float16"]
    assert (row["verdict"], row["first"], row["largest"]["absmax"]) == (SOUND, None, 4040.0)
    assert row["largest"]["ratio"] == 65504.0 / 4040.0


def far(module, x):
    """How far plain PyTorch's float16 is from its float32, as a root mean square."""
    with torch.no_grad():
        return float((copy.deepcopy(module).half()(x.half()).float() - module(x)).square().mean().sqrt())


@pytest.mark.parametrize(("wide_norm", "verdict"), [(True, SOUND), (False, WRONG)])
def test_what_the_model_casts_to_float32_is_not_beyond_float16(wide_norm, verdict):
    module, x = Scaled(at=1, factor=100.0, wide_norm=wide_norm), ones(10.0)  # 4040 squared is beyond it
    row = told(module, x)["float16"]
    assert not narrow_is_bad(module, x)  # the square root of 1 / inf is 0
    assert (row["verdict"], row["absorbed"]) == (verdict, 0)


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x: x * torch.rsqrt((x * 300).pow(2).mean(-1, keepdim=True)), "aten.pow.Tensor_Scalar"),
        (lambda x: x / (1 + (x * 12).exp()), "aten.exp.default"),
        (lambda x: torch.atan(x * 100_000 / 50_000), "aten.mul.Tensor"),
        (lambda x: 1 / (x * 300).square() * 70_000, "aten.pow.Tensor_Scalar"),
    ],
)
def test_an_overflow_that_ends_in_finite_numbers_is_wrong_where_they_are(function, op):
    module, x = Function(function), torch.linspace(0.9, 1.1, CHANNELS)[None]
    is_wrong = far(module, x) > 0.01 * float(module(x).detach().square().mean().sqrt())
    row = told(module, x)["float16"]
    assert (row["verdict"] == WRONG) == (is_wrong and not narrow_is_bad(module, x))
    if row["verdict"] == WRONG:
        assert row["first"]["op"] == op
        assert row["apart"] > row["noise"]


def test_what_ends_with_other_numbers_each_time_is_not_called_wrong():
    class Drawn(Function):
        drawn = 0

        def forward(self, x):
            self.drawn += 1
            return super().forward(x) + self.drawn

    module = Drawn(lambda x: torch.tanh(x * 100_000))
    assert told(module, torch.ones(1, CHANNELS))["float16"]["verdict"] == ABSORBED


MASK = torch.arange(CHANNELS) > 4


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (lambda x: x.masked_fill(MASK, torch.finfo(x.dtype).min).softmax(-1), SOUND),
        (lambda x: (x * 30 + MASK * torch.finfo(x.dtype).min).softmax(-1), SOUND),
        (lambda x: x.masked_fill(MASK, -torch.inf).softmax(-1), SOUND),
        (lambda x: torch.tanh(x * 100_000), ABSORBED),
        (lambda x: x * 100_000 - x * 100_000, OVERFLOWS),
        (lambda x: torch.full_like(x, 60_000).add_(x * 10_000), OVERFLOWS),
        (lambda x: (x.float() * 100_000).to(x.dtype), OVERFLOWS),
        (lambda x: (x.float() * 100_000).mul(1e-3).to(x.dtype), SOUND),
        (lambda x: x.new_zeros(x.shape).copy_(x.float() * 100_000), OVERFLOWS),
        (lambda x: (x * 100_000).clamp(max=5.0), ABSORBED),
    ],
)
def test_a_number_beyond_the_limit_is_an_overflow_where_the_output_shows_it(function, verdict):
    module, x = Function(function), torch.ones(2, CHANNELS)
    assert narrow_is_bad(module, x) == (verdict == OVERFLOWS)
    assert told(module, x)["float16"]["verdict"] == verdict


def test_a_mask_has_no_part_in_the_room_that_is_left():
    module = Function(lambda x: (x * 30).masked_fill(MASK, torch.finfo(x.dtype).min).softmax(-1))
    assert told(module, torch.ones(1, CHANNELS))["float16"]["largest"]["absmax"] == 30.0


@pytest.mark.parametrize("dtype", dtypes_here(), ids=str)
def test_the_smallest_number_beyond_is_the_first_that_is_rounded_to_no_number(dtype):
    edge = smallest_beyond(dtype)
    below = torch.tensor(edge, dtype=torch.float64) * (1 - 2**-20)
    assert torch.isfinite(below.to(torch.float32).to(dtype).float())
    if dtype != torch.float8_e4m3fn:  # whose edge is rounded to even, and what is beyond it to NaN
        assert not torch.isfinite(torch.tensor(edge).to(dtype).float())


def test_float8_is_held_against_what_a_matrix_product_is_given():
    rows = told(Scaled(at=1, factor=100.0), ones(10.0))
    assert (rows["float8_e4m3fn"]["verdict"], rows["float8_e5m2"]["verdict"]) == (OVERFLOWS, SOUND)
    assert rows["float8_e4m3fn"]["first"]["module"] == "layers.2"  # it is given 20 + 100 * 20
    assert rows["float8_e5m2"]["largest"]["absmax"] == 2020.0


def test_a_weight_that_the_dtype_does_not_hold_is_named():
    module, x = Scaled(at=0, factor=70_000.0), ones(0.0)
    assert narrow_is_bad(module, x)
    assert told(module, x)["float16"]["weights"] == ["layers.0.weight"]


@pytest.mark.parametrize("name", ["_log_softmax", "_softmax", "logsumexp"])
def test_a_partial_sum_counts_where_the_kernel_holds_it_in_float16(name):
    """Rows of 70,000 equal logits: their exponentials sum up to 70,000. Whether that matters PyTorch itself says."""
    call = {"_log_softmax": torch.log_softmax, "_softmax": torch.softmax, "logsumexp": torch.logsumexp}[name]
    module, x = Function(lambda x: call(x[:, :1].expand(1, 70_000), -1)), torch.zeros(1, CHANNELS)
    row, bad = told(module, x)["float16"], narrow_is_bad(module, x)
    assert (row["verdict"] == OVERFLOWS) == bad == holds_narrow(name, torch.float16, CPU)
    if bad:
        assert (row["first"]["partial_sum"], row["first"]["absmax"]) == (True, 70_000.0)


def test_bfloat16_has_room_where_float16_has_none():
    rows = told(Scaled(at=1, factor=10_000.0), ones(10.0))
    assert (rows["float16"]["verdict"], rows["bfloat16"]["verdict"]) == (OVERFLOWS, SOUND)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_is_told_from_a_run_in_another_wide_dtype(dtype):
    row = told(Scaled(at=1, factor=10_000.0), ones(10.0), dtype)["float16"]
    assert (row["verdict"], row["first"]["module"]) == (OVERFLOWS, "layers.1")
    assert row["first"]["absmax"] == pytest.approx(200_000.0, rel=0.01)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(CHANNELS, 16, 2, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0] * 10_000_000


def test_weights_that_a_module_holds_twice_go_along_and_all_is_put_back():
    module = Recurrent()
    before = {name: id(tensor) for name, tensor in module.named_parameters()}
    assert told(module, ones())["float16"]["first"]["op"] == "aten.mul.Tensor"
    assert {name: id(tensor) for name, tensor in module.named_parameters()} == before
    assert all(type(weight) is nn.Parameter for weight in module.rnn._flat_weights)
    assert module(ones()).dtype == torch.float32


def test_a_model_that_leaves_pytorch_on_the_way_is_not_told_anything():
    module = Function(lambda x: torch.from_numpy(x.detach().numpy()))
    with pytest.raises(Exception, match="numpy"):
        told(module, ones())


def test_a_model_that_reads_the_bits_of_a_number_is_not_told_anything():
    with pytest.raises(CannotFollow, match="reads the bits"):
        told(Function(lambda x: x.view(torch.int32 if x.dtype == torch.float32 else torch.int16) * 1.0), ones())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("factor", [1.0, 3000.0])
def test_it_agrees_with_the_run_in_float16(family, factor, checkpoints):
    """One matrix of each family is scaled; the truth is whether the model's own pass in float16 is finite."""
    loaded = load_folder(checkpoints[family], "float32")
    matrices = [p for name, p in loaded.model.named_parameters() if (p.dim() == 2 and "layer" in name) or ".h." in name]
    with torch.no_grad():
        next(p for p in matrices[len(matrices) // 2 :] if p.dim() == 2).mul_(factor)
    loaded.from_file.clear()  # whose digits are no longer the model's
    inputs = make_inputs(loaded, [], False)[0]
    seen = look(loaded.model, inputs)
    row = forecast(loaded, [seen])["dtypes"][0]
    with in_dtype(loaded, torch.float16):
        bad = look(loaded.model, inputs).bad
    assert (row["verdict"] == OVERFLOWS) == bad
    assert torch.equal(torch.as_tensor(seen.output), look(loaded.model, inputs).output)  # the model is as it was


def test_the_sentence_has_the_place_and_both_numbers():
    with torch.no_grad():
        loaded, given = ready(Scaled(at=1, factor=10_000.0), (ones(10.0),))
    text = sentence(forecast(loaded, [look(loaded.model, given)]))
    assert text.startswith("would overflow in float16 in layers.1, aten.addmm.default (test_forecast.py:")
    assert text.endswith(": 200,000 against 65,504, 0.33 of the limit")
