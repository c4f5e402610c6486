"""Scripts that are bad without any NaN: what is rounding is said to be, and an operator that is wrong is found."""

import pytest
import torch

from repro.probes.script.answer import asked, bisect

CAST = """
import sys, torch
torch.manual_seed(0)
a, b = torch.randn(64, 64), torch.randn(64, 64)
off = ((a.half() @ b.half()).float() - a @ b).abs().max().item()
sys.exit(1 if off > 1e-3 else 0)
"""
WRONG = """
import math, sys, torch, warnings
warnings.simplefilter("ignore")  # that a kernel of torch's own is replaced
library = torch.library.Library("aten", "IMPL")
library.impl("exp", lambda x: torch.pow(math.e, x) * (FACTOR if x.dtype == torch.float32 else 1), "CPU")
x = torch.linspace(1, 2, 8)
off = (torch.exp(x).double() - torch.pow(math.e, x.double())).abs().max().item()
z = torch.tanh(x) + x
library._destroy()
sys.exit(1 if off > 1.5e-6 else 0)
"""
UNKNOWN = """
import sys, torch
x = torch.linspace(-4, 4, 9) + 1
torch.complex(x, x)
sys.exit(1 if x[0] != 0 else 0)
"""
MASKED = """
import sys, torch
scores = torch.linspace(-1, 1, 9)
scores = scores + torch.tensor([0.0] * 8 + [END])
sys.exit(1 if scores[:8].abs().max() > 0 else 0)
"""
TWO = """
import sys, torch
x = torch.linspace(-1, 1, 9) + 1
turned = torch.complex(x, x) * 2
sys.exit(1 if x.abs().max() > 0 else 0)
"""


IN_PLACE = """
import sys, torch, warnings
warnings.simplefilter("ignore")
library = torch.library.Library("aten", "IMPL")
def made(weights, *_, **__):  # gives nothing back, and is right in float64 at least
    if weights[0].dtype == torch.float64 or RIGHT:
        weights[0].sub_(0.5)
library.impl("_fused_sgd_", made, "CPU")
weight = torch.nn.Parameter(torch.ones(4))
optimizer = torch.optim.SGD([weight], lr=0.5, fused=True)
weight.grad = torch.ones(4)
optimizer.step()
library._destroy()
sys.exit(0 if weight[0].item() == EXPECTED else 1)
"""
OF_A_LIBRARY = """
import torch
@torch.library.custom_op("mine::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 3
torch.testing.assert_close(twice(torch.ones(3)), torch.full((3,), 2.0))
"""
INTEGERS = """
import sys, torch
older, newer = torch.full((2,), 200, dtype=torch.DTYPE), torch.full((2,), 190, dtype=torch.DTYPE)
moved = (newer - older).float().mul(2)
sys.exit(1)
"""
WITHOUT_ANY = """
import torch
torch.testing.assert_close(torch.ones(2) + 1, torch.zeros(2))
"""


def look(folder, text):
    path = folder / "asks.py"
    path.write_text(text, "utf-8")
    return bisect(asked(str(path)))


def test_what_adds_up_from_rounding_is_said_to_be_rounding(tmp_path):
    verdict, reason, payload = look(tmp_path, CAST)
    assert (verdict, payload["origin"]) == ("skip", None)
    assert payload["rounding"]["within"] is True
    assert payload["rounding"]["not_judged"] == []
    assert "within its dtype's own rounding" in reason


@pytest.mark.parametrize("factor", ["1.001", "(1 + 4e-6)"])
def test_an_operator_that_is_wrong_though_finite_is_found(tmp_path, factor):
    verdict, _, payload = look(tmp_path, WRONG.replace("FACTOR", factor))
    origin = payload["origin"]
    assert (verdict, origin["op"], origin["mechanism"]) == ("bad", "aten.exp.default", "wrong_constant")
    assert origin["reference_value"] == pytest.approx(2.718281828 ** (1 + origin["element"][0] / 7), rel=1e-6)


