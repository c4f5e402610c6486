"""The reduced case as Python text: tensors value for value, operators as people write them. The truth is arithmetic."""

import base64
import math

import pytest
import torch
from support.reduced import call, elements, leaf, listed

from repro.core.payloads import Call
from repro.reproducer.code.calls import renderer, spell
from repro.reproducer.code.tensors import literal, tensor_lines

VALUES = [
    (leaf("x", (2, 2), 3.5), [[3.5, 3.5], [3.5, 3.5]]),
    (leaf("x", (1,), -0.0), [-0.0]),
    (leaf("x", (), "nan", "float64"), math.nan),
    (leaf("x", (2,), True, "bool"), [True, True]),
    (leaf("x", (2,), 7, "int64"), [7, 7]),
    (leaf("x", (3,), {"kind": "linspace", "start": 0.0, "end": 1.0}), [0.0, 0.5, 1.0]),
    (leaf("x", (2, 2), listed(1.0, "inf", 3.0, 4.0)), [[1.0, math.inf], [3.0, 4.0]]),
    (leaf("x", (2, 2), elements(1.0, ((0, 1), 2.0), ((1,), 9.0))), [[1.0, 2.0], [9.0, 9.0]]),
    (leaf("x", (2,), {"kind": "bytes", "base64": "AACAPwAAAEA="}, "float32"), [1.0, 2.0]),
]


def made(tensor):
    """The tensor that the lines for a leaf named x make."""
    space = {"torch": torch, "base64": base64}
    exec("\n".join(tensor_lines([tensor])), space)
    return space["x"]


@pytest.mark.parametrize(("tensor", "expected"), VALUES)
def test_a_tensor_is_made_value_for_value(tensor, expected):
    assert made(tensor).dtype == getattr(torch, tensor.dtype)
    assert repr(made(tensor).tolist()) == repr(expected)


@pytest.mark.parametrize("numbers", [[1.25 - 2j, 0.1 + 0j], [complex(-0.0, 1)], [complex(math.inf, 0)], [1j] * 9])
def test_a_few_complex_numbers_are_written_down(numbers):
    wanted = torch.tensor(numbers, dtype=torch.complex64)
    packed = base64.b64encode(wanted.numpy().tobytes()).decode()
    tensor = leaf("x", (len(numbers),), {"kind": "bytes", "base64": packed}, "complex64")
    assert bytes(made(tensor).numpy().tobytes()) == wanted.numpy().tobytes()
    assert ("base64" in tensor_lines([tensor])[0]) is (numbers[0] != 1.25 - 2j)


def test_the_same_seed_gives_the_same_tensor():
    normal = leaf("x", (2, 3), {"kind": "normal", "seed": 5, "mean": 1.0, "std": 2.0}, "float32")
    drawn = torch.randn((2, 3), generator=torch.Generator().manual_seed(5))
    assert torch.equal(made(normal), 1.0 + 2.0 * drawn)


@pytest.mark.parametrize("off", [0, 2])
def test_strides_and_alignment_are_kept(off):
    layout = {"stride": [1, 2], "misaligned_bytes": off}
    tensor = made(leaf("x", (2, 3), listed(0.0, 1.0, 2.0, 3.0, 4.0, 5.0), "float32", layout))
    assert tensor.stride() == (1, 2)
    assert tensor.data_ptr() % 4 == off
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_memory_that_is_seen_several_times_is_written_once():
    tensor = made(leaf("x", (3, 2), 4.0, "float32", {"stride": [0, 1], "misaligned_bytes": 0}))
    assert tensor.stride() == (0, 1)
    assert tensor.tolist() == [[4.0, 4.0]] * 3


def test_long_values_are_wrapped():
    lines = tensor_lines([leaf("x", (64,), listed(*[0.0999755859375] * 64))])
    packed = tensor_lines([leaf("x", (4096,), {"kind": "bytes", "base64": "AAAA" * 4096}, "uint8")])
    assert max(map(len, [*lines, *packed])) <= 120


SPELLED = [
    (call("aten.add.Tensor", "a", "b"), "a + b"),
    (call("aten.add_.Tensor", "a", "b"), "a + b"),
    (call("aten.add.Tensor", "a", "b", alpha=1), "a + b"),
    (call("aten.add.Tensor", "a", "b", alpha=2), "torch.ops.aten.add.Tensor(a, b, alpha=2)"),
    (call("aten.rsub.Scalar", "a", 1.0), "1.0 - a"),
    (call("aten.pow.Scalar", -2.0, "a"), "(-2.0) ** a"),
    (call("aten.mean.dim", "a", {"list": [{"const": -1}]}, True), "torch.mean(a, [-1], True)"),
    (call("aten.rsqrt.default", "a"), "torch.rsqrt(a)"),
    (call("aten.silu.default", "a"), "torch.nn.functional.silu(a)"),
    (call("aten.view.default", "a", {"list": [{"const": 1}, {"const": 2}]}), "a.view([1, 2])"),
    (call("aten._softmax.default", "a", -1, True), "torch.ops.aten._softmax.default(a, -1, True)"),
    (call("aten.unknown.default", "a"), "torch.ops.aten.unknown.default(a)"),
    (call("custom.thing.default", "a"), "torch.ops.custom.thing.default(a)"),
    (call("aten.embedding.default", "a", "b", 0), "torch.nn.functional.embedding(b, a)"),
    (call("aten._to_copy.default", "a", dtype={"dtype": "float16"}), "a.to(torch.float16)"),
    (call("aten.full.default", {"list": [{"const": 2}]}, {"const": "-inf"}, device={"device": "cpu"}, pin_memory=False),
     'torch.full([2], float("-inf"))'),
]  # fmt: skip


