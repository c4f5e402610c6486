"""Whose fault it is: each rule, with what must stand in its reason, and what must never be called somebody's."""

import re

import pytest
from support.reduced import ANSWER, ORIGIN, call, leaf, program

from repro.core.answer import Ablation, ModelInfo, Reproducer
from repro.core.encoding import replace
from repro.core.finite.reference import Reference
from repro.core.mechanisms import CODE, TABLE
from repro.core.payloads import (
    Bisect,
    CameIn,
    Cause,
    Environment,
    Figures,
    Files,
    Held,
    Largest,
    Listing,
    Load,
    Misplaced,
    Reduction,
    Rounding,
    Script,
    WeightFile,
    Weights,
)
from repro.core.records import Case, Kind, Outcome
from repro.core.sentences import origin_sentence
from repro.diagnosis.known import Exclusion
from repro.diagnosis.owner import ATTENTION, owner

BAD = Outcome.BAD
ADD, TANH, FLASH = "aten.add.Tensor", "aten.tanh.default", "aten._scaled_dot_product_flash_attention_for_cpu.default"
VERIFIED = Reproducer(level="operator", path="reproducer.py", verified=True, runs=3)
EXCLUDED = Exclusion("x", "float16", "https://example.org/doc", "float16 is not supported", "use bfloat16")


def answered(kind="nonfinite", **parts):
    """A bad run of a model from the Hub whose origin is not known."""
    model = ModelInfo(id="gpt2")
    return replace(ANSWER, **{"kind": Kind(kind), "model": model, "case": Case("gpt2", dtype="float16"),
                              "origin": None, "workarounds": ("dtype=bfloat16",), **parts})  # fmt: skip


def born(parts=None, **changed):
    """The same run, with the overflow of Gemma's residual as its origin, in which something may be changed."""
    origin = replace(ORIGIN, **{"code": "transformers", "reference_value": 68394.8671875, **changed})
    return answered(origin=origin, **(parts or {}))


def alone(mechanism, expected, seen="nan", **more):
    """A reduction to one operator, and the script that shows it."""
    made = program([leaf("x", (1,), 1.0)], call("op", "x"), mechanism=mechanism, expected=expected, seen=seen)
    return {"reduction": Reduction(program=made), "reproducer": replace(VERIFIED, **more)}


def test_a_good_run_has_no_owner():
    assert owner(replace(answered(), verdict=Outcome.GOOD)) is None


def files(*sha256):
    return Files(verdict=BAD, files=tuple(WeightFile(name="x", sha256=value) for value in sha256))


@pytest.mark.parametrize(
    ("kind", "parts", "project"),
    [
        ("weights", {"weights": Weights(verdict=BAD)}, "checkpoint"),
        ("files", {"files": files("match", "differs")}, "caller"),
        ("files", {"files": files("match", "match")}, "checkpoint"),
        ("files", {"files": files("match", None)}, None),
        ("load", {"load": Load(verdict=BAD, unset_buffers=("x",))}, "transformers"),
        ("load", {"load": Load(verdict=BAD, missing_keys=("x",))}, None),
        ("load", {"load": Load(verdict=BAD, unset_buffers=("x",)), "case": Case("x", trust_remote_code=True)}, None),
        ("nonfinite", {}, None),
    ],
)
def test_an_owner_only_where_a_step_supports_one(kind, parts, project):
    found = owner(answered(kind, **parts))
    assert found.project == project
    assert found.reason.endswith(".")


