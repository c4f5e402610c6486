"""What the full search found on a few examples becomes what is said of those that fail in the same way."""

import pytest

from repro.core.payloads import Origin
from repro.core.records import Outcome
from repro.core.sentences import first_bad_in, tried_on
from repro.core.sweep_answers import FirstBad, Place, PromptAblation, Prompts, Searched, SearchedExample
from repro.sweeps.prompts.answer import summary
from repro.sweeps.prompts.searched import Corrections, sentence

SAID = FirstBad(layer="h.0", module="h.0.attn", token_index=0, token="<bos>", token_kind="special", cause="own")
FOUND = FirstBad(layer="wte", module="wte", token_index=5, token="w77", token_kind="text")


def sample(index=0, said=SAID, found=FOUND, agrees=False, **more):
    return SearchedExample(index=index, said=said, verdict=Outcome.BAD, found=found, agrees=agrees, **more)


def searched(*samples):
    answered = [item for item in samples if item.agrees is not None]
    agreed = sum(bool(item.agrees) for item in answered)
    return Searched(asked=len(samples), answered=len(answered), agreed=agreed, samples=samples)


def record(index=0, verdict="bad", **more):
    place = {"layer": "h.0", "layer_index": 0, "module": "h.0.attn", "token_index": 0, "token": "<bos>", "token_id": 1}
    return {"index": index, "verdict": verdict, **place, "token_kind": "special", "cause": "own", **more}


def test_where_the_search_says_otherwise_its_place_is_said_of_all_that_fail_alike():
    found = summary(
        [record(0), record(1), record(2, module="h.1", layer="h.1"), record(3, "good")],
        Prompts(searched=searched(sample(0), sample(1))),
    )
    assert [(place.layer, place.token, place.kind, place.examples) for place in found.places] == [
        ("wte", "w77", "text", 2), ("h.1", "<bos>", "special", 1),
    ]  # fmt: skip
    assert found.sentence == "2 of them go bad first in wte at 'w77' (text)."
    assert found.searched.sentence.startswith("That is what the full search says, run on 2 of them: wte;")


def test_what_the_search_confirms_is_left_as_it_was():
    corrections = Corrections(searched(sample(found=SAID, agrees=True)))
    assert corrections.of(record()) == record()


def test_a_token_that_the_samples_do_not_share_is_not_said_of_the_others():
    other = FirstBad(layer="wte", module="wte", token_index=2, token="w9", token_kind="text")
    found = Corrections(searched(sample(0), sample(1, found=other))).of(record(7))
    assert (found["layer"], found["module"], found["token"], found["token_id"]) == ("wte", "wte", None, None)


def test_two_places_of_one_way_of_failing_are_both_named():
    other = FirstBad(layer="h.3", module="h.3.mlp", token_index=5, token="w77", token_kind="text")
    found = Corrections(searched(sample(0), sample(1, found=other))).of(record(7))
    assert (found["layer"], found["module"], found["token"]) == ("wte or h.3", None, "w77")


@pytest.mark.parametrize("verdict", ["good", "skip"])
def test_nothing_is_said_of_those_that_do_not_fail(verdict):
    assert Corrections(searched(sample())).of(record(0, verdict)) == record(0, verdict)


ORIGIN = Origin(module="h.7", op="aten.add.Tensor", source="m.py:4", mechanism="overflow")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (
            [sample(found=SAID, agrees=True, origin=ORIGIN)] * 2,
            "The full search, run on 2 of them, says the same: overflow in h.7 at '<bos>' (aten.add.Tensor, m.py:4).",
        ),
        (
            [sample(origin=Origin(module="wte", mechanism="bad_weights", tensor="wte.weight", tensor_index=(77, 3)))],
            (
                "That is what the full search says, run on one of them: NaN or Inf in a weight in wte: wte.weight at "
                "[77, 3]; the pass over all of them named another place."
            ),
        ),
        (
            [sample(), sample(found=SAID, agrees=True), sample(found=None, agrees=None)],
            "The full search, run on 2 of them, says the same of 1; in all: wte and h.0.",
        ),
        (
            [sample(found=None, agrees=None, reason="no origin could be confirmed.")],
            "The full search gave no answer on one of them: no origin could be confirmed.",
        ),
    ],
)
def test_the_sentence_says_how_many_and_what(samples, expected):
    assert sentence(searched(*samples)) == expected


def test_bad_logits_are_said_as_such_and_not_as_a_place_of_a_token():
    lines = [record(n, layer="output", module="lm_head", token=None, token_kind=None) for n in range(3)]
    found = summary(lines)
    assert found.places == (Place(layer="output", kind="logits", examples=3, module="lm_head"),)
    assert found.sentence == "Each of them has bad logits though every layer is finite: lm_head gives them."
    assert first_bad_in(found.places[0]) == "bad logits though every layer is finite: lm_head gives them"
    assert first_bad_in(Place(layer="output", kind="logits", examples=1)) == "bad logits though every layer is finite"


def test_where_every_token_goes_bad_the_sentence_says_so():
    found = summary([record(0, token=None, token_kind="every"), record(1, token=None, token_kind="every")])
    assert found.sentence == "Each of them goes bad first in h.0, at every token."


def ablation(name, asked, failing=200, seconds=1.0):
    return PromptAblation(name=name, verdict=Outcome.GOOD, saved=asked, asked=asked, failing=failing, seconds=seconds)


def test_on_how_many_was_tried_is_said_where_it_was_not_on_all():
    few, whole = ablation("dtype=float32", 6), ablation("dtype=bfloat16", 200)
    said = "Tried on 6 of the 200 failing examples, a few of those that fail alike"
    assert tried_on([few]) == f"{said}."
    assert tried_on([few, whole]) == f"{said}; dtype=bfloat16 on all of them."
    assert tried_on([whole]) is None
    assert tried_on([few, ablation("an earlier layer", 200, seconds=0.0)]) == f"{said}."
