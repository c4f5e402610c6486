"""The mechanism of one wrong result, which plain torch made."""

import math

import pytest
import torch
import torch.nn.functional as F

from repro.probes.observe.watch import Address
from repro.probes.rounding.allowed import held
from repro.probes.rounding.check import Departure
from repro.probes.rounding.mechanism import mechanism_of
from repro.probes.rounding.part import part_of
from repro.probes.rounding.reference import in_float64

ATEN = torch.ops.aten
FLASH = ATEN._scaled_dot_product_flash_attention_for_cpu.default
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def named(func, args, kwargs, wrong):
    """(mechanism, note) of a call that gave ``wrong``."""
    part = part_of(func, args, kwargs, "seed", [wrong], float(1 << 26))
    reference = in_float64(part)[0]
    actual = part.take([wrong])[0]
    found = held(part, 0, actual, reference, exact=True)
    assert found.is_beyond
    dtype = str(wrong.dtype).replace("torch.", "")
    address = Address("layer", 0, str(func), 0)
    shape = tuple(wrong.shape)
    return mechanism_of(
        Departure(address, None, None, found, 0, found.at, shape, dtype, part, actual.double(), reference)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_factor_is_named_with_its_size(dtype):
    values = drawn(64, 256).to(dtype)
    name, note = named(ATEN._softmax.default, (values, -1, False), {}, (0.9 * values.double().softmax(-1)).to(dtype))
    assert name == "wrong_constant"
    assert float(note.removeprefix("every number is ").split()[0]) == pytest.approx(0.9, rel=2e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_place_before_and_behind(dtype):
    left, right = drawn(16, 64).to(dtype), drawn(64, 16, seed=1).to(dtype)
    exact = left.double() @ right.double()
    for by, word in ((1, "before"), (-1, "behind")):
        name, note = named(ATEN.mm.default, (left, right), {}, exact.roll(by, 0).to(dtype))
        assert name == "wrong_position"
        assert note == f"each number is that of the place {word} it, along dimension 0"


def test_two_dimensions_in_place_of_each_other():
    left, right = drawn(16, 64).float(), drawn(64, 16, seed=1).float()
    name, note = named(ATEN.mm.default, (left, right), {}, (left.double() @ right.double()).t().float())
    assert (name, note) == ("wrong_position", "dimensions 0 and 1 stand in place of each other")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_argument_that_is_left_out(dtype):
    given, weight, bias = drawn(16, 64).to(dtype), drawn(64, seed=1).to(dtype), drawn(64, seed=2).to(dtype)
    args = (given, [64], weight, bias, 1e-5)
    without = F.layer_norm(given.double(), [64], weight.double(), None, 1e-5).to(dtype)
    assert named(ATEN.native_layer_norm.default, args, {}, without) == (
        "ignored_argument", "it is what the operator gives without bias",
    )  # fmt: skip


def test_another_epsilon_is_named_with_both():
    given = (0.02 * drawn(16, 64)).float()
    wrong = F.layer_norm(given.double(), [64], eps=1e-3).float()
    assert named(ATEN.native_layer_norm.default, (given, [64], None, None, 1e-5), {}, wrong) == (
        "wrong_constant", "it is what the operator gives with eps=0.001, and 1e-05 was given",
    )  # fmt: skip


def test_a_gelu_of_the_other_formula():
    given = drawn(64, 64).float()
    assert named(ATEN.gelu.default, (given,), {"approximate": "tanh"}, F.gelu(given.double()).float()) == (
        "ignored_argument", "it is what the operator gives without approximate=tanh",
    )  # fmt: skip


def attention(mask=None, causal=False, scale=None):
    query, key, value = (drawn(2, 4, 20, 16, seed=at) for at in range(3))
    return F.scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale=scale).float()


@pytest.mark.parametrize(("given", "used", "mechanism"), [
    ({"mask": True}, {}, "ignored_argument"),
    ({"causal": True}, {}, "ignored_argument"),
    ({"scale": 0.7}, {}, "ignored_argument"),
    ({}, {"scale": 1.0}, "ignored_argument"),
    ({}, {"causal": True}, "wrong_constant"),
])  # fmt: skip
def test_attention_with_other_arguments(given, used, mechanism):
    mask = torch.zeros(20, 20).masked_fill(drawn(20, 20) > 0.7, -math.inf)
    mask[:, 0] = 0
    args = (*(drawn(2, 4, 20, 16, seed=at).float() for at in range(3)), 0.0, given.get("causal", False))
    kwargs = {"attn_mask": mask if given.get("mask") else None, "scale": given.get("scale")}
    assert named(FLASH, args, kwargs, attention(**used))[0] == mechanism


def test_numbers_that_are_cut_off():
    left, right = drawn(16, 64).float(), drawn(64, 16, seed=1).float()
    wrong = (left.double() @ right.double()).clamp(-8, 8).float()
    assert named(ATEN.mm.default, (left, right), {}, wrong) == ("saturation", "numbers beyond 8 are cut off there")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_sum_that_is_kept_in_16_bits(dtype):
    left, right = drawn(16, 512).to(dtype), drawn(512, 16, seed=1).to(dtype)
    total = torch.zeros(16, 16, dtype=dtype)
    for at in range(512):
        total = (total + (left[:, at, None].float() * right[None, at].float()).to(dtype)).to(dtype)
    name, note = named(ATEN.mm.default, (left, right), {}, total)
    assert name == "narrow_accumulation"
    assert str(dtype).removeprefix("torch.") in note


def test_inputs_rounded_to_ten_bits():
    def rounded(tensor):
        mantissa, exponent = torch.frexp(tensor)
        return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)

    left, right = drawn(64, 512).float(), drawn(512, 64, seed=1).float()
    wrong = (rounded(left.double()) @ rounded(right.double())).float()
    assert named(ATEN.mm.default, (left, right), {}, wrong)[0] == "narrow_accumulation"


def test_a_nan_that_became_a_number():
    values = torch.tensor([1.0, math.nan, 2.0])
    name, note = named(ATEN.mul.Tensor, (values, torch.ones(3)), {}, torch.tensor([1.0, 0.0, 2.0]))
    assert name == "swallowed_nan"
    assert note == "float64 of the same inputs is NaN there, and the operator gives 0"


def test_a_number_that_became_a_nan_is_the_kernels():
    values = torch.tensor([1.0, 3.0, 2.0])
    assert named(ATEN.mul.Tensor, (values, torch.ones(3)), {}, torch.tensor([1.0, math.nan, 2.0])) == (
        "kernel", "float64 of the same inputs is 3",
    )  # fmt: skip


def test_what_nothing_explains_is_the_kernels():
    left, right = drawn(16, 64).float(), drawn(64, 16, seed=1).float()
    wrong = (left.double() @ right.double()).float() + drawn(16, 16, seed=7).float()
    assert named(ATEN.mm.default, (left, right), {}, wrong) == ("kernel", None)