def misplaced(tensor="encoder.embed_tokens.weight", **more):
    wrong = Misplaced(tensor=tensor, holds="lm_head.weight", belongs="decoder.embed_tokens.weight")
    return {"load": Load(verdict=BAD, misplaced=(wrong,)), **more}


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (Cause(kind="prefix", file="module.", keys=3, explained=3, of=3), "3 of the 3 tensors .* with 'module.' at"),
        (Cause(kind="prefix", model="model.", keys=3, explained=3, of=3), "with no 'model.' at the start"),
        (Cause(kind="suffix", file=".g", model=".w", keys=2, explained=2, of=3), "'.g' in place of '.w' at the end"),
        (Cause(kind="renamed", file="q", model="query", keys=2, explained=4, of=6), "with 'q' in place of 'query' in"),
        (Cause(kind="transposed", keys=1, explained=1, of=1), "do not fit, transposed"),
        (Cause(kind="quantised", keys=1, explained=1, of=1), "quantised, and its configuration does not say so"),
    ],
)
def test_keys_that_the_file_has_in_another_way_are_the_checkpoints(cause, reason):
    found = owner(answered("load", load=Load(verdict=BAD, missing_keys=("a",), cause=cause)))
    assert found.project == "checkpoint"
    assert re.search(reason, found.reason)


def test_a_rule_for_less_than_half_of_the_keys_names_nobody():
    cause = Cause(kind="prefix", file="module.", keys=2, explained=2, of=4)
    assert owner(answered("load", load=Load(verdict=BAD, missing_keys=("a",), cause=cause))).project is None


@pytest.mark.parametrize(
    ("parts", "project"),
    [
        (misplaced(), "transformers"),
        (misplaced("decoder.embed_tokens.weight"), None),  # the configuration may tie what the file keeps apart
        (misplaced(case=Case("x", trust_remote_code=True)), None),
    ],
)
def test_a_tensor_with_the_values_of_another(parts, project):
    assert owner(answered("load", **parts)).project == project


WHY = "aten.add.Tensor is correct for these inputs: their result is too large for float16 (68394.9 exceeds 65504); "
WHY += "the output is finite with dtype=bfloat16. The cause is in "


@pytest.mark.parametrize(
    ("code", "project", "reason"),
    [
        ("transformers", "transformers", WHY + "the modeling code of Transformers (modeling_gemma3.py:416)."),
        ("__main__", "caller", WHY + "the script's own code (modeling_gemma3.py:416)."),
        ("transformers_modules", None,
         WHY + "the model's own code (modeling_gemma3.py:416). Report it to the model's authors."),
    ],
)  # fmt: skip
def test_the_code_that_calls_a_correct_operator_owns_it(code, project, reason):
    found = owner(born({"bisect": Bisect(dtype="float16")}, code=code))
    assert (found.project, found.reason) == (project, reason)


@pytest.mark.parametrize(
    ("environment", "project"),
    [
        (Environment(packages={"my-adapters": "1.0"}), "my-adapters"),
        (Environment(distributions={"My_Adapters": "1.0"}), "my-adapters"),
        (Environment(distributions={"adapters-ng": "1.0"}, modules={"my_adapters": "adapters-ng"}), "adapters-ng"),
        (Environment(distributions={"other": "1.0"}), None),
        (None, None),
    ],
)
def test_the_code_of_any_installed_package_is_that_packages(environment, project):
    found = owner(born({"bisect": Bisect(dtype="float16"), "environment": environment}, code="my_adapters"))
    assert found.project == project


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_code_is_named_for_the_mechanisms_that_the_table_lets_it_own(row):
    found = owner(born(mechanism=row.name))
    assert (found.project == "transformers") is (CODE in row.owners)
    assert row.cause.format(dtype="the dtype") in found.reason
    assert owner(born(mechanism=row.name, code=None)).project is None
    assert owner(born({"load": Load(verdict=BAD)}, mechanism=row.name)).project is None


def scripted(case=Case("/x/script.py"), **changed):  # noqa: B008 - never changed
    """A bad script with this origin."""
    return owner(born({"case": case, "weights": None}, **changed))


