"""Observations -> verdict, kind, origin, ablations: every rule, and every pair of faults in order of precedence."""

import itertools

import pytest
from support.hosting import BISECT, ORIGIN, observation, observed

from repro.core.encoding import decode
from repro.core.errors import RecordError
from repro.core.payloads import Bisect, Origin
from repro.core.records import Case, Fault, Kind, Outcome
from repro.core.sentences import origin_sentence
from repro.diagnosis.verdict import judge

CASE = Case("gpt2", dtype="float16", prompts=("a",))
SOUND = ("environment", "files", "weights", "load", "forward", "bisect")
BAD_FORWARD = observation("forward", "bad", "every logit is NaN", {"logits": {"nan": 60}})
KINDS = {"files": Kind.FILES, "weights": Kind.WEIGHTS, "load": Kind.LOAD, "forward": Kind.NONFINITE}


def judged(*changed, case=CASE, deciding="forward", fault=Fault.NONFINITE):
    """The judgement of a sound run in which some steps came out otherwise."""
    return judge({**observed(*map(observation, SOUND)), **observed(*changed)}, case, deciding, fault)


def answer(judgement):
    return judgement.verdict.outcome, judgement.kind


def test_a_sound_run_is_good():
    result = judged()
    assert answer(result) == (Outcome.GOOD, None)
    assert result.verdict.reason == "forward is good"
    assert (result.origin, result.workarounds) == (None, ())


@pytest.mark.parametrize("step", KINDS)
def test_a_bad_step_gives_its_kind(step):
    assert answer(judged(observation(step, "bad"))) == (Outcome.BAD, KINDS[step])


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(KINDS, 2)))
def test_of_two_bad_steps_the_earlier_names_the_kind(first, second):
    assert judged(observation(second, "bad"), observation(first, "bad")).kind is KINDS[first]


@pytest.mark.parametrize(("bad", "skipped"), list(itertools.permutations(KINDS, 2)))
def test_a_bad_step_is_never_hidden_by_a_skipped_one(bad, skipped):
    assert judged(observation(bad, "bad"), observation(skipped, "skip")).verdict.outcome is Outcome.BAD


def test_the_reason_names_the_place():
    result = judged(BAD_FORWARD, observation("bisect", "bad", payload=BISECT))
    assert result.verdict.reason == (
        "float16 overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416): "
        "token 0 '<bos>', channel 163; float32 has 68394.9 there, the limit is 65504."
    )
    assert result.origin == decode(Origin, ORIGIN)


def test_bad_weights_at_the_origin_are_of_kind_weights():
    origin = {**ORIGIN, "mechanism": "bad_weights", "tensor": "wte.weight", "tensor_index": [5, 0], "token": None}
    result = judged(BAD_FORWARD, observation("bisect", "bad", payload={**BISECT, "origin": origin}))
    assert result.kind is Kind.WEIGHTS
    assert "NaN or Inf in a weight in model.layers.7: wte.weight at [5, 0]" in result.verdict.reason


def test_a_bisect_that_was_skipped_leaves_the_origin_open():
    result = judged(BAD_FORWARD, observation("bisect", "skip", "out of memory"))
    assert answer(result) == (Outcome.BAD, Kind.NONFINITE)
    assert result.verdict.reason == "every logit is NaN; where it is born is not known: out of memory"
    assert result.origin is None


def test_a_bisect_that_crashed_leaves_a_good_forward_good():
    assert answer(judged(observation("bisect", "skip", ending="crashed"))) == (Outcome.GOOD, None)


@pytest.mark.parametrize("step", KINDS)
def test_a_crash_is_skip_unless_it_is_hunted(step):
    crash = observation(step, "skip", "the process was ended by SIGSEGV", ending="crashed")
    assert answer(judged(crash)) == (Outcome.SKIP, Kind.CRASH)
    assert answer(judged(crash, fault=Fault.CRASH)) == (Outcome.BAD, Kind.CRASH)
    assert judged(crash).verdict.reason == "The process was ended by SIGSEGV"


def test_crashed_ablations_leave_a_good_forward_good():
    ablation = observation("ablation:attn=eager", "skip", ending="crashed")
    assert answer(judged(ablation)) == (Outcome.GOOD, None)
    assert answer(judged(ablation, fault=Fault.CRASH)) == (Outcome.GOOD, None)


def test_where_a_crash_is_hunted_nan_is_not_the_fault():
    result = judged(BAD_FORWARD, fault=Fault.CRASH)
    assert answer(result) == (Outcome.GOOD, None)
    assert result.verdict.reason == "No step crashed, and a crash is what was hunted; every logit is NaN"


def test_where_a_crash_is_hunted_a_step_that_did_not_run_is_skip():
    assert judged(observation("forward", "skip"), fault=Fault.CRASH).verdict.outcome is Outcome.SKIP


