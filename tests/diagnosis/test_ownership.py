"""Whose fault it is: each rule, with what must stand in its reason, and what must never be called somebody's."""

import pytest
from support.hosting import BISECT, ORIGIN, observation, observed

from repro.core.records import Case, Cell, Header
from repro.diagnosis.known import Exclusion
from repro.diagnosis.owner import owner
from repro.diagnosis.verdict import judge
from repro.report.document import document

SOUND = ("environment", "files", "weights", "load", "forward", "bisect")
BAD_FORWARD = observation("forward", "bad", "every logit is NaN", {"logits": {"nan": 60}})
VERIFIED = {"path": "reproducer.py", "level": "operator", "verified": True, "runs": 3, "others": []}
RESIDUAL = {"mechanism": "overflow", "seen": "inf", "expected": {"value": 68384.0}, "limit": 65504.0}


def answered(*changed, case=None, reproducer=None, program=None):
    """verdict.json of a sound run in which some steps came out otherwise."""
    case = case or Case("gpt2", dtype="float16", prompts=("a",))
    steps = {**observed(*map(observation, SOUND)), **observed(*changed)}
    header = Header(case, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "gpt2"), "2026")
    found = document(judge(steps, case), steps, header, None, ("repro", "gpt2"))
    return {**found, "reproducer": reproducer, "reduction": {"program": program}}


def born(case=None, reproducer=None, program=None, **changed):
    """verdict.json of a NaN whose origin is the overflow of Gemma's residual, with some of it changed."""
    origin = {**ORIGIN, "code": "transformers", **changed}
    bisect = observation("bisect", "bad", payload={**BISECT, "origin": origin})
    ablation = observation("ablation:dtype=bfloat16")
    return answered(BAD_FORWARD, bisect, ablation, case=case, reproducer=reproducer, program=program)


@pytest.mark.parametrize(
    ("changed", "project"),
    [
        (observation("weights", "bad"), "checkpoint"),
        (observation("files", "bad", payload={"files": [{"sha256": "differs"}]}), "caller"),
        (observation("files", "bad", payload={"files": [{"sha256": "match"}]}), "checkpoint"),
        (observation("files", "bad", payload={"files": [{"sha256": None}]}), None),
        (observation("load", "bad", payload={"unset_buffers": ["x"]}), "transformers"),
        (observation("load", "bad", payload={"missing_keys": ["x"]}), None),
        (BAD_FORWARD, None),
    ],
)
def test_an_owner_only_where_a_step_supports_one(changed, project):
    found = owner(answered(changed))
    assert found.project == project
    assert found.reason.endswith(".")


def test_a_good_run_has_no_owner():
    assert owner(answered()) is None


def test_a_right_operator_that_modelling_code_feeds_is_transformers():
    found = owner(born(reproducer=VERIFIED, program=RESIDUAL))
    assert found.project == "transformers"
    assert "aten.add.Tensor is right: 68394.9 is beyond 65504" in found.reason
    assert "modeling_gemma3.py:416" in found.reason
    assert "finite with dtype=bfloat16" in found.reason


@pytest.mark.parametrize("mechanism", ["overflow", "invalid", "divide_by_zero", "masked_row", "unset_memory"])
@pytest.mark.parametrize("code", ["transformers", "__main__", "transformers_modules", None])
def test_the_code_that_leads_there_owns_it(mechanism, code):
    projects = {"transformers": "transformers", "__main__": "caller"}
    assert owner(born(mechanism=mechanism, code=code)).project == projects.get(code)


@pytest.mark.parametrize(
    ("op", "program"),
    [
        ("aten.tanh.default", {"mechanism": "kernel", "seen": "nan", "expected": {"value": 0.5}, "limit": 65504.0}),
        ("aten._scaled_dot_product_flash_attention_for_cpu.default", {"mechanism": "masked_row", "seen": "nan"}),
        (
            "aten._scaled_dot_product_flash_attention_for_cpu.default",
            {"mechanism": "overflow", "seen": "nan", "expected": {"value": 0.2}, "limit": 65504.0},
        ),
    ],
)
def test_an_operator_that_is_wrong_by_itself_is_pytorchs(op, program):
    found = owner(born(op=op, mechanism=program["mechanism"], reproducer=VERIFIED, program=program))
    assert found.project == "pytorch"
    assert op in found.reason
    assert "reproducer.py" in found.reason


@pytest.mark.parametrize("reproducer", [None, {**VERIFIED, "verified": False}, {**VERIFIED, "level": "model"}])
def test_without_a_verified_script_of_torch_alone_nothing_is_called_pytorchs(reproducer):
    program = {"mechanism": "kernel", "seen": "nan", "expected": {"value": 0.5}, "limit": 65504.0}
    assert owner(born(mechanism="kernel", reproducer=reproducer, program=program)).project is None


def test_a_result_beyond_the_dtype_is_never_called_pytorchs():
    assert owner(born(reproducer=VERIFIED, program={**RESIDUAL, "mechanism": "kernel"})).project != "pytorch"


def test_a_weight_that_the_asked_dtype_cannot_hold_is_the_callers_with_advice():
    found = owner(born(tensor="wte.weight", tensor_index=[0], reference_value=70000.0))
    assert (found.project, "wte.weight" in found.reason, "bfloat16" in found.advice) == ("caller", True, True)


def test_what_the_documentation_excludes_is_the_callers_with_its_source():
    excluded = Exclusion("x", "float16", "https://example.org/doc", "float16 is not supported", "use bfloat16")
    found = owner(born(), excluded)
    assert (found.project, found.advice) == ("caller", "use bfloat16")
    assert "https://example.org/doc" in found.reason


def test_bad_bytes_are_the_checkpoints_whatever_the_documentation_says():
    excluded = Exclusion("x", "float16", "https://example.org/doc", "float16 is not supported", "use bfloat16")
    assert owner(answered(observation("weights", "bad")), excluded).project == "checkpoint"


def test_no_owner_with_random_weights_or_foreign_code():
    assert owner(born(case=Case("gpt2", weights="random:0"))).project is None
    unset = observation("load", "bad", payload={"unset_buffers": ["x"]})
    assert owner(answered(unset, case=Case("gpt2", trust_remote_code=True))).project is None


def test_random_weights_do_not_excuse_an_operator_that_is_wrong_by_itself():
    program = {"mechanism": "kernel", "seen": "nan", "expected": {"value": 0.5}, "limit": 65504.0}
    found = owner(born(case=Case("gpt2", weights="random:0"), reproducer=VERIFIED, program=program))
    assert found.project == "pytorch"