@pytest.mark.parametrize(
    ("changed", "project"),
    [
        ({"mechanism": "compiler", "layer": "inductor"}, "pytorch"),
        ({"mechanism": "compiler", "layer": "my_backend"}, None),  # of the script's own
        ({"mechanism": "kernel", "layer": "fast path"}, "pytorch"),
        ({"mechanism": "kernel", "reference_value": 0.5, "limit": 65504.0}, "pytorch"),
        ({"mechanism": "kernel", "reference_value": 0.5, "inputs": (Figures(nan=1),)}, None),
        ({"mechanism": "overflow", "reference_value": 0.5, "limit": 65504.0}, None),  # a partial result
        ({"mechanism": "invalid", "library": "torch.nn.init", "code": "__main__"}, "pytorch"),
        ({"mechanism": "invalid", "library": "torch.optim.adam", "code": "__main__"}, "caller"),
        ({"mechanism": "invalid", "decided_by": "integers", "phase": "loss"}, "caller"),
        ({"mechanism": "invalid", "decided_by": "integers", "phase": "forward"}, "transformers"),
        ({"mechanism": "written_outside", "code": "__main__"}, None),
        ({"mechanism": "bad_input", "came_in": CameIn(kind="data", entry_code="__main__")}, "caller"),
        ({"mechanism": "bad_input", "came_in": CameIn(kind="data", entry_code="diffusers")}, None),
        (
            {"mechanism": "bad_input", "came_in": CameIn(kind="data", entry_code="transformers", held_by="audio")},
            "caller",
        ),
        ({"mechanism": "literal", "code": "__main__", "tensor": "x"}, "caller"),
        ({"mechanism": "bad_weights", "came_in": CameIn(kind="parameter"), "tensor": "weight"}, "checkpoint"),
        ({"mechanism": "overflow", "largest_weight": Largest(tensor="w", value=4e4)}, None),
    ],
)
def test_whose_a_scripts_fault_is(changed, project):
    assert scripted(**changed).project == project


def test_a_models_weight_near_the_limit_of_its_dtype_is_the_checkpoints():
    near = Weights(verdict=Outcome.GOOD, absmax=Largest(tensor="w", value=4e4))
    assert owner(born({"weights": near})).project == "checkpoint"
    far = Weights(verdict=Outcome.GOOD, absmax=Largest(tensor="w", value=60.0))
    assert owner(born({"weights": far})).project == "transformers"


@pytest.mark.parametrize(("value", "limit", "helps"), [(4e4, 65504.0, True), (3e38, 3.4028235e38, False)])
def test_a_wider_dtype_is_advised_only_where_there_is_one(value, limit, helps):
    near = Weights(verdict=Outcome.GOOD, absmax=Largest(tensor="w", value=value))
    found = owner(born({"weights": near}, limit=limit))
    assert found.project == "checkpoint"
    assert (found.advice is not None) is helps


@pytest.mark.parametrize(
    ("name", "project"), [("fast_path=off", "pytorch"), ("mkldnn=off", "pytorch"), ("threads=1", None)]
)
def test_a_part_of_pytorch_without_which_a_script_is_good_is_pytorchs(name, project):
    bad = answered(case=Case("/x/script.py"), workarounds=(name,))
    assert owner(bad).project == project


@pytest.mark.parametrize(
    ("op", "mechanism", "expected", "project"),
    [
        (TANH, "kernel", 0.5, "pytorch"),
        (FLASH, "masked_row", None, "pytorch"),
        (FLASH, "overflow", 0.2, "pytorch"),
        (TANH, "unknown", 0.5, None),
        (TANH, "kernel", None, None),
        (TANH, "kernel", "nan", None),
        (ADD, "kernel", 68384.0, None),  # beyond the dtype
    ],
)
def test_an_operator_that_is_wrong_by_itself_is_pytorchs(op, mechanism, expected, project):
    found = owner(born(alone(mechanism, expected), op=op, mechanism=mechanism, code=None))
    assert found.project == project
    assert (op in found.reason and "(reproducer.py, with PyTorch alone, run 3 times)" in found.reason) is bool(project)


