"""Prompts and seeded ids, as the forward pass gets them."""

import json
import shutil

import pytest
import torch
from corpus import families
from support.handmade import load_folder

from repro.probes.model.inputs import (
    DEFAULT_PROMPT,
    SECOND_PROMPT,
    make_inputs,
    second_inputs,
    seeded,
    vocabulary,
    without_first,
)


@pytest.fixture(scope="module")
def loaded(checkpoints):
    return {family: load_folder(checkpoints[family]) for family in ("gpt2", "llama", "bert", "t5")}


def test_without_a_tokenizer_the_ids_are_seeded(loaded):
    (made,) = make_inputs(loaded["gpt2"], ["any text", "another"], False)
    assert tuple(made.input_ids[0].tolist()) == families.DEFAULT_IDS
    assert (made.source, made.prompt, made.tokens, made.record()["seed"]) == ("seeded", None, None, 0)
    assert made.attention_mask.tolist() == [[1] * families.LENGTH]


def test_seeded_ids_do_not_touch_the_global_generator(loaded):
    before = torch.random.get_rng_state()
    seeded(loaded["gpt2"], 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_gives_other_ids(loaded):
    (first,) = make_inputs(loaded["gpt2"], [], False)
    second = second_inputs(loaded["gpt2"], first, False)
    assert second.source == "seeded"
    assert second.input_ids.tolist() != first.input_ids.tolist()


def test_every_seeded_id_is_in_the_vocabulary(loaded):
    assert vocabulary(loaded["t5"].model) == families.VOCAB
    assert all(int(seeded(loaded["t5"], seed).input_ids.max()) < families.VOCAB for seed in range(20))


def test_a_prompt_becomes_the_tokenizers_ids(loaded):
    (made,) = make_inputs(loaded["llama"], ["w3 w100 w7"], False)
    assert tuple(made.input_ids[0].tolist()) == families.prompt_ids("w3 w100 w7") == (1, 3, 100, 7)
    assert made.tokens == ("<bos>", "w3", "w100", "w7")
    assert (made.source, made.prompt, made.special_first) == ("tokenizer", "w3 w100 w7", True)


def test_each_prompt_has_its_inputs(loaded):
    assert [made.prompt for made in make_inputs(loaded["llama"], ["w3", "w4 w5"], False)] == ["w3", "w4 w5"]


def test_the_default_prompt(loaded):
    assert [made.prompt for made in make_inputs(loaded["llama"], [], False)] == [DEFAULT_PROMPT]


def test_the_second_prompt_is_another(loaded):
    for first, second in ((DEFAULT_PROMPT, SECOND_PROMPT), (SECOND_PROMPT, DEFAULT_PROMPT), ("w3", SECOND_PROMPT)):
        (made,) = make_inputs(loaded["llama"], [first], False)
        assert second_inputs(loaded["llama"], made, False).prompt == second


def test_without_the_first_token(loaded):
    (made,) = make_inputs(loaded["llama"], ["w3"], False)
    shorter = without_first(made)
    assert (shorter.tokens, shorter.input_ids.tolist(), shorter.special_first) == (("w3",), [[3]], False)
    assert shorter.attention_mask.tolist() == [[1]]
    assert made.input_ids.tolist() == [[1, 3]]


def test_a_decoder_gets_the_ids_shifted_behind_its_start(loaded):
    (made,) = make_inputs(loaded["t5"], [], False)
    ids = list(families.DEFAULT_IDS)
    assert made.decoder_input_ids.tolist() == [[families.PAD, *ids[:-1]]]
    assert made.record()["decoder_input_ids"] == [families.PAD, *ids[:-1]]
    assert set(made.arguments()) == {"input_ids", "attention_mask", "decoder_input_ids"}


def test_others_get_no_decoder_ids(loaded):
    (made,) = make_inputs(loaded["bert"], [], False)
    assert set(made.arguments()) == {"input_ids", "attention_mask"}


def test_a_prompt_without_a_token_is_refused(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="makes no token of the prompt"):
        make_inputs(load_folder(tmp_path), [" "], False)


def test_a_tokenizer_without_a_special_token_in_front(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (made,) = make_inputs(load_folder(tmp_path), ["w3 w4"], False)
    assert (made.input_ids.tolist(), made.special_first) == ([[3, 4]], False)


def test_a_tokenizer_whose_class_is_not_known_is_read_from_its_file(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "NoSuchTokenizer"}))
    (made,) = make_inputs(load_folder(tmp_path), ["w3"], False)
    assert made.input_ids.tolist() == [[1, 3]]
