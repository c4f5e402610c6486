"""Prompts and seeded ids, as the forward pass gets them."""

import contextlib
import json
import shutil

import pytest
import torch
import transformers
from corpus import families
from support.handmade import load_folder

from repro.probes.model.compat import CannotLoad
from repro.probes.model.forward import judge, look
from repro.probes.model.inputs import (
    DEFAULT_PROMPT,
    SECOND_PROMPT,
    make_inputs,
    second_inputs,
    seeded,
    unvalidated,
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


# --- pictures and sounds -----------------------------------------------------------------------------------------

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
TEXT = {**TINY, "vocab_size": 50, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
PICTURE = {**TINY, "image_size": 24, "patch_size": 8}
SPEECH = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_positions": 30,
    "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
WAVE = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
IDS = {"input_ids": (1, 13), "attention_mask": (1, 13)}
SPOKEN = {"decoder_input_ids": (1, 13)}

KINDS = {
    "ViTModel": ({**PICTURE, "num_channels": 1}, {"pixel_values": (1, 1, 24, 24)}),
    "CLIPModel": ({"text_config": TEXT, "vision_config": PICTURE}, {**IDS, "pixel_values": (1, 3, 24, 24)}),
    "WhisperForConditionalGeneration": (
        {**SPEECH, "num_mel_bins": 8},
        {**SPOKEN, "input_features": (1, 8, 60)},
    ),
    "Speech2TextForConditionalGeneration": (
        {**SPEECH, "input_feat_per_channel": 8, "conv_channels": 32},
        {**SPOKEN, "input_features": (1, 47, 8)},
    ),
    "ASTModel": ({**TINY, "num_mel_bins": 32, "max_length": 40}, {"input_values": (1, 40, 32)}),
    "Wav2Vec2Model": (
        {**TINY, **WAVE, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
        {"input_values": (1, ((47 - 1) * 2 + 4 - 1) * 5 + 10)},
    ),
    "VideoMAEModel": ({**PICTURE, "num_frames": 4}, {"pixel_values": (1, 4, 3, 24, 24)}),
}


def saved(folder, name, settings, config_name=None):
    config = getattr(transformers, config_name or name.replace("ForConditionalGeneration", "Model")[:-5] + "Config")
    getattr(transformers, name)(config(**settings)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_given_what_it_takes(tmp_path, name):
    settings, wanted = KINDS[name]
    made = load_folder(saved(tmp_path, name, settings), "float16")
    (given,) = make_inputs(made, ["a prompt"], False)
    assert {key: tuple(value.shape) for key, value in given.arguments().items()} == wanted
    for more in given.further:
        drawn = torch.randn(wanted[more.name], generator=torch.Generator().manual_seed(0))
        assert torch.equal(more.tensor, drawn.half())
    made.model(**given.arguments())


def test_further_inputs_are_in_the_record(tmp_path):
    settings, _ = KINDS["CLIPModel"]
    loaded = load_folder(saved(tmp_path, "CLIPModel", settings))
    (made,) = make_inputs(loaded, [], False)
    row = {"name": "pixel_values", "shape": [1, 3, 24, 24], "dtype": "float32"}
    assert made.record()["further"] == [{**row, "seed": 0}]
    assert len(made.record()["input_ids"]) == made.length == families.LENGTH
    second = second_inputs(loaded, made, False)
    assert second.record()["further"] == [{**row, "seed": 1}]
    assert not torch.equal(second.further[0].tensor, made.further[0].tensor)


def test_what_a_model_runs_without_is_said(tmp_path):
    """A model of text that takes pictures too runs on text alone; this one has no row for the token of a picture."""
    words = {**TEXT, "num_key_value_heads": 2, "model_type": "llama"}
    settings = {"text_config": words, "vision_config": {**PICTURE, "model_type": "clip_vision_model"}}
    name = "LlavaForConditionalGeneration"
    loaded = load_folder(saved(tmp_path, name, {**settings, "image_token_index": 49}, "LlavaConfig"))
    loaded.config.image_token_id = loaded.config.image_token_index = 10_000
    (made,) = make_inputs(loaded, [], False)
    assert (set(made.arguments()), made.without) == (set(IDS), ("pixel_values",))
    verdict, reason, payload = judge([look(loaded.model, made)], False)
    assert (verdict, payload["prompts"][0]["without"]) == ("good", ["pixel_values"])
    assert "; without pixel_values, which the model takes as well" in reason


def test_a_model_of_pictures_has_no_ids(tmp_path):
    (made,) = make_inputs(load_folder(saved(tmp_path, "ViTModel", KINDS["ViTModel"][0])), [], False)
    assert (made.input_ids, made.attention_mask, made.length, made.record()["input_ids"]) == (None, None, 0, [])
    assert without_first(made).input_ids is None


def test_a_model_that_takes_something_else_is_refused(tmp_path):
    loaded = load_folder(saved(tmp_path, "ViTModel", KINDS["ViTModel"][0]))

    class Molecules(type(loaded.model)):
        main_input_name = "atoms"

        def forward(self, atoms, bonds=None):
            raise AssertionError("it is not to be run")

    loaded.model.__class__, loaded.class_name = Molecules, "Molecules"
    with pytest.raises(
        CannotLoad, match=r"Molecules takes atoms, and only these .* Give exact inputs with --inputs FILE"
    ):
        make_inputs(loaded, [], False)


def test_a_model_that_runs_with_nothing_that_can_be_made_is_refused(tmp_path):
    loaded = load_folder(saved(tmp_path, "CLIPModel", KINDS["CLIPModel"][0]))
    loaded.config.vision_config.image_size = 20  # and the weights are of another
    with pytest.raises(
        CannotLoad, match=r"runs with none of the inputs .*\(input_ids, pixel_values\).* raised .*--inputs"
    ):
        make_inputs(loaded, [], False)


def test_the_seeded_length_is_a_prime_that_is_no_size_of_a_layer():
    assert families.LENGTH == 13
    assert families.LENGTH not in {families.HIDDEN, families.INNER, families.HEADS, families.KV_HEADS, families.VOCAB}


def test_distributions_are_validated_again_once_the_last_of_several_threads_is_through(monkeypatch):
    kind = torch.distributions.Distribution
    monkeypatch.setattr(
        kind, "_validate_args", True
    )  # PyTorch's compiler ends it for good, if another test imports that
    one, two = unvalidated(), unvalidated()
    with contextlib.ExitStack() as around:
        around.enter_context(one)
        two.__enter__()
    assert kind._validate_args is False  # the other one is still inside
    two.__exit__(None, None, None)
    assert kind._validate_args is True