@pytest.mark.parametrize(
    ("largest", "expected", "project"),
    [(200.0, 0.5, "pytorch"), (200.0, 6e37, None), (1e30, 0.5, None), (None, 0.5, None), ("inf", 0.5, None)],
)
def test_an_overflow_within_an_operator_is_pytorchs_where_its_numbers_are_ordinary(largest, expected, project):
    parts = alone("overflow", expected)
    made = replace(parts["reduction"].program, limit=3.4e38)
    given = (Figures(dtype="float32", min=-1.0, max=largest),)
    row = {"mechanism": "overflow", "op": TANH, "inputs": given, "limit": 3.4e38, "reference_value": expected}
    assert owner(born({**parts, "reduction": Reduction(program=made)}, code=None, **row)).project == project


@pytest.mark.parametrize("more", [{"verified": False}, {"level": "model"}])
def test_without_a_verified_script_of_torch_alone_nothing_is_called_pytorchs(more):
    assert owner(born(alone("kernel", 0.5, **more), mechanism="kernel")).project is None
    assert owner(born({**alone("kernel", 0.5), "reproducer": None}, mechanism="kernel")).project is None


@pytest.mark.parametrize(("library", "project"), [(ATTENTION, "pytorch"), (None, "caller")])
def test_a_masked_row_in_pytorchs_own_attention_is_pytorchs(library, project):
    row = {"op": "aten._softmax.default", "mechanism": "masked_row", "code": "__main__", "library": library}
    assert owner(born(alone("masked_row", None), **row)).project == project


def departed(op, script):
    """A run whose operator is farther from float64 than rounding allows, by itself, and the script that was made."""
    origin = replace(ORIGIN, op=op, mechanism="kernel", code=None, reference_value=None)
    reference = Reference(verdict=Outcome.BAD, departed=1, origin=origin)
    return answered(origin=origin, reference=reference, bisect=None, reproducer=script)


@pytest.mark.parametrize(
    ("op", "script", "project", "says"),
    [
        (TANH, None, None, "No script of PyTorch alone was run"),
        (TANH, replace(VERIFIED, exit_statuses=(1, 1, 1)), "pytorch", "(reproducer.py, run 3 times)"),
        (TANH, replace(VERIFIED, verified=False, exit_statuses=(0, 0, 0)), None, "(reproducer.py, run 3 times)"),
        (TANH, replace(VERIFIED, verified=False, exit_statuses=(1, 0, 1)), None, "is not ruled out"),
        (TANH, replace(VERIFIED, verified=False, level="model", exit_statuses=(0, 0, 0)), None, "not ruled out"),
        ("mine.tanh.default", None, None, "rounding allows. It is no operator of PyTorch's own"),
    ],
)
def test_an_operator_that_is_right_in_a_clean_process_is_not_called_pytorchs(op, script, project, says):
    found = owner(departed(op, script))
    assert found.project == project
    assert says in found.reason


def test_an_overflow_that_is_swallowed_is_no_fault_of_the_operator():
    origin = replace(ORIGIN, mechanism="overflow", code="mine", confirmed_by="widened")
    reference = Reference(verdict=Outcome.BAD, origin=origin)
    found = owner(answered(origin=origin, reference=reference, bisect=None, reproducer=None))
    assert found.project is None
    assert f"{origin.op} is correct for these inputs: their result is too large" in found.reason


def test_random_weights_have_an_owner_only_where_an_operator_is_wrong_by_itself():
    seeded = {"model": ModelInfo(id="gpt2", weights="random", seed=0)}
    assert owner(born(seeded)).project is None
    assert owner(born({**alone("kernel", 0.5), **seeded}, mechanism="kernel")).project == "pytorch"


def test_a_weight_that_the_asked_dtype_cannot_hold_is_the_callers_with_advice():
    found = owner(born(tensor="wte.weight", tensor_index=(0,), reference_value=70000.0))
    assert (found.project, "wte.weight" in found.reason, "bfloat16" in found.advice) == ("caller", True, True)


def test_what_the_documentation_excludes_is_the_callers_with_its_source():
    found = owner(born(), EXCLUDED)
    assert (found.project, found.advice) == ("caller", "use bfloat16")
    assert "https://example.org/doc" in found.reason


