"""Why these prompts: injected reasons are found, random labels give none, the figures are those of plain counting."""

import json
import random
import sys
from math import comb
from operator import ge, le

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from repro.core.encoding import decode, encode
from repro.core.sweep_answers import Why, WhyOutcome
from repro.sweeps.prompts.reasons import reasons
from repro.sweeps.prompts.reasons.questions import questions
from repro.sweeps.prompts.reasons.significance import library, mann_whitney, worth_asking

RARE = 999
BOS = 2
LEVEL = 0.05


def prompts(count=100, seed=0, batch=4):
    """Sound examples in batches, padded on the left: lengths and token ids at random, common ids more often."""
    draw = random.Random(seed)
    lengths = [draw.randint(5, 25) for _ in range(count)]
    return [
        {
            "index": index,
            "side": None,
            "tokens": length,
            "padding": max(lengths[index - index % batch :][:batch]) - length,
            "padding_side": "left",
            "batch": index // batch,
            "row": index % batch,
            "verdict": "good",
            "absmax": draw.uniform(20, 30),
            "token_ids": [BOS, *(3 + int(400 * draw.random() ** 3) for _ in range(length - 1))],
            "alone": "not_run",
        }
        for index, length in enumerate(lengths)
    ]


def failing(records, fails, **more):
    """The same with those that ``fails`` picks failing."""
    return [{**record, "verdict": "bad", **more} if fails(record) else record for record in records]


def first(records, **more):
    """The weightiest finding, which has to be a significant one."""
    found = reasons(records, **more)
    assert found.outcome is WhyOutcome.PATTERN
    return found.findings[0]


def with_rare_token():
    records = prompts()
    for record in records[3::7]:
        record["token_ids"][-1] = RARE
    place = {"layer": "model.layers.3", "token": "rare", "token_id": RARE, "token_kind": "text"}
    return failing(records, lambda record: RARE in record["token_ids"], **place, absmax=60000.0)


def padded(**more):
    """Short prompts fail, but only where they are padded on the left."""
    return failing(prompts(), lambda record: record["padding"] >= 3, token_kind="padding", **more)


def goes_together(found):
    """The one note on two properties that go together."""
    (said,) = [note for note in found.notes if "go together" in note]
    return said


# --- injected reasons ---------------------------------------------------------------------------------------------


def test_a_rare_token_that_always_fails_is_found():
    found = first(with_rare_token())
    assert found.topic.name == f"token {RARE}"
    assert (found.failing.yes, found.failing.of, found.passing.yes, found.passing.of) == (14, 14, 0, 86)
    assert found.separates


def test_it_is_named_with_its_text_and_its_figures():
    found = reasons(with_rare_token())
    chance = 1 / comb(100, 14)
    counts = "14 of 14 failing prompts have token 999 ('rare'), and 0 of 86 passing ones"
    figures = f"Fisher's exact test, p = {chance:.3g}, corrected for all questions {found.asked * chance:.3g}"
    assert found.sentence.startswith(f"{counts}, which separates them completely ({figures}; odds ratio inf, 95 %")


def test_what_the_model_makes_of_a_prompt_never_stands_before_the_prompt():
    by_family = [item.topic.family for item in reasons(with_rare_token()).findings if item.significant]
    assert by_family == ["token", "activation"]


def test_greater_activations_alone_are_said_to_be_no_property_of_the_prompts():
    draw = random.Random(5)
    records = [{**record, "absmax": 30 + draw.random()} for record in prompts()]
    found = reasons(failing(records, lambda record: record["index"] in range(11, 100, 5), absmax=60000.0))
    assert found.outcome is WhyOutcome.PATTERN
    assert found.sentence.startswith("nothing about the prompts themselves tells them apart, but the failing prompts")


