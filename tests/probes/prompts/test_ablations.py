"""Of the examples that fail alike a few are tried, and the change that helps is tried on all."""

import pytest
import torch
from corpus.families import BOS
from support.handmade import NAN, load_folder
from support.prompt_models import POISON, RARE, write_llama, write_odd
from support.prompting import ask

from repro.probes.prompts.alike import FEW, TOKENS, Failing, Group

WORDS = range(20, 60)


def record(index=0, module="m", token=5, **more):
    blank = {"side": None, "layer": module, "layer_index": 1, "token_kind": "text", "cause": "own", "batch": 0}
    kinds = {"nan": 1, "posinf": 0, "neginf": 0}
    return {"index": index, "module": module, "token_id": token, **blank, **kinds, **more}


# --- alike -------------------------------------------------------------------------------------------------------


def test_a_few_stand_for_many_and_different_tokens_come_first():
    one, several = Group(), Group()
    for number in range(50):
        one.take(record(number))
        several.take(record(number, token=number // 2 % 9))
    assert [item["index"] for item in one.few()] == list(range(FEW))
    assert [item["token_id"] for item in several.few()] == list(range(TOKENS))
    assert (one.examples, several.examples) == (50, 50)


def test_what_fails_in_another_way_stands_for_itself():
    failing = Failing()
    ways = [{}, {"module": "n"}, {"token_kind": "padding"}, {"cause": "padding"}, {"nan": 0, "posinf": 3}]
    for number, way in enumerate(ways * 3):
        failing.take(record(number, **way))
    failing.take(record(0))  # said twice
    assert (len(failing), len(failing.groups), len(failing.representatives())) == (15, 5, 15)
    assert (len(failing.own), len(failing.others)) == (12, 3)


@pytest.mark.parametrize(("indexes", "first"), [((3, 1, 2), 1), ((3, None, 2), None), ((), None)])
def test_the_first_layer_of_all_is_known_only_if_each_has_one(indexes, first):
    failing = Failing()
    for number, index in enumerate(indexes):
        failing.take(record(number, layer_index=index))
    assert failing.first_layer == first


# --- tried -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("rare") / "model", RARE)


def rows(asked):
    return {row["name"]: row for row in asked.payload["ablations"]}


def figures(row):
    return row["verdict"], row["saved"], row["asked"], row["failing"]


def prompts(count, extra=""):
    return [f"w{word} w{RARE}{extra}" for word, _ in zip(WORDS, range(count), strict=False)]


def test_some_of_those_that_fail_alike_are_tried_and_what_helps_on_all(rare, tmp_path):
    asked = ask(load_folder(rare, "float16"), tmp_path, prompts(20), batch_size=4, ablations=True)
    found = rows(asked)
    assert figures(found["as it was"]) == ("bad", 0, FEW, 20)
    assert found["as it was"]["reason"] == "0 of 3 failing examples are finite; they stand for all 20"
    wide = [figures(found[f"dtype={name}"]) for name in ("float32", "bfloat16")]
    assert sorted(row[2] for row in wide) == [FEW, 20]  # one of them is enough, the cheaper one
    assert all(row == ("good", row[2], row[2], 20) for row in wide)
    whole = next(row for row in found.values() if row["asked"] == 20 and row["name"].startswith("dtype="))
    assert whole["reason"] == "20 of 20 failing examples are finite"
    assert figures(found["layer model.layers.0 in place of a later one"]) == ("good", 20, 20, 20)


def test_where_the_few_do_not_speak_for_all_the_run_on_all_says_so(rare, tmp_path):
    """In float16 each goes bad at the rare word in layer 1; those with w99 would be bad in layer 2 in any dtype."""
    loaded, ids = load_folder(rare, "float16"), []

    def spoil(module, args, output):
        return torch.where((ids[-1] == 99).any(1)[:, None, None], NAN, output)

    with (
        loaded.model.model.embed_tokens.register_forward_pre_hook(lambda module, args: ids.append(args[0])),
        loaded.model.model.layers[2].register_forward_hook(spoil),
    ):
        given = [*prompts(6), *prompts(4, " w99")]
        found = rows(ask(loaded, tmp_path, given, batch_size=4, ablations=True))
    assert [figures(found[f"dtype={name}"]) for name in ("float32", "bfloat16")] == [("bad", 6, 10, 10)] * 2


def test_few_failing_examples_are_all_tried(rare, tmp_path):
    found = rows(ask(load_folder(rare, "float16"), tmp_path, prompts(2), ablations=True))
    assert figures(found["dtype=float32"]) == ("good", 2, 2, 2)


def test_what_needs_its_batch_is_tried_in_its_batch(tmp_path):
    loaded = load_folder(write_odd(tmp_path / "odd"), trust_remote_code=True)
    given = [text for number in range(4) for text in (f"w{20 + number}", f"w{POISON}", f"w{30 + number} w9")]
    found = rows(ask(loaded, tmp_path, given, batch_size=3, ablations=True))
    assert figures(found["as it was"])[:2] == ("bad", 0)
    assert figures(found["batch_size=1"]) == ("good", 8, 8, 8)


def test_without_the_first_token_it_is_gone_where_that_overflows(tmp_path):
    loaded = load_folder(write_llama(tmp_path / "bos", BOS), "float16")
    found = rows(ask(loaded, tmp_path, [f"w{word}" for word in WORDS], ablations=True))
    assert figures(found["no first special token"]) == ("good", FEW, FEW, 40)


def test_what_an_earlier_process_found_failing_is_tried_too(rare, tmp_path):
    loaded, given = load_folder(rare, "float16"), prompts(6)
    before = ask(loaded, tmp_path, given, batch_size=2).records
    known = {"batch 0": False, "batch 1": False}
    asked = ask(loaded, tmp_path, given, known=known, answers=before[:4], batch_size=2, ablations=True)
    assert asked.of("index") == [(4,), (5,)]
    assert figures(rows(asked)["as it was"]) == ("bad", 0, FEW, 6)
