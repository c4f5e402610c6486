"""Scripts of operators and of a module, made of a reduction: what they say and what they print.

The truth is arithmetic.
"""

import ast
import re
import sys

import pytest
from support.reduced import ADD, CELL, LIMIT32, MODULE, ORIGIN, call, elements, leaf, listed, program, reduced
from support.running import outcome

from repro.core.encoding import replace
from repro.core.payloads import Environment, Expected
from repro.reproducer.frame import docstring
from repro.reproducer.offer import scripts
from repro.reproducer.verify import UNCAUGHT, verify

BMM = program(
    [leaf("x", (1, 1, 1), 280.0), leaf("mat2", (1, 1, 1), 280.0)],
    call("aten.bmm.default", "x", "mat2"), expected=78400.0,
)  # fmt: skip
SOFTMAX = program(
    [leaf("x", (1, 2), "-inf", "float32")], call("aten._softmax.default", "x", -1, False), seen="nan",
    mechanism="masked_row", limit=LIMIT32,
)  # fmt: skip
LOG = program(
    [leaf("x", (1,), 0.0, "float32")], call("aten.log.default", "x"), seen="-inf", expected="-inf",
    mechanism="divide_by_zero", limit=LIMIT32,
)  # fmt: skip
ZERO_BY_ZERO = program(
    [leaf("x", (1,), 0.0, "float32"), leaf("y", (1,), 0.0, "float32")], call("aten.div.Tensor", "x", "y"), seen="nan",
    expected="nan", mechanism="invalid", limit=LIMIT32,
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
SUBTRACTED = program(
    [leaf("x", (2,), listed(300.0, 1.0)), leaf("y", (2,), 300.0)],
    call("aten.dot.default", "x", "y", name="out0"),
    call("aten.sub.Tensor", {"ref": "out0"}, 65000.0),
    index=[], expected=25300.0,
)  # fmt: skip
"""300 * 300 + 300 is 90300, beyond float16; what remains of it is not."""
QKV = [leaf(name, (1, 1, 1, 1), 1.0, "float32") for name in ("query", "key", "value")]
FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"
ATTENTION = program(
    [*QKV, leaf("attn_mask", (1, 1), "-inf", "float32")],
    call(FLASH, "query", "key", "value", attn_mask="attn_mask"), seen="nan", mechanism="masked_row", limit=LIMIT32,
)  # fmt: skip
BAD = {
    "add": ADD, "bmm": BMM, "softmax": SOFTMAX, "log": LOG, "0/0": ZERO_BY_ZERO, "cast": CAST, "several": SEVERAL,
    "subtracted": SUBTRACTED,
}  # fmt: skip
FOUND = "Found in Gemma3ForCausalLM (gemma) with random weights (seed 0): model.layers.7, modeling_gemma3.py:416, token"


def first(program_, **more):
    return scripts(reduced(program_, **more))[0]


def of_module(module=MODULE, **more):
    return scripts(reduced(module=module, **more))[0]


def prose(script):
    """The docstring as one line."""
    return " ".join(ast.get_docstring(ast.parse(script.text)).split())


def run(script):
    """Exit status and output."""
    return outcome(script.text, script.argv)[:2]


PRINTED = {
    "add": "seen inf in float16, right is 68384.0 (float64 of the same inputs)",
    "bmm": "seen inf in float16, right is 78400.0 (float64 of the same inputs)",
    "softmax": "seen nan in float32 and nan in float64: the softmax of a row that is -inf throughout is 0 / 0",
    "log": "seen -inf in float32 and -inf in float64: a division by zero, or the pole of a function",
    "0/0": "seen nan in float32 and nan in float64: an invalid operation such as inf - inf, 0 * inf or 0 / 0",
    "cast": "seen inf in float16, right is 70000.0 (float64 of the same inputs)",
    "several": "seen nan in float16, right is 1.0 (float64 of the same inputs)",
    "subtracted": "seen inf in float16, right is 25300.0 (float64 of the same inputs)",
}


@pytest.mark.parametrize("name", BAD)
def test_a_script_shows_its_fault_by_public_functions_and_by_the_operators_own_names(name):
    public, *_, by_name = scripts(reduced(BAD[name]))
    assert "torch.ops.aten." in by_name.text
    assert run(public) == run(by_name) == (1, PRINTED[name])
    assert f"seen {public.seen} " in PRINTED[name]


SAID = {
    "add": "55008 + 13376 exceeds 65504, the largest float16 number, so a + b gives inf. This is not a PyTorch bug. "
           "The operator is correct for these inputs: their result is too large for float16.",
    "bmm": "torch.bmm gives inf: the result, 78400 in float64, exceeds 65504, the largest float16 number.",
    "softmax": "torch.softmax gives nan: the softmax of a row that is -inf throughout is 0 / 0.",
    "log": "torch.log gives -inf: a division by zero, or the pole of a function.",
    "0/0": "x / y gives nan: an invalid operation such as inf - inf, 0 * inf or 0 / 0.",
    "subtracted": "out0 - 65000.0 gives inf in float16 where float64 gives 25300 from the same inputs: an intermediate "
                  "result exceeds 65504, the largest float16 number. Found",
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_the_docstring_says_what_happens(name):
    assert prose(first(BAD[name])).startswith(SAID[name])


def test_a_kernel_is_held_against_float64_and_an_unknown_mechanism_claims_nothing():
    kernel = replace(LOG, mechanism="kernel", expected=Expected(value=0.5, dtype="float64"))
    assert prose(first(kernel)).startswith("torch.log gives -inf where float64 gives 0.5 from the same finite inputs.")
    assert prose(first(replace(kernel, mechanism="unknown"))).startswith("torch.log gives -inf from finite inputs.")


@pytest.mark.parametrize(
    ("made", "correct"),
    [(ADD, True), (BMM, True), (SOFTMAX, True), (LOG, True), (ZERO_BY_ZERO, True), (SUBTRACTED, False),
     (ATTENTION, False)],
)  # fmt: skip
def test_only_an_operator_that_has_no_other_answer_is_called_correct(made, correct):
    assert ("not a PyTorch bug" in prose(first(made))) is correct


def test_a_module_is_never_called_correct():
    assert "PyTorch bug" not in prose(of_module())


def test_the_float64_copy_stands_beside_the_call():
    assert "seen = (a + b)[0]\nexpected = (a.double() + b.double())[0]\n" in first(ADD).text


def test_a_cast_is_widened_in_the_reference():
    assert "seen = x.to(torch.float16)[0]\nexpected = x.double().to(torch.float64)[0]\n" in first(CAST).text


def test_a_norm_of_which_a_later_result_is_not_wanted_is_the_public_function():
    leaves = [leaf("x", (2,), listed(-1.0, 1.2)), leaf("weight", (2,), elements(1.0, ((1,), 60000.0)))]
    norm = call("aten.native_layer_norm.default", "x", {"list": [{"const": 2}]}, "weight", None, 0.0)
    # The two values stand at one standard deviation to both sides of their mean: -1 and 1.
    script = first(program(leaves, norm, index=[1], expected=60000.0))
    assert "torch.nn.functional.layer_norm(x, [2], weight, None, 0.0)[1]" in script.text
    status, output = run(script)
    assert status == 0  # 60000 is within float16
    assert float(re.search(r"right is ([\d.]+)", output)[1]) == pytest.approx(60000.0, rel=1e-2)


def test_one_of_several_results_is_taken_by_its_number():
    leaves = [leaf("x", (2,), listed(1.0, 3.0), "float32")]
    mean = call("aten.var_mean.correction", "x", {"list": [{"const": 0}]}, correction=0)
    script = first(program(leaves, mean, index=[], result=1, expected=2.0))
    assert run(script)[1] == "seen 2.0 in float32, right is 2.0 (float64 of the same inputs)"


def test_without_a_reference_none_is_claimed():
    script = first(replace(ADD, expected=None))
    assert "expected =" not in script.text
    assert run(script)[1] == "seen inf in float16, right is a finite number: the inputs are finite"


def test_a_masked_row_of_attention_is_asked_of_the_public_function_and_of_the_formula():
    script = first(ATTENTION)
    assert "q = k = v = torch.ones((1, 1, 1, 1), dtype=torch.float32)" in script.text
    assert "scaled_dot_product_attention(q, k, v, attn_mask=mask)" in script.text
    assert re.fullmatch(r"seen \S+ in float32, right is 0.0 \(float64 of the same inputs\)", run(script)[1])
    assert "for a query whose keys are all masked out" in prose(script)


def test_a_script_of_attention_has_fifteen_lines_in_all():
    assert len([line for line in first(ATTENTION, origin=None).text.splitlines() if line]) <= 15


NORMAL = {"kind": "normal", "seed": 0, "mean": 0.0, "std": 1.0}
MASK = leaf("attn_mask", (3, 3), listed(0.0, -9.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0), "float32")


def attention(heads=(1, 1, 1), leaves=(), length=3, **more):
    qkv = [
        leaf(name, (1, count, length, 2), NORMAL, "float32")
        for name, count in zip(("query", "key", "value"), heads, strict=True)
    ]
    made = call(FLASH, "query", "key", "value", **more)
    return program([*qkv, *leaves], made, mechanism="kernel", expected=1.0, seen="nan", index=(0, 0, 1, 1))


@pytest.mark.parametrize(
    "made",
    [attention(is_causal=True), attention(scale=0.25), attention(leaves=[MASK], attn_mask="attn_mask")],
    ids=["causal", "scale", "mask"],
)
def test_the_formula_of_attention_is_what_a_sound_kernel_gives(made):
    seen, expected = re.search(r"seen (\S+) in float32, right is (\S+) ", run(first(made))[1]).groups()
    assert float(expected) == pytest.approx(float(seen), rel=1e-5)


def test_the_formula_of_attention_shares_keys_among_heads_and_takes_a_bool_mask():
    assert "k.double().repeat_interleave(2, -3).mT" in first(attention(heads=(2, 1, 1))).text
    masked = attention(leaves=[leaf("attn_mask", (3, 3), True, "bool")], attn_mask="attn_mask")
    assert '.masked_fill(~mask, float("-inf"))' in first(masked).text


def test_an_accelerator_has_the_operator_or_the_module_and_the_cpu_the_reference():
    text = first(replace(ADD, device="cuda:0")).text
    assert 'a = torch.full((1,), 55008.0, dtype=torch.float16).to("cuda:0")' in text
    assert "expected = (a.cpu().double() + b.cpu().double())[0]" in text
    text = of_module(cell=replace(CELL, device="cuda")).text
    assert 'LlamaModel(config).to("cuda", torch.float16)' in text
    assert 'x = torch.full((1, 1, 8), 100.0, dtype=torch.float16).to("cuda")' in text


def test_the_docstring_says_where_it_was_found_and_nothing_private():
    script = first(ADD)
    assert prose(script).endswith(f"{FOUND} 0 '<bos>', channel 163. Generated by repro-kit 0.1.0.")
    assert "secret" not in script.text


def test_the_header_pins_what_is_needed_without_the_local_version():
    text = first(ADD).text
    assert text.startswith('# /// script\n# requires-python = "==3.11.*"\n# dependencies = ["torch==2.13.0"]\n# ///\n')


def test_an_old_torch_is_kept_from_numpy_2():
    made = of_module(cell=replace(CELL, torch="2.0.1"), environment=Environment(packages={"numpy": "1.26.4"}))
    assert '["torch==2.0.1", "transformers==5.23.0", "numpy==1.26.4"]' in made.text


@pytest.mark.parametrize("name", [*BAD, "attention"])
def test_scripts_keep_to_the_grammar_of_python_3_9(name):
    for script in scripts(reduced({**BAD, "attention": ATTENTION}[name], MODULE)):
        ast.parse(script.text, feature_version=(3, 9))
        assert script.text.isascii()
        assert "repro." not in script.text.replace("repro-kit", "")


def test_a_script_of_one_operator_is_short():
    assert all(first(made).lines <= 15 for made in BAD.values() if len(made.calls) == 1)


def test_lines_are_counted_without_header_docstring_and_blanks():
    assert first(ADD).lines == 7


HOSTILE = ['"""', "\\", "'''", "\n# /// script\n", "{x}", "\x00\x1b[31m", "é\u202e", "# /// script"]


@pytest.mark.parametrize("token", HOSTILE)
def test_a_hostile_token_stays_text(token):
    script = first(ADD, origin=replace(ORIGIN, token=token))
    assert script.text.isascii()
    assert len(re.findall(r"(?m)^# /// script$", script.text)) == 1
    code, expected = (ast.dump(ast.Module(ast.parse(text).body[1:], [])) for text in (script.text, first(ADD).text))
    assert code == expected


def test_a_docstring_is_wrapped():
    lines = docstring("word " * 100)
    assert max(map(len, lines)) <= 120
    assert ast.literal_eval("\n".join(lines)).split() == ["word"] * 100


def test_names_that_mean_something_else_are_changed():
    leaves = [leaf("torch", (1,), 60000.0), leaf("seen", (1,), 60000.0)]
    assert run(first(program(leaves, call("aten.add.Tensor", "torch", "seen"), expected=120000.0)))[0] == 1


@pytest.mark.parametrize(
    "script",
    [
        first(program([leaf("x", (1, 2), 1.0)], call("aten.mm.default", "x", "x"), expected=1.0)),
        of_module(replace(MODULE, parameters=(leaf("lost.weight", (8, 8), 2.0), *MODULE.parameters))),
    ],
    ids=["an operator that refuses its inputs", "a parameter that is not there"],
)
def test_an_exception_before_the_answer_is_no_fault(script):
    assert run(script)[0] == UNCAUGHT


def test_a_package_that_is_missing_is_no_fault():
    text = first(ADD).text.replace("import torch", "import no_torch_here")
    assert verify(sys.executable, text, runs=1).exit_statuses == (UNCAUGHT,)


def test_a_module_of_transformers_shows_the_fault_in_a_clean_interpreter():
    script = of_module()
    assert (script.level, script.needs) == ("module", ("torch", "transformers"))
    assert 'parameters["down_proj.weight"][3, 0] = 1.0' in script.text
    found = verify(sys.executable, script.text, script.argv, runs=1)
    assert (found.exit_statuses, found.output) == (
        (1,),
        "seen nan in float16, right is 640000.0 (float32 of the same inputs)",
    )


def test_a_module_is_of_its_parameters_dtype_where_its_input_is_wider():
    script = of_module(replace(MODULE, leaves=(leaf("x", (1, 1, 8), 100.0, "float32"),), dtype="float32"))
    assert "LlamaModel(config).to(torch.float16)" in script.text
    assert "exceeds 65504, the largest float16 number (aten.mul.Tensor, modeling_llama.py:177)." in prose(script)