@pytest.mark.parametrize(("made", "expected"), SPELLED)
def test_an_operator_is_written_as_people_write_it(made, expected):
    assert spell(made, renderer(lambda arg: arg["ref"])).text == expected


def test_an_operator_in_place_leaves_the_input_for_the_reference():
    spelled = spell(call("aten.add_.Tensor", "a", "b"), renderer(lambda arg: arg["ref"]), own_name=True)
    assert spelled.text == "torch.ops.aten.add_.Tensor(a.clone(), b)"


@pytest.mark.parametrize("value", [None, True, 1.5, "a'b\"", {"a": ["é", "inf"]}])
def test_a_literal_is_ascii_and_says_the_same(value):
    shown = literal(value)
    assert shown.isascii()
    expected = {"a": ["é", math.inf]} if isinstance(value, dict) else value
    assert eval(shown) == expected


# --- the public function gives what the operator gives ---------------------------------------------------------------

X = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
ROWS = torch.log_softmax(X[:, :, 0, 0], 1)
LABELS = torch.tensor([1, 0, 3])
CHANNELS = torch.rand(4, generator=torch.Generator().manual_seed(1)) + 0.5
PUBLIC = [
    ("aten.nll_loss_forward.default", [ROWS, LABELS, None, 1, -100]),
    ("aten.nll_loss_forward.default", [ROWS, LABELS, CHANNELS, 2, 0]),
    ("aten.nll_loss_forward.default", [ROWS, LABELS, None, 0, -100]),
    ("aten.mse_loss.default", [X, X.flip(0), 2]),
    ("aten.mse_loss.default", [X, X.flip(0)]),
    ("aten.smooth_l1_loss.default", [X, X.flip(0), 1, 0.5]),
    ("aten.huber_loss.default", [X, X.flip(0), 1, 0.5]),
    ("aten.binary_cross_entropy.default", [X.sigmoid(), X.flip(0).sigmoid(), None, 1]),
    ("aten.native_group_norm.default", [X, CHANNELS, None, 3, 4, 25, 2, 1e-5]),
    ("aten.native_batch_norm.default", [X, CHANNELS, None, None, None, True, 0.1, 1e-5]),
    ("aten.native_batch_norm.default", [X, None, None, CHANNELS, CHANNELS, False, 0.1, 1e-5]),
    ("aten.max_pool2d_with_indices.default", [X, [2, 2], [1, 1]]),
    ("aten.native_layer_norm.default", [X, [5], None, None, 1e-5]),
    ("aten._log_softmax.default", [X, 1, False]),
]


@pytest.mark.parametrize(("op", "values"), PUBLIC)
def test_a_public_spelling_gives_what_the_operator_gives(op, values):
    names = {f"t{at}": value for at, value in enumerate(values) if torch.is_tensor(value)}

    def argument(at, value):
        if torch.is_tensor(value):
            return {"ref": f"t{at}"}
        return {"list": [{"const": item} for item in value]} if isinstance(value, list) else {"const": value}

    made = Call(op=op, args=tuple(argument(at, value) for at, value in enumerate(values)), several="native" in op)
    text = spell(made, renderer(lambda arg: arg["ref"])).text
    _, name, overload = op.split(".")
    expected = getattr(getattr(torch.ops.aten, name), overload)(*values)
    assert ("torch.ops" in text) is (op == "aten.mse_loss.default" and len(values) == 2)  # its reduction is not said
    seen = eval(text, {"torch": torch, **names})
    one, other = (item if torch.is_tensor(item) else item[0] for item in (seen, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("op", "more"),
    [
        *((f"aten.{name}.default", []) for name in (
            "acos", "acosh", "asin", "asinh", "atan", "cosh", "sinh", "erfc", "sinc", "digamma", "special_entr",
            "special_i0e", "special_log_ndtr", "special_ndtri",
        )),
        ("aten.fmod.Scalar", [0.3]), ("aten.hypot.default", ["y"]), ("aten.logaddexp.default", ["y"]),
        ("aten.lerp.Scalar", ["y", 0.25]), ("aten.linalg_vector_norm.default", [2, [1]]),
        ("aten.logcumsumexp.default", [1]), ("aten.special_xlog1py.default", ["y"]),
    ],
)  # fmt: skip
def test_functions_of_other_names_are_written_as_people_write_them(op, more):
    space = {"x": ROWS.exp(), "y": ROWS.exp().flip(0)}

    def argument(value):
        if isinstance(value, list):
            return {"list": [{"const": item} for item in value]}
        return {"ref": value} if isinstance(value, str) else {"const": value}

    text = spell(Call(op=op, args=(*map(argument, ("x", *more)),)), renderer(lambda arg: arg["ref"])).text
    _, name, overload = op.split(".")
    given = [space[item] if isinstance(item, str) else item for item in ("x", *more)]
    expected = getattr(getattr(torch.ops.aten, name), overload)(*given)
    assert "torch.ops" not in text
    torch.testing.assert_close(eval(text, {"torch": torch, **space}), expected, equal_nan=True)