def test_an_error_of_a_few_units_is_no_wrong_operator(tmp_path):
    verdict, _, payload = look(tmp_path, WRONG.replace("FACTOR", "(1 + 3e-7)").replace("1.5e-6", "0.5e-6"))
    assert (verdict, payload["rounding"]["within"]) == ("skip", True)


def test_an_operator_that_cannot_be_judged_leaves_it_open(tmp_path):
    verdict, reason, payload = look(tmp_path, UNKNOWN)
    assert (verdict, payload["rounding"]["not_judged"]) == ("skip", ["aten.complex.default"])
    assert "not judged: aten.complex.default" in reason


def test_the_infinity_of_an_additive_mask_is_judged_with_the_rest(tmp_path):
    rounding = look(tmp_path, MASKED.replace("END", '-float("inf")'))[2]["rounding"]
    assert (rounding["within"], rounding["operators"], rounding["not_judged"]) == (True, 3, [])


def test_an_operator_that_could_not_be_held_is_not_counted_as_judged(tmp_path):
    rounding = look(tmp_path, TWO)[2]["rounding"]
    assert (rounding["operators"], rounding["not_judged"]) == (3, ["aten.complex.default", "aten.mul.Tensor"])


@pytest.mark.parametrize(
    ("check", "apart"),
    [
        ("assert torch.allclose(a, b)", 1.0),
        ("torch.testing.assert_close(a, b)", 1.0),
        ("assert torch.equal(a, b)", 1.0),
        ("assert (a - b).abs().max() < 1e-3", 1.0),
    ],
)
def test_how_far_the_two_are_apart_that_are_compared_is_measured(tmp_path, check, apart):
    text = f"import torch\na = torch.tensor([1.0, 4.0])\nb = a + apart\n{check}\n".replace("apart", str(apart))
    payload = look(tmp_path, text)[2]
    expected = apart / (5.0 * torch.finfo(torch.float32).eps)
    assert payload["rounding"]["apart"] == pytest.approx(expected)


@pytest.mark.parametrize(("right", "expected", "verdict"), [("False", "0.5", "bad"), ("True", "0.25", "skip")])
def test_an_operator_that_gives_nothing_back_is_held_by_what_it_writes(tmp_path, right, expected, verdict):
    found, _, payload = look(tmp_path, IN_PLACE.replace("RIGHT", right).replace("EXPECTED", expected))
    assert found == verdict
    assert payload["rounding"]["op"] == "aten._fused_sgd_.default"
    assert payload["rounding"]["not_judged"] == []
    if verdict == "bad":
        assert (payload["origin"]["value"], payload["origin"]["reference_value"]) == (1.0, 0.5)
        assert (payload["origin"]["mechanism"], payload["origin"]["note"]) == (
            "kernel", "it gives the very numbers that it was given",
        )  # fmt: skip


def test_an_operator_of_a_library_is_held_against_itself_and_that_is_said(tmp_path):
    rounding = look(tmp_path, OF_A_LIBRARY)[2]["rounding"]
    assert (rounding["within"], rounding["of_itself"]) == (True, ["mine.twice.default"])


@pytest.mark.parametrize(("dtype", "gives"), [("uint8", 246), ("int8", None), ("int16", None), ("int64", None)])
def test_integers_that_go_beyond_their_dtype_are_named(tmp_path, dtype, gives):
    values = INTEGERS.replace("200", "100").replace("190", "90") if dtype == "int8" else INTEGERS
    _, reason, payload = look(tmp_path, values.replace("DTYPE", dtype))
    said = payload["rounding"]["wrapped"]
    assert said == (gives and f"aten.sub.Tensor in {dtype} (asks.py:4) gives {gives} where -10 is right")
    assert said is None or said in reason


def test_what_a_comparison_computes_for_its_message_is_none_of_the_scripts(tmp_path):
    """It divides by 0 where 0 is expected."""
    rounding = look(tmp_path, WITHOUT_ANY)[2]["rounding"]
    assert (rounding["operators"], rounding["nonfinite"]) == (1, False)