def test_a_forward_without_an_answer_is_skip_with_its_reason():
    result = judged(observation("forward", "skip", "float16 is not implemented here"))
    assert answer(result) == (Outcome.SKIP, None)
    assert result.verdict.reason == "float16 is not implemented here"


def test_a_load_without_an_answer_explains_the_rest():
    left = observation("forward", "skip", "not run: the load step gave no model", ending="not_run")
    assert judged(observation("load", "skip", "no such class"), left).verdict.reason == "No such class"


def test_a_fatal_step_gives_the_reason():
    files = observation("files", "skip", "gpt9 is nowhere", {"fatal": True})
    left = observation("forward", "skip", "not run", ending="not_run")
    assert judged(files, left).verdict.reason == "gpt9 is nowhere"


def test_a_skipped_weights_step_does_not_hide_a_good_forward():
    assert judged(observation("weights", "skip")).verdict.outcome is Outcome.GOOD


def test_a_deciding_step_that_is_missing_is_skip():
    assert judge(observed(observation("files")), CASE).verdict.outcome is Outcome.SKIP


def test_a_trace_of_a_bad_pass_is_bad():
    only = observed(observation("environment"), observation("trace", "bad", "249 operators; logits: 768 NaN"))
    assert judge(only, CASE, "trace").verdict.outcome is Outcome.BAD


def test_weights_alone_judge_the_weights():
    only = observed(observation("environment"), observation("files"), observation("weights"))
    assert judge(only, CASE, "weights").verdict.outcome is Outcome.GOOD
    only |= observed(observation("weights", "skip"))
    assert judge(only, CASE, "weights").verdict.outcome is Outcome.SKIP


def test_nothing_observed_cannot_be_judged():
    with pytest.raises(RecordError, match="no step was recorded"):
        judge({}, CASE)


def test_findings_are_no_faults():
    payload = {"misaligned": 28, "unexpected_keys": ["x"]}
    assert judged(observation("load", payload=payload)).verdict.outcome is Outcome.GOOD


@pytest.mark.parametrize(
    ("misaligned", "ablation", "mechanism"),
    [(28, "good", "misaligned"), (28, "bad", "overflow"), (0, "good", "overflow")],
)
def test_misaligned_is_the_mechanism_only_where_an_aligned_copy_is_good(misaligned, ablation, mechanism):
    result = judged(
        BAD_FORWARD,
        observation("load", payload={"misaligned": misaligned}),
        observation("bisect", "bad", payload=BISECT),
        observation("ablation:aligned_copy", ablation),
    )
    assert result.origin.mechanism == mechanism


def test_ablations_are_in_order_and_say_what_they_change():
    result = judged(
        BAD_FORWARD,
        observation("ablation:dtype=float32", payload={"change": {"dtype": "float32"}}),
        observation("ablation:attn=eager", "bad"),
        observation("ablation:aligned_copy", "skip"),
    )
    assert [(ablation.name, ablation.change) for ablation in result.ablations] == [
        ("dtype=float32", {"dtype": "float32"}),
        ("attn=eager", {"attn": "eager"}),
        ("aligned_copy", {"aligned_copy": True}),
    ]
    assert result.workarounds == ("dtype=float32",)


def test_an_ablation_that_changes_nothing_is_left_out():
    assert judged(observation("ablation:dtype=float16", "skip", payload={"same_as_case": True})).ablations == ()


def test_another_prompt_is_no_workaround():
    assert judged(BAD_FORWARD, observation("ablation:second_prompt")).workarounds == ()


def test_random_weights_are_said_first():
    result = judged(case=Case("gpt2", weights="random:3"))
    assert result.verdict.reason == "With random weights (seed 3): forward is good"


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({}, "First bad value in the model itself."),
        (
            {"module": "h.0", "mechanism": "masked_row", "head_index": 3},
            "Softmax of a fully masked row in h.0: head 3.",
        ),
        (
            {"module": "h.0", "mechanism": "divide_by_zero", "op": "aten.div"},
            "float16 division by zero in h.0 (aten.div).",
        ),
        ({"module": "h.0", "mechanism": "overflow", "reference_value": "inf"}, "the reference has inf there"),
        ({"module": "h.0", "mechanism": "overflow", "token_index": 2, "token": "\n"}, r"token 2 '\n'"),
    ],
)
def test_the_sentence_says_what_is_known_and_no_more(origin, words):
    assert words in origin_sentence(decode(Origin, origin), Bisect(dtype="float16"))


def test_a_script_that_is_bad_has_no_kind():
    found = judge(observed(observation("script", "bad", "status 1")), Case("/tmp/asks.py"), "script")
    assert (found.verdict.outcome, found.kind) == (Outcome.BAD, None)


def test_a_script_that_could_not_tell_is_a_skip():
    found = judge(observed(observation("script", "skip", "status 125")), Case("/tmp/asks.py"), "script")
    assert (found.verdict.outcome, found.verdict.reason) == (Outcome.SKIP, "Status 125")