def test_an_activation_that_is_not_finite_is_the_failure_and_no_number():
    found = reasons(failing(prompts(), lambda record: record["index"] % 5 == 1, absmax="inf"))
    assert (found.outcome, [item for item in found.findings if item.topic.family == "activation"]) == (
        WhyOutcome.NO_PATTERN,
        [],
    )


def test_padding_is_found_where_only_padded_short_prompts_fail():
    found = first(padded())
    assert (found.topic.name, found.separates, found.effect) == ("padding", True, 1.0)
    assert found.failing.least >= 3 > found.passing.greatest


def test_length_that_goes_with_padding_is_said_to_go_with_it():
    said = goes_together(reasons(padded()))
    assert said.startswith("the amount of padding and the length in tokens go together here (Spearman's rho -0.9")
    assert "only the amount of padding separates the prompts completely, but these prompts cannot tell" in said


def test_runs_of_one_prompt_alone_tell_padding_from_length():
    found = reasons(padded(alone="good"))
    assert found.findings[0].topic.family == "padding"
    assert goes_together(found).endswith("all 61 that were run pass, so it is not the length in tokens by itself.")


def test_prompts_that_fail_alone_too_do_not_fail_for_their_padding():
    found = reasons(padded(alone="bad"))
    assert found.findings[0].topic.family == "length"
    assert goes_together(found).endswith("run fail as well, so it is not the amount of padding by itself.")


def test_a_reason_that_is_ruled_out_is_said_to_be_and_still_shown():
    records = [{"padding": n % 2, "verdict": ("good", "bad")[n % 2], "alone": "bad"} for n in range(40)]
    said = reasons(records).sentence
    assert said.startswith("20 of 20 failing prompts have padding, and 0 of 20 passing ones")
    assert said.endswith(
        "But alone, without padding, all 20 that were run fail as well, so it is not padding by itself."
    )


def test_prompts_that_pass_alone_with_the_same_padding_do_not_fail_for_it():
    found = reasons(padded(alone="good", cause="composition"))
    assert found.findings[0].ruled_out.startswith("alone, with the padding that they have in their batch")
    assert found.shared[-1].endswith("61 only in their batch, 0 of these for the padding that they have in it.")


def test_one_side_of_the_pairs_is_found():
    records = [{**record, "side": ("positive", "negative")[record["index"] % 2]} for record in prompts()]
    found = first(failing(records, lambda record: record["side"] == "negative"))
    assert found.sentence.startswith("0 of 50 failing prompts are on the positive side, and 50 of 50 passing ones")


def test_a_missing_first_special_token_is_found():
    records = prompts()
    for record in records[::3]:
        record["token_ids"] = record["token_ids"][1:]
    found = reasons(failing(records, lambda record: record["token_ids"][0] != BOS), special_ids=(BOS,))
    families = {item.topic.family for item in found.findings if item.separates and item.significant}
    assert {"special", "token"} <= families


def test_the_place_in_the_file_is_found():
    assert first(failing(prompts(), lambda record: record["index"] >= 70)).topic.name == "index"


# --- no reason ---------------------------------------------------------------------------------------------------


def test_random_labels_raise_fewer_false_alarms_than_the_level_allows():
    alarms, runs = 0, 200
    for seed in range(runs):
        records = prompts(60, seed)
        chosen = set(random.Random(f"labels {seed}").sample(range(60), 20))
        alarms += reasons(failing(records, lambda r, chosen=chosen: r["index"] in chosen)).outcome is WhyOutcome.PATTERN
    assert alarms <= LEVEL * runs


def test_few_failing_prompts_and_many_ties_raise_no_more():
    """The normal approximation would: here two prompts in thirty have padding, and two fail."""
    alarms, runs = 0, 100
    for seed in range(runs):
        labels = random.Random(seed).sample(["bad"] * 2 + ["good"] * 28, 30)
        records = [{"padding": 9 * (place < 2), "verdict": label} for place, label in enumerate(labels)]
        alarms += reasons(records).outcome is WhyOutcome.PATTERN
    assert alarms <= LEVEL * runs