def test_bad_bytes_are_the_checkpoints_whatever_the_documentation_says():
    assert owner(answered("weights", weights=Weights(verdict=BAD)), EXCLUDED).project == "checkpoint"


@pytest.mark.parametrize(("not_judged", "is_it"), [((), True), (("aten.sort.default",), False)])
def test_what_is_rounding_alone_is_nobodys(not_judged, is_it):
    rounding = Rounding(within=True, operators=7, not_judged=not_judged, op=ADD, ratio=0.5, allowed=2.0)
    found = answered("divergent", bisect=Bisect(rounding=rounding))
    assert found.is_rounding is is_it
    assert (owner(found).project, "not a bug" in owner(found).reason) == (None, is_it)


def test_what_has_a_nan_in_it_is_not_called_rounding():
    rounding = Rounding(within=True, operators=1, op=ADD, ratio=0.5, allowed=1.0, nonfinite=True)
    found = answered("divergent", bisect=Bisect(rounding=rounding))
    assert not found.is_rounding
    assert "not a bug" not in owner(found).reason
    assert "NaN or Inf" in owner(found).reason


@pytest.mark.parametrize(
    ("mechanism", "text", "project"),
    [
        ("overflow", "model = A(B()).half()", None),
        ("overflow", "model = A.from_pretrained('x').half()", "transformers"),
        ("masked_row", "model = A(B()).half()", "transformers"),
    ],
)
def test_an_overflow_by_weights_that_a_script_draws_is_nobodys(mechanism, text, project):
    reduction = Reduction(listing=Listing(text=text))
    parts = {"case": Case("/x/script.py"), "reduction": reduction}
    assert owner(born(parts, mechanism=mechanism, limit=65504.0)).project == project


@pytest.mark.parametrize(("unseeded", "advice"), [(("torch",), "Seed it"), ((), "Make it end")])
def test_what_goes_away_by_chance_is_nobodys(unseeded, advice):
    told = Script(verdict=BAD, unseeded=unseeded, further_runs=5, otherwise=3, other_end="good: 1.0")
    bad = answered(case=Case("/x/script.py"), workarounds=("fast_path=off",), script=told)
    found = owner(bad)
    assert (found.project, "Not deterministic: 3 of 5" in found.reason) == (None, True)
    assert found.advice.startswith(advice)


@pytest.mark.parametrize(("in_file", "project"), [(True, "checkpoint"), (False, None)])
def test_a_number_that_decides_whatever_the_module_is_given_is_the_files(in_file, project):
    number = Held(tensor="norm.running_var", index=(5,), value=-0.7, instead=0.7, in_file=in_file)
    found = owner(born(mechanism="invalid", code="transformers", held=number))
    assert "; norm.running_var holds -0.7 at [5]" in origin_sentence(replace(ORIGIN, held=number), None)
    assert found.project == project
    assert "norm.running_var holds -0.7 at [5]. With 0.7 in its place" in found.reason


WIDER_IS_BAD = Ablation(name="dtype=float32", verdict=BAD)
WIDE = Weights(verdict=Outcome.GOOD, parameters=100, bytes=400)


@pytest.mark.parametrize(
    ("parts", "project"),
    [
        ({}, "caller"),
        ({"load": Load(verdict=Outcome.GOOD, config_dtype="float32")}, "caller"),
        ({"load": Load(verdict=Outcome.GOOD, config_dtype="bfloat16")}, "transformers"),
        ({"load": Load(verdict=Outcome.GOOD, config_dtype="float16")}, "transformers"),
        ({"weights": replace(WIDE, bytes=200)}, "transformers"),  # as Gemma 3 270M is published
        ({"weights": replace(WIDE, bytes=60)}, "transformers"),  # quantised
        ({"case": Case("gpt2")}, "transformers"),  # the dtype is not the caller's choice
        ({"workarounds": ()}, "caller"),  # no ablation was asked for
        ({"workarounds": (), "ablations": (WIDER_IS_BAD,)}, "transformers"),
    ],
)
def test_who_asks_for_less_than_a_float32_checkpoint_is_published_in_owns_the_overflow(parts, project):
    given = {"weights": WIDE, "load": Load(verdict=Outcome.GOOD), "workarounds": ("dtype=float32",), **parts}
    found = owner(born(given))
    assert found.project == project
    assert ("float16 was asked for" in found.reason) is (project == "caller")


