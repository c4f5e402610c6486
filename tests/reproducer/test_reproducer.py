"""Scripts made of a reduction: what they say, that they run, and which one is offered. The truth is arithmetic."""

import ast
import math
import re
import sys

import pytest
from support.hosting import Listener

from repro.reproducer.calls import renderer, spell
from repro.reproducer.frame import docstring
from repro.reproducer.offer import offer, scripts
from repro.reproducer.values import literal, tensor_lines
from repro.reproducer.verify import verify

ORIGIN = {
    "module": "model.layers.7", "op": "aten.add.Tensor", "mechanism": "overflow", "token_index": 0, "token": "<bos>",
    "channel_index": 163, "source": "modeling_gemma3.py:416", "tensor": None, "limit": 65504.0,
}  # fmt: skip
LIMIT = 65504.0


def document(program=None, module=None, owner=None, **changed):
    """verdict.json of a bad run of a local model, as far as scripts read it."""
    return {
        "tool": "0.1.0", "verdict": "bad", "kind": "nonfinite", "script": None,
        "model": {"id": "/data/secret/gemma", "class": "Gemma3ForCausalLM", "weights": "random", "seed": 0},
        "cell": {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0", "device": "cpu",
                 "dtype": "float16"},
        "case": {"dtype": "float16", "attn": None, "trust_remote_code": False},
        "environment": {"packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "safetensors": "0.8.0"}},
        "origin": ORIGIN, "owner": owner and {"project": owner, "reason": "it is"}, "steps": [], "files": {},
        "reduction": {"program": program, "module": module, "inputs": None}, **changed,
    }  # fmt: skip


def leaf(name, shape, values, dtype="float16", layout=None):
    rule = values if isinstance(values, dict) else {"kind": "constant", "value": values}
    return {"name": name, "shape": list(shape), "values": rule, "dtype": dtype, "layout": layout}


def call(op, *args, name="out", **kwargs):
    """A call; a string is a reference, anything else a constant unless it is an argument already."""

    def argument(item):
        if isinstance(item, str):
            return {"ref": item}
        return item if isinstance(item, dict) else {"const": item}

    return {"op": op, "args": [argument(item) for item in args], "name": name,
            "kwargs": {key: argument(item) for key, item in kwargs.items()}}  # fmt: skip


def program(leaves, *calls, seen="inf", expected=None, mechanism="overflow", index=None, result=0, limit=LIMIT):
    index = [0] * len(leaves[0]["shape"]) if index is None else index
    return {
        "leaves": leaves, "calls": list(calls), "seen": seen, "mechanism": mechanism, "limit": limit, "device": "cpu",
        "output": {"call": len(calls) - 1, "result": result, "index": index},
        "expected": None if expected is None else {"value": expected, "dtype": "float64"},
    }  # fmt: skip


ADD = program([leaf("a", (1,), 55008.0), leaf("b", (1,), 13376.0)], call("aten.add.Tensor", "a", "b"), expected=68384.0)
BMM = program(
    [leaf("x", (1, 1, 1), 280.0), leaf("mat2", (1, 1, 1), 280.0)],
    call("aten.bmm.default", "x", "mat2"), expected=78400.0,
)  # fmt: skip
SOFTMAX = program(
    [leaf("x", (1, 2), "-inf", "float32")], call("aten._softmax.default", "x", -1, False), seen="nan", expected="nan",
    mechanism="masked_row", limit=3.4028234663852886e38,
)  # fmt: skip
LOG = program(
    [leaf("x", (1,), 0.0, "float32")], call("aten.log.default", "x"), seen="-inf", expected="-inf",
    mechanism="divide_by_zero",
)  # fmt: skip
ZERO_BY_ZERO = program(
    [leaf("x", (1,), 0.0, "float32"), leaf("y", (1,), 0.0, "float32")], call("aten.div.Tensor", "x", "y"), seen="nan",
    expected="nan", mechanism="invalid",
)  # fmt: skip
CAST = program(
    [leaf("x", (1,), 70000.0, "float32")], call("aten._to_copy.default", "x", dtype={"dtype": "float16"}),
    expected=70000.0,
)  # fmt: skip
SEVERAL = program(
    [leaf("x", (1, 1), 300.0), leaf("y", (1, 1), 300.0)],
    call("aten.mm.default", "x", "y", name="out0"),
    call("aten._softmax.default", {"ref": "out0", "result": 0}, -1, False),
    seen="nan", expected=1.0, mechanism="invalid",
)  # fmt: skip
QKV = [leaf(name, (1, 1, 1, 1), 1.0, "float32") for name in ("query", "key", "value")]
ATTENTION = program(
    [*QKV, leaf("attn_mask", (1, 1), "-inf", "float32")],
    call("aten._scaled_dot_product_flash_attention_for_cpu.default", "query", "key", "value", attn_mask="attn_mask"),
    seen="nan", mechanism="masked_row", limit=3.4028234663852886e38,
)  # fmt: skip
BAD = {"add": ADD, "bmm": BMM, "softmax": SOFTMAX, "log": LOG, "0/0": ZERO_BY_ZERO, "cast": CAST, "several": SEVERAL}


def first(program_, **more):
    return scripts(document(program_, **more))[0]


def prose(text):
    """The docstring as one line."""
    return " ".join(ast.get_docstring(ast.parse(text)).split())


def run(script, runs=1):
    return verify(sys.executable, script.text, script.argv, runs=runs)


@pytest.mark.parametrize("name", BAD)
def test_a_script_shows_its_fault(name):
    script = first(BAD[name])
    found = run(script)
    assert found.verified, found.reason
    assert f"seen {BAD[name]['seen']} " in found.output


@pytest.mark.parametrize("name", BAD)
def test_every_operator_by_its_own_name_shows_the_same(name):
    plain = scripts(document(BAD[name]))[-1]
    assert "torch.ops.aten." in plain.text
    assert run(plain).output == run(first(BAD[name])).output


def test_the_sum_is_beyond_the_dtype_and_float64_says_what_it_is():
    script = first(ADD)
    assert run(script).output == "expected 68384.0 (float64), seen inf (float16)"
    assert prose(script.text).startswith("55008 + 13376 is beyond 65504, the largest float16, so a + b gives inf.")
    assert "seen = (a + b)[0]\nexpected = (a.double() + b.double())[0]\n" in script.text


def test_a_product_of_matrices_says_its_reference():
    assert run(first(BMM)).output == "expected 78400.0 (float64), seen inf (float16)"


def test_a_cast_is_widened_in_the_reference():
    script = first(CAST)
    assert "x.to(dtype=torch.float16)" in script.text or "x.to(torch.float16)" in script.text
    assert run(script).output == "expected 70000.0 (float64), seen inf (float16)"


def test_where_float64_gives_no_number_either_that_is_said():
    assert run(first(LOG)).output == "expected a finite number (float64 gives -inf too), seen -inf (float32)"


def test_a_norm_of_which_a_later_result_is_not_wanted_is_the_public_function():
    weight = {"kind": "elements", "base": 1.0, "elements": [[[1], 60000.0]]}
    leaves = [leaf("x", (2,), {"kind": "list", "values": [-1.0, 1.2]}), leaf("weight", (2,), weight)]
    norm = call("aten.native_layer_norm.default", "x", {"list": [{"const": 2}]}, "weight", None, 0.0)
    # The two values stand at one standard deviation to both sides of their mean: -1 and 1.
    script = first(program(leaves, norm, index=[1], expected=60000.0))
    assert "torch.nn.functional.layer_norm(x, [2], weight, None, 0.0)[1]" in script.text
    assert run(script).exit_statuses == (0,)  # 60000 is within float16
    assert float(re.search(r"expected ([\d.]+)", run(script).output)[1]) == pytest.approx(60000.0, rel=1e-2)


def test_one_of_several_results_is_taken_by_its_number():
    leaves = [leaf("x", (2,), {"kind": "list", "values": [1.0, 3.0]}, "float32")]
    mean = call("aten.var_mean.correction", "x", {"list": [{"const": 0}]}, correction=0)
    script = first(program(leaves, mean, index=[], result=1, expected=2.0))
    assert run(script).output == "expected 2.0 (float64), seen 2.0 (float32)"


def test_a_masked_row_of_attention_is_asked_of_the_public_function_and_of_the_formula():
    script = first(ATTENTION)
    assert "q = k = v = torch.ones((1, 1, 1, 1), dtype=torch.float32)" in script.text
    assert "scaled_dot_product_attention(q, k, v, attn_mask=mask)" in script.text
    assert run(script).output.startswith("expected 0.0 (float64), seen ")


def test_a_script_of_attention_has_fifteen_lines_in_all():
    lines = [line for line in first(ATTENTION, origin=None).text.splitlines() if line]
    assert len(lines) <= 15


def attention(query, key, value, **more):
    op = "aten._scaled_dot_product_flash_attention_for_cpu.default"
    names = ("query", "key", "value")
    leaves = [
        leaf(name, shape, values, "float32") for name, (shape, values) in zip(names, (query, key, value), strict=True)
    ]
    return program(
        [*leaves, *more.pop("leaves", ())], call(op, *names, **more), mechanism="kernel", expected=1.0, seen="nan"
    )


NORMAL = {"kind": "normal", "seed": 0, "mean": 0.0, "std": 1.0}
MASK = leaf("attn_mask", (3, 3), {"kind": "list", "values": [0.0, -9.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0]}, "float32")


@pytest.mark.parametrize(
    "made",
    [
        attention(((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), is_causal=True),
        attention(((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), scale=0.25),
        attention(((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), leaves=[MASK],
                  attn_mask="attn_mask"),
    ],
    ids=["causal", "scale", "mask"],
)  # fmt: skip
def test_the_formula_of_attention_is_what_a_sound_kernel_gives(made):
    made["output"]["index"] = [0, 0, 1, 1]
    expected, seen = re.search(r"expected (\S+) \(float64\), seen (\S+) ", run(first(made)).output).groups()
    assert float(expected) == pytest.approx(float(seen), rel=1e-5)


def test_the_formula_of_attention_shares_keys_among_heads():
    made = attention(((1, 2, 1, 2), NORMAL), ((1, 1, 1, 2), NORMAL), ((1, 1, 1, 2), NORMAL))
    assert "k.double().repeat_interleave(2, -3).mT" in first(made).text


def test_the_formula_of_attention_takes_a_bool_mask():
    mask = leaf("attn_mask", (3, 3), True, "bool")
    made = attention(((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), ((1, 1, 3, 2), NORMAL), leaves=[mask],
                     attn_mask="attn_mask")  # fmt: skip
    assert '.masked_fill(~mask, float("-inf"))' in first(made).text


def test_an_accelerator_has_the_operator_and_the_cpu_the_reference():
    text = first({**ADD, "device": "cuda:0"}).text
    assert 'a = torch.full((1,), 55008.0, dtype=torch.float16).to("cuda:0")' in text
    assert "expected = (a.cpu().double() + b.cpu().double())[0]" in text


def test_without_a_reference_none_is_claimed():
    script = first({**ADD, "expected": None})
    assert "expected =" not in script.text
    assert run(script).output == "expected a finite number, seen inf (float16)"


def test_a_layer_on_an_accelerator_is_built_there():
    cell = {**document()["cell"], "device": "cuda"}
    text = scripts(document(module=MODULE, cell=cell))[0].text
    assert 'LlamaModel(config).to("cuda", torch.float16)' in text
    assert 'x = torch.full((1, 1, 8), 100.0, dtype=torch.float16).to("cuda")' in text


def test_an_operator_that_has_no_other_answer_is_not_called_a_bug():
    for made in (ADD, BMM, SOFTMAX, LOG, ZERO_BY_ZERO):
        assert "The operator is right, and this is not a PyTorch bug" in prose(first(made, owner="transformers").text)


def test_an_operator_that_is_wrong_by_itself_is_not_called_right():
    text = prose(first(ATTENTION, owner="pytorch").text)
    assert "No model is needed: the operator alone does it." in text
    assert "not a PyTorch bug" not in text


def test_without_an_owner_nothing_is_said_of_an_attention_that_masks_a_row():
    text = prose(first(ATTENTION).text)
    assert "bug" not in text
    assert "right" not in text


def test_the_docstring_says_where_it_was_found_and_nothing_private():
    text = first(ADD).text
    assert (
        "Found in Gemma3ForCausalLM (gemma) with random weights (seed 0): model.layers.7, modeling_gemma3.py:416, "
        "token 0 '<bos>', channel 163. Generated by repro-kit 0.1.0." in prose(text)
    )
    assert "secret" not in text


def test_the_header_pins_what_is_needed_without_the_local_version():
    text = first(ADD).text
    assert text.startswith('# /// script\n# requires-python = "==3.11.*"\n# dependencies = ["torch==2.13.0"]\n# ///\n')


def test_an_old_torch_is_kept_from_numpy_2():
    cell = {**document()["cell"], "torch": "2.0.1"}
    environment = {"packages": {"numpy": "1.26.4"}}
    made = scripts(document(module=MODULE, cell=cell, environment=environment))[0]
    assert '["torch==2.0.1", "transformers==5.23.0", "numpy==1.26.4"]' in made.text


@pytest.mark.parametrize("name", [*BAD, "attention"])
def test_scripts_keep_to_the_grammar_of_python_3_9(name):
    for script in scripts(document({**BAD, "attention": ATTENTION}[name], MODULE)):
        ast.parse(script.text, feature_version=(3, 9))
        assert script.text.isascii()
        assert "repro." not in script.text.replace("repro-kit", "")


def test_a_script_of_one_operator_is_short():
    for made in BAD.values():
        if len(made["calls"]) == 1:
            assert first(made).lines <= 15


def test_lines_are_counted_without_header_docstring_and_blanks():
    assert first(ADD).lines == 9


HOSTILE = ['"""', "\\", "'''", "\n# /// script\n", "{x}", "\x00\x1b[31m", "é\u202e", "# /// script"]


@pytest.mark.parametrize("token", HOSTILE)
def test_a_hostile_token_stays_text(token):
    script = first(ADD, origin={**ORIGIN, "token": token})
    assert script.text.isascii()
    assert len(re.findall(r"(?m)^# /// script$", script.text)) == 1
    assert ast.dump(ast.Module(ast.parse(script.text).body[1:], [])) == ast.dump(
        ast.Module(ast.parse(first(ADD).text).body[1:], [])
    )


def test_a_docstring_is_wrapped():
    lines = docstring("word " * 100)
    assert max(map(len, lines)) <= 120
    assert ast.literal_eval("\n".join(lines)).split() == ["word"] * 100


def test_names_that_mean_something_else_are_changed():
    leaves = [leaf("torch", (1,), 60000.0), leaf("seen", (1,), 60000.0)]
    made = program(leaves, call("aten.add.Tensor", "torch", "seen"), expected=120000.0)
    assert run(first(made)).verified


def test_an_exception_before_the_answer_is_no_fault():
    made = program([leaf("x", (1, 2), 1.0)], call("aten.mm.default", "x", "x"), expected=1.0)
    assert run(first(made)).exit_statuses == (125,)


def test_a_package_that_is_missing_is_no_fault():
    text = first(ADD).text.replace("import torch", "import no_torch_here")
    assert verify(sys.executable, text, runs=1).exit_statuses == (125,)


VALUES = [
    (leaf("x", (2, 2), 3.5), [[3.5, 3.5], [3.5, 3.5]]),
    (leaf("x", (1,), -0.0), [-0.0]),
    (leaf("x", (), "nan", "float64"), math.nan),
    (leaf("x", (2,), True, "bool"), [True, True]),
    (leaf("x", (2,), 7, "int64"), [7, 7]),
    (leaf("x", (3,), {"kind": "linspace", "start": 0.0, "end": 1.0}), [0.0, 0.5, 1.0]),
    (leaf("x", (2, 2), {"kind": "list", "values": [1.0, "inf", 3.0, 4.0]}), [[1.0, math.inf], [3.0, 4.0]]),
    (leaf("x", (2, 2), {"kind": "elements", "base": 1.0, "elements": [[[0, 1], 2.0], [[1], 9.0]]}),
     [[1.0, 2.0], [9.0, 9.0]]),
    (leaf("x", (2,), {"kind": "bytes", "base64": "AACAPwAAAEA="}, "float32"), [1.0, 2.0]),
]  # fmt: skip


@pytest.mark.parametrize(("made", "expected"), VALUES)
def test_a_tensor_is_made_value_for_value(made, expected):
    torch = pytest.importorskip("torch")
    space = evaluated(made)
    assert space["x"].dtype == getattr(torch, made["dtype"])
    assert repr(space["x"].tolist()) == repr(expected)


def evaluated(made):
    import base64

    import torch

    space = {"torch": torch, "base64": base64}
    exec("\n".join(tensor_lines([made])), space)
    return space


def test_the_same_seed_gives_the_same_tensor():
    import torch

    made = leaf("x", (2, 3), {"kind": "normal", "seed": 5, "mean": 1.0, "std": 2.0}, "float32")
    drawn = torch.randn((2, 3), generator=torch.Generator().manual_seed(5))
    assert torch.equal(evaluated(made)["x"], 1.0 + 2.0 * drawn)


@pytest.mark.parametrize("off", [0, 2])
def test_strides_and_alignment_are_kept(off):
    made = leaf("x", (2, 3), {"kind": "list", "values": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}, "float32",
                {"stride": [1, 2], "misaligned_bytes": off})  # fmt: skip
    tensor = evaluated(made)["x"]
    assert tensor.stride() == (1, 2)
    assert tensor.data_ptr() % 4 == off
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_memory_that_is_seen_several_times_is_written_once():
    tensor = evaluated(leaf("x", (3, 2), 4.0, "float32", {"stride": [0, 1], "misaligned_bytes": 0}))["x"]
    assert tensor.stride() == (0, 1)
    assert tensor.tolist() == [[4.0, 4.0]] * 3


def test_long_values_are_wrapped():
    lines = tensor_lines([leaf("x", (64,), {"kind": "list", "values": [0.0999755859375] * 64})])
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
    (call("aten.full.default", {"list": [{"const": 2}]}, "-inf", device={"device": "cpu"}, pin_memory=False), None),
]


@pytest.mark.parametrize(("made", "expected"), SPELLED)
def test_an_operator_is_written_as_people_write_it(made, expected):
    if expected is None:
        made["args"][1] = {"const": "-inf"}
        expected = 'torch.full([2], float("-inf"))'
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


MODULE = {
    "model_class": "LlamaModel", "config_class": "LlamaConfig", "dtype": "float16", "attn": "eager",
    "config": {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
               "num_attention_heads": 1},
    "path": "layers.0.mlp", "class": "LlamaMLP", "leaves": [leaf("x", (1, 1, 8), 100.0)], "args": [{"ref": "x"}],
    "parameters": [
        leaf("down_proj.weight", (8, 8), {"kind": "elements", "base": 0.0, "elements": [[[3, 0], 1.0]]}),
        leaf("gate_proj.weight", (8, 8), 1.0),
        leaf("up_proj.weight", (8, 8), 1.0),
    ],
    "kwargs": {}, "output": {"result": 0, "index": [0, 0, 3]}, "seen": "nan",
    "expected": {"value": 640000.0, "dtype": "float32"}, "op": "aten.mul.Tensor", "source": "modeling_llama.py:177",
    "mechanism": "overflow", "limit": LIMIT,
}  # fmt: skip
"""Each of gate and up sums 8 times 100. silu(800) * 800 is 640000, which is inf; 0 * inf in the next product is NaN."""


def test_a_layer_of_transformers_shows_the_fault():
    script = scripts(document(module=MODULE))[0]
    assert script.level == "module"
    assert script.needs == ("torch", "transformers")
    assert run(script).output == "expected 640000.0 (float32), seen nan (float16)"
    assert 'parameters["down_proj.weight"][3, 0] = 1.0' in script.text


def test_a_layer_is_of_its_parameters_dtype_where_its_input_is_wider():
    wider = {**MODULE, "leaves": [leaf("x", (1, 1, 8), 100.0, "float32")], "dtype": "float32"}
    text = scripts(document(module=wider))[0].text
    assert "LlamaModel(config).to(torch.float16)" in text
    assert "beyond 65504, the largest float16" in prose(text)


def test_a_parameter_that_is_not_there_is_no_answer():
    other = {**MODULE, "parameters": [leaf("lost.weight", (8, 8), 2.0), *MODULE["parameters"]]}
    assert run(scripts(document(module=other))[0]).exit_statuses == (125,)


def test_transformers_as_the_owner_is_said_of_its_layer():
    assert (
        "This is not a PyTorch bug: in LlamaMLP the operator is right, and its inputs are too large for float16."
        in prose(scripts(document(module=MODULE, owner="transformers"))[0].text)
    )


def offered(folder, *args, runs=1, **more):
    return offer(document(*args, **more), sys.executable, folder, runs=runs)


def test_the_smallest_script_is_offered_with_the_layer_beside_it(tmp_path):
    found = offered(tmp_path, ADD, MODULE, runs=3)
    assert (found["path"], found["level"], found["verified"], found["runs"]) == ("reproducer.py", "operator", True, 3)
    assert found["exit_statuses"] == [1, 1, 1]
    assert found["output"] == "expected 68384.0 (float64), seen inf (float16)"
    assert [item["path"] for item in found["others"]] == ["reproducer_module.py"]
    for item in (found, *found["others"]):
        text = (tmp_path / item["path"]).read_bytes()
        assert item["sha256"] == __import__("hashlib").sha256(text).hexdigest()


def test_a_script_that_does_not_show_it_is_said_not_to(tmp_path):
    sound = {**ADD, "leaves": [leaf("a", (1,), 1.0), leaf("b", (1,), 1.0)]}
    found = offered(tmp_path, sound)
    assert not found["verified"]
    assert found["reason"] == (
        "The script has a + b alone, without the model. The fault does not show: it ended with exit status 0."
    )
    assert (tmp_path / "reproducer.py").exists()


def test_where_the_smallest_does_not_show_it_the_next_is_offered_and_that_is_said(tmp_path):
    sound = {**ADD, "leaves": [leaf("a", (1,), 1.0), leaf("b", (1,), 1.0)]}
    found = offered(tmp_path, sound, MODULE)
    assert (found["level"], found["verified"], found["path"]) == ("module", True, "reproducer.py")
    assert "A smaller one (a + b alone, without the model) did not show it." in found["reason"]
    assert [item["path"] for item in found["others"]] == [None, None]


def test_a_public_function_that_does_not_show_it_is_tried_by_the_operators_own_name(tmp_path, monkeypatch):
    # 2.0 ** x is spelled with a sign that is made wrong here, as if the public function went another way.
    monkeypatch.setitem(__import__("repro.reproducer.calls", fromlist=["INFIX"]).INFIX, "add", "-")
    found = offered(tmp_path, ADD)
    assert found["verified"]
    assert "torch.ops.aten.add.Tensor(a, b)" in (tmp_path / "reproducer.py").read_text()


def test_another_bad_value_is_another_fault(tmp_path):
    found = offered(tmp_path, {**ADD, "seen": "nan"})
    assert not found["verified"]
    assert found["reason"].endswith(
        "It shows another value than nan, so another fault: expected 68384.0 (float64), seen inf (float16)"
    )


def test_scripts_of_an_earlier_run_do_not_stay(tmp_path):
    (tmp_path / "reproducer_module.py").write_text("old")
    offered(tmp_path, ADD)
    assert [path.name for path in tmp_path.iterdir()] == ["reproducer.py"]


def test_the_listener_is_told_of_each_script(tmp_path):
    listener = Listener()
    offer(document(ADD), sys.executable, tmp_path, listener, runs=1)
    assert listener.heard == [("note", "verifying a script: a + b alone, without the model")]


@pytest.mark.parametrize("changed", [{"verdict": "good"}, {"reduction": None}])
def test_nothing_is_offered_where_there_is_nothing_to_show(tmp_path, changed):
    assert offered(tmp_path, ADD, **{"reduction": {"program": ADD}, **changed}) is None
    assert not list(tmp_path.iterdir())