@pytest.mark.parametrize("one", range(6))
@pytest.mark.parametrize("values", [(1, 2, 3, 4, 5, 6), (0, 0, 0, 0, 0, 9), (1, 1, 2, 2, 3, 3)])
def test_a_single_failing_prompt_is_tested_exactly(values, one):
    """Against every prompt in its place: two-sided, as twice the smaller share that is as far out."""
    rest = [*values[:one], *values[one + 1 :]]
    higher, lower = (sum(1 for value in values if beyond(value, values[one])) for beyond in (ge, le))
    assert mann_whitney(library(), [values[one]], rest).p == min(1.0, 2 * min(higher, lower) / 6)
    assert mann_whitney(library(), rest, [values[one]]).p == min(1.0, 2 * min(higher, lower) / 6)


def test_no_pattern_is_said_in_words():
    records = failing(prompts(60, 3), lambda record: record["index"] in range(1, 60, 3))
    assert reasons(records).sentence.startswith("no pattern: none of ")


def test_too_few_prompts_are_no_proof_of_no_pattern():
    found = reasons(failing(prompts(5), lambda record: record["index"] == 0))
    assert found.outcome is WhyOutcome.TOO_FEW
    assert found.sentence.startswith("too few to tell: with 1 failing and 4 passing prompts")


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("bad", "all 100 prompts fail: there is no passing one to compare them with."),
        ("good", "all 100 prompts pass: there is no failing one to explain."),
        ("skip", "no prompt was judged, so nothing can be compared."),
    ],
)
def test_where_all_are_alike_nothing_is_compared(verdict, sentence):
    found = reasons([{**record, "verdict": verdict} for record in prompts()])
    assert (found.outcome, found.sentence, found.findings) == (WhyOutcome.NOTHING_TO_COMPARE, sentence, ())


def test_prompts_that_do_not_differ_at_all():
    records = [{"verdict": ("good", "bad")[number % 2], "tokens": 15} for number in range(40)]
    assert reasons(records).sentence.startswith("no pattern: nothing was recorded that differs")


def test_what_only_one_kind_of_prompt_has_is_not_compared():
    records = [{"verdict": ("good", "bad")[n % 2], "absmax": ("inf" if n % 2 else float(n))} for n in range(40)]
    assert reasons(records).asked == 0


# --- what the failing ones share ---------------------------------------------------------------------------------


def test_what_all_failing_prompts_share_is_said_even_where_nothing_can_be_compared():
    place = {"layer": "model.layers.7", "token_index": 0, "token": "<bos>", "token_kind": "special"}
    assert reasons(failing(prompts(), lambda _: True, **place, alone="bad")).shared == (
        "all 100 failing prompts go bad first in model.layers.7.",
        "all 100 failing prompts go bad first at token 0 '<bos>' (special).",
        "of 100 failing prompts that were run alone, 100 fail alone too and 0 only in their batch.",
    )


def test_several_places_are_counted():
    records = [{"verdict": "bad", "layer": f"layers.{layer}"} for layer in (1, 1, 1, 2, 2, 3, 4)]
    assert reasons(records).shared == (
        "where the 7 failing prompts go bad first: 3 in layers.1, 2 in layers.2, 1 in layers.3 and 1 elsewhere.",
    )


def test_a_token_without_a_text_is_named_by_its_id():
    records = [{"verdict": "bad", "token_index": n, "token_id": 37, "token_kind": "text"} for n in range(3)]
    assert reasons(records).shared == ("all 3 failing prompts go bad first at token id 37 (text).",)


def test_batches_that_fail_as_a_whole_are_pointed_out():
    notes = reasons(failing(prompts(), lambda record: record["batch"] % 3 == 0)).notes
    assert "every batch fails or passes as a whole: the prompts of one are not independent of each other." in notes