Q, SIBLING = "encoder.block.1.q.weight", "encoder.block.0.q.weight"
LACKING = Load(verdict=BAD, class_="T5", architectures=("T5",), missing_keys=(Q,), beside_missing={Q: SIBLING})


@pytest.mark.parametrize(
    ("changed", "more", "project"),
    [
        ({}, {}, "checkpoint"),
        ({"missing_keys": ("head.weight",), "beside_missing": {}}, {}, "checkpoint"),
        ({"beside_missing": {}}, {}, None),  # no layer of the file has it: the class may have got it since
        ({"architectures": ("Other",)}, {}, None),
        ({"unexpected_keys": ("encoder.block.1.query.weight",)}, {}, None),
        ({}, {"case": Case("x", trust_remote_code=True)}, None),
        ({}, {"case": Case("x", factory="make.py:model")}, None),
    ],
)
def test_a_tensor_that_the_file_lacks_is_the_checkpoints_where_its_configuration_asks_for_it(changed, more, project):
    found = owner(answered("load", load=replace(LACKING, **changed), **more))
    assert found.project == project
    if project is not None:
        assert replace(LACKING, **changed).missing_keys[0] in found.reason


@pytest.mark.parametrize(
    ("changed", "rounding", "says"),
    [
        ({"apart": 3.0}, True, "This is not a bug"),
        ({"apart": 5e6}, False, "comes from what the script passes to them, and from no operator."),
        ({"apart": 5e6, "not_judged": ("aten.normal_.default",), "drawn": ("aten.normal_.default",)}, False,
         "aten.normal_.default draws random numbers."),
        ({"apart": 3.0, "not_judged": ("aten.normal_.default",), "drawn": ("aten.normal_.default",)}, False,
         "comes from rounding, or from what the script passes to them."),
        ({"apart": 5e6, "not_judged": ("mine.op.default",)}, False, "held against themselves alone: mine.op.default."),
        ({"apart": 5e6, "of_itself": ("mine.op.default",)}, False, "held against themselves alone: mine.op.default."),
        ({"apart": 3.0, "wrapped": "aten.sub.Tensor in uint8 (a.py:3) gives 246 where -10 is right"}, False,
         "gives 246 where -10 is right: it went beyond the integers of its dtype."),
    ],
)  # fmt: skip
def test_where_all_operators_are_right_it_is_said_where_the_difference_comes_from(changed, rounding, says):
    found = Rounding(within=True, operators=119, op=ADD, ratio=0.16, allowed=1.0, **changed)
    bad = answered(case=Case("/x/script.py"), bisect=Bisect(rounding=found), workarounds=())
    assert bad.is_rounding is rounding
    assert says in owner(bad).reason
    assert owner(bad).project is None


@pytest.mark.parametrize(
    ("changed", "project"),
    [
        ({"decided_by": "default constant", "library": "torch.nn.functional"}, "pytorch"),
        ({"decided_by": "default constant", "library": "__main__"}, "caller"),
        ({"decided_by": "constant", "library": "torch.nn.functional"}, "caller"),
        ({"decided_by": "constant", "library": "torch.nn.functional", "code": "transformers"}, None),
    ],
)
def test_whose_constant_is_0_in_the_dtype(changed, project):
    found = scripted(**{"mechanism": "invalid", "code": "__main__", "note": "eps=1e-12 is 0 in float16", **changed})
    assert (found.project, "eps=1e-12 is 0 in float16" in found.reason) == (project, True)
