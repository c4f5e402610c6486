"""Wrong kernels under the names of PyTorch's own operators: found in their module, named by a true mechanism, and sound
without the fault. Two have another formula and are sound.
"""

import pytest
import torch
from support import wrong_operators
from support.asking import rounding_of
from support.wrong_operators import FAULTS, IDS, UNSEEN

from repro.probes.rounding.mechanism import mechanism_of


def made(name, dtype):
    wrong_operators.CALLS.clear()
    return wrong_operators.Network(FAULTS[name]).eval().to(dtype)


CASES = [(name, dtype) for name, fault in FAULTS.items() for dtype in fault.dtypes]
WRONG = [(name, dtype) for name, dtype in CASES if FAULTS[name].mechanisms and name != UNSEEN]


@pytest.mark.parametrize("dtype", wrong_operators.ALL, ids=str)
@pytest.mark.parametrize("op", sorted({fault.op for fault in FAULTS.values()}))
def test_pytorchs_own_is_sound(op, dtype):
    names = [name for name, fault in FAULTS.items() if fault.op == op]
    for name in names:
        rounding = rounding_of(made(name, dtype), IDS)
        assert rounding.departures == []
        assert rounding.not_judged == {}


@pytest.mark.parametrize(("name", "dtype"), WRONG, ids=str)
def test_a_wrong_one_is_found(monkeypatch, name, dtype):
    network = made(name, dtype)
    monkeypatch.setattr(wrong_operators, "chosen", [name])
    found = rounding_of(network, IDS).departures
    assert found
    assert {departure.address.module for departure in found} == {"inner"}
    assert found[0].address.op == f"faulty.{FAULTS[name].op}"
    assert mechanism_of(found[0])[0] in FAULTS[name].mechanisms


@pytest.mark.parametrize("dtype", wrong_operators.ALL, ids=str)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.mechanisms])
def test_another_formula_for_the_same_is_sound(monkeypatch, name, dtype):
    network = made(name, dtype)
    monkeypatch.setattr(wrong_operators, "chosen", [name])
    assert rounding_of(network, IDS).departures == []


def test_a_conversion_that_cuts_off_stays_within_what_is_allowed(monkeypatch):
    network = made(UNSEEN, torch.bfloat16)
    monkeypatch.setattr(wrong_operators, "chosen", [UNSEEN])
    rounding = rounding_of(network, IDS)
    assert rounding.departures == []
    assert rounding.worst["_to_copy", "bfloat16"][1] > 0.35  # rounding to nearest leaves 0.2 to 0.29


def test_what_is_stale_shows_once_and_is_not_said_to_be_repeated(monkeypatch):
    network = made("mm: stale", torch.float32)
    monkeypatch.setattr(wrong_operators, "chosen", ["mm: stale"])
    (found,) = rounding_of(network, IDS).departures
    assert not found.repeated
    assert found.address.occurrence == 1


BANDS = ((-9.0, -6.0), (-6.0, -5.0), (-4.0, -3.0), (-0.1, -0.01), (-1e-4, -1e-6), (0.01, 0.1), (2.0, 4.0))
TAILS = {
    "gelu": torch.nn.functional.gelu,
    "gelu, tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "erf": torch.erf,
    "logit": lambda x: torch.logit(torch.sigmoid(x)),
    "silu": torch.nn.functional.silu,
    "mish": torch.nn.functional.mish,
    "softplus": torch.nn.functional.softplus,
    "expm1": torch.expm1,
    "a number that bfloat16 does not hold": lambda x: x * 1.1 + 0.1,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", TAILS)
def test_a_function_is_sound_where_its_result_is_next_to_nothing(name, dtype):
    class Function(torch.nn.Module):
        def forward(self, x):
            return TAILS[name](x)

    for low, high in BANDS:
        torch.manual_seed(0)
        x = (low + (high - low) * torch.rand(4, 96, dtype=torch.float64)).to(dtype)
        assert rounding_of(Function(), x).departures == [], (low, high)


def transposed(x, weight, stride, dtype):
    """A transposed convolution that adds up in ``dtype``, one place of the kernel after the other."""
    (_, outer, size, _), length = weight.shape, x.shape[-1]
    whole = torch.zeros(len(x), outer, *[(length - 1) * stride + size] * 2, dtype=dtype)
    for row in range(size):
        for column in range(size):
            part = torch.einsum("bihw,io->bohw", x.double(), weight[:, :, row, column].double()).to(dtype)
            ends = [slice(at, at + (length - 1) * stride + 1, stride) for at in (row, column)]
            whole[:, :, ends[0], ends[1]] += part
    return whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("size", "stride"), [(4, 2), (3, 1), (2, 2), (5, 3)])
def test_a_transposed_convolution_adds_up_in_its_own_dtype(size, stride, dtype):
    torch.manual_seed(size)
    layer = torch.nn.ConvTranspose2d(32, 8, size, stride, bias=False).to(dtype)
    x = torch.randn(1, 32, 12, 12).to(dtype)
    assert rounding_of(layer, x).departures == []
    if dtype == torch.float16:  # as the CPU's kernel of this dtype does, but for the last bit of a product
        with torch.no_grad():
            assert (layer(x) == transposed(x, layer.weight, stride, dtype)).double().mean() > 0.99