# --- how it is asked ---------------------------------------------------------------------------------------------


def test_without_scipy_the_counts_are_given_and_nothing_is_claimed(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    found = reasons(with_rare_token())
    assert found.outcome is WhyOutcome.NOT_TESTED
    assert found.sentence.endswith('that needs scipy (pip install "repro-kit[stats]").')
    counts = "14 of 14 failing prompts have token 999 ('rare'), and 0 of 86 passing ones"
    assert f"{counts}, which separates them completely." in [item.sentence for item in found.findings]
    assert not any(item.significant or item.p is not None for item in found.findings)


def test_prompts_that_could_not_be_judged_are_left_out_and_counted():
    records = [*with_rare_token(), {"verdict": "skip"}, {"verdict": "skip"}]
    found = reasons(records)
    assert (found.failing, found.passing, found.skipped) == (14, 86, 2)


def test_tokens_that_always_come_together_are_one_question():
    records = [{"token_ids": ids} for ids in ([1, 2, 3], [1, 2, 3, 4], [1, 5], [1, 5])]
    asked = [question.topic.words for question in questions(records) if question.topic.family == "token"]
    assert asked == ["tokens 2 and 3 (always together)", "token 4", "token 5"]


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_question_that_is_not_asked_could_not_have_come_out_significant(failed, passed, data):
    """Whatever the labels: no table with these sums has a p-value that a correction lets through which counts only the
    questions that are no worse."""
    total = failed + passed
    marked = data.draw(st.lists(st.integers(1, total - 1), min_size=1, max_size=30))
    others = data.draw(st.integers(0, 5))
    worth = worth_asking(failed, passed, marked, others)
    least = {}
    for count in set(marked):
        hits = range(max(0, count - passed), min(failed, count) + 1)
        least[count] = min(fisher_exact(((h, failed - h), (count - h, passed - count + h))).pvalue for h in hits)
    for count, is_asked in zip(marked, worth, strict=True):
        as_good = others + sum(1 for other in marked if least[other] <= least[count] * (1 + 1e-9))
        assert is_asked or least[count] * as_good > LEVEL * (1 - 1e-9)


def test_the_answer_is_strict_json():
    found = reasons(with_rare_token())
    data = json.loads(encode(found))
    assert (data["outcome"], data["sentences"]) == ("pattern", [found.sentence, *found.shared, *found.notes])
    assert data["findings"][0]["interval"][1] == "inf"
    assert decode(Why, data).findings[0].sentence == found.findings[0].sentence


def test_without_scipy_the_tokens_of_the_failing_prompts_are_printed_as_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    lines = [
        {"verdict": verdict, "index": number, "tokens": 3, "token_ids": [1, token]}
        for verdict, token, numbers in (("bad", 77, range(4)), ("good", 5, range(4, 12)))
        for number in numbers
    ]
    said = reasons(lines).sentences
    assert "4 of 4 failing prompts have token 77, and 0 of 8 passing ones, which separates them completely." in said
    assert not any("token 5," in line for line in said)


def test_prompts_whose_logits_alone_are_bad_have_no_first_token_in_common():
    lines = [{"verdict": "bad", "index": n, "layer": "output", "module": "lm_head", "cause": "own"} for n in range(3)]
    assert reasons(lines).shared == (
        "all 3 failing prompts have bad logits though every layer is finite: lm_head gives them.",
    )
    lines.append({"verdict": "bad", "index": 3, "layer": "wte", "token": "w77", "token_kind": "text"})
    assert reasons(lines).shared[0] == (
        "3 of 4 failing prompts have bad logits though every layer is finite: lm_head gives them."
    )


def test_where_all_tokens_go_bad_at_once_none_is_named():
    lines = [{"verdict": "bad", "index": n, "layer": "h.1", "token_kind": "every"} for n in range(3)]
    assert "all 3 failing prompts go bad first at every token." in reasons(lines).shared
