"""Another model beside this one, and what another process reads of a recording."""

import json

import pytest
import torch
from corpus import families
from support.handmade import case_of, emitter

from repro.probes.differing.elsewhere import _made, differing, held_there, opened, other_ids, other_weights, save
from repro.probes.model.inputs import Inputs
from repro.probes.model.session import Session
from repro.probes.steps.diff import run

PROMPT = "w17 w42 w99 w5 w63 w28 w110 w77"


def written(folder, family="llama", edit=None, **config):
    model = families.build(family, **config)
    if edit is not None:
        with torch.no_grad():
            edit(model)
    model.save_pretrained(folder)
    families.write_tokenizer(folder)
    return folder


def session(folder, against=None, dtype=None):
    case = {**case_of(folder, dtype), "prompts": [PROMPT], "against": against}
    return Session(case, str(folder), emitter()[0])


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return written(tmp_path_factory.mktemp("llama"))


def beside(llama, folder, dtype=None):
    return run(session(llama, f"model:{folder}", dtype), "diff")


def test_a_copy_agrees_to_the_last_digit(llama, tmp_path):
    verdict, _, payload = beside(llama, written(tmp_path))
    assert (verdict, payload["nearest"]["deviation"], payload["notes"]) == ("good", 0.0, [])


@pytest.mark.parametrize(
    ("config", "module", "setting"),
    [
        ({"rope_theta": 20000.0}, "model.rotary_emb", "rope_theta is 10000.0 here and 20000.0 there"),
        ({"rms_norm_eps": 1e-5}, "model.layers.0.input_layernorm", "rms_norm_eps is 1e-06 here and 1e-05 there"),
    ],
)
def test_a_constant_that_differs_is_found_where_it_is_used_and_named(llama, tmp_path, config, module, setting):
    verdict, _, payload = beside(llama, written(tmp_path, **config), "float32")
    assert (verdict, payload["departure"]["module"]) == ("bad", module)
    assert any(setting in note for note in payload["notes"])


def test_a_weight_that_differs_is_named(llama, tmp_path):
    name = "model.layers.1.mlp.down_proj"
    folder = written(tmp_path, edit=lambda model: model.get_submodule(name).weight[3].mul_(1.5))
    verdict, _, payload = beside(llama, folder, "bfloat16")
    assert (verdict, payload["departure"]["module"]) == ("bad", name)
    assert payload["departure"]["weights"] == [{"tensor": f"{name}.weight", "there": True}]
    assert payload["departure"]["channel_index"] == 3


def test_a_head_that_is_tied_no_more_is_named(tmp_path):
    def untie(model):
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))

    one, two = written(tmp_path / "tied", tied=True), written(tmp_path / "untied", edit=untie, tied=True)
    verdict, _, payload = beside(one, two)
    assert (verdict, payload["departure"]["module"]) == ("bad", "lm_head")


@pytest.mark.parametrize("family", ["gpt2", "bert", "gpt_neox"])
def test_another_architecture_is_not_compared(llama, tmp_path, family):
    verdict, reason, _ = beside(llama, written(tmp_path, family))
    assert verdict == "skip"
    assert reason.startswith("LlamaForCausalLM here and ")
    assert "two architectures" in reason


def test_the_same_body_without_its_head_does_not_agree(llama, tmp_path):
    """Its weights have the names, and its end has none to be held against."""
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    assert beside(llama, tmp_path)[0] == "skip"


def test_a_difference_within_rounding_is_good_and_its_weights_are_still_named(llama, tmp_path):
    folder = written(tmp_path, edit=lambda model: model.model.layers[1].mlp.down_proj.weight[3, 5].mul_(1.01))
    verdict, reason, _ = beside(llama, folder, "bfloat16")
    assert verdict == "good"
    assert "1 of 32 weights and buffers are others: model.layers.1.mlp.down_proj.weight" in reason


def test_what_is_saved_is_what_another_process_reads(llama, tmp_path):
    made, settings = _made(session(llama), str(tmp_path))
    save(made, settings, str(tmp_path))
    read, read_settings = opened(str(tmp_path))
    assert read_settings == json.loads(json.dumps(settings))
    assert list(read.recording.entries) == list(made.recording.entries)
    for point, drift in made.recording.forced.items():
        assert torch.equal(read.recording.forced[point].rows, drift.rows)
        assert torch.equal(read.recording.tensor(point), made.recording.tensor(point))
    verdict, _, payload = held_there(session(llama), str(tmp_path))
    assert (verdict, payload["nearest"]["deviation"]) == ("good", 0.0)


def test_token_ids_are_compared_before_any_tensor(llama, tmp_path):
    words = tmp_path / "tokenizer.json"
    written(tmp_path)
    content = json.loads(words.read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["w99"], vocabulary["w98"] = vocabulary["w98"], vocabulary["w99"]
    words.write_text(json.dumps(content), "utf-8")
    verdict, reason, payload = beside(llama, tmp_path)
    assert verdict == "bad"
    assert "token 3 of input 0 is 99 here and 98 there" in reason
    assert "departure" not in payload


def test_ids_of_another_length_and_number_are_told():
    def ids(*row):
        return Inputs(None, "tokenizer", torch.tensor([row]), None)

    assert other_ids((ids(1, 2),), (ids(1, 2),)) is None
    assert "has 2 token ids here and 3 there" in (other_ids((ids(1, 2),), (ids(1, 2, 3),)) or "")
    assert "1 inputs here and 2 there" in (other_ids((ids(1),), (ids(1), ids(2))) or "")


def test_settings_and_weights_that_both_have_are_compared():
    assert list(differing({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})) == [
        "the configuration's b is 2 here and 3 there"
    ]
    assert list(other_weights({"a": "x", "b": "y"}, {"a": "x", "b": "z", "c": "w"})) == [
        "1 of 2 weights and buffers are others: b",
        "1 weights and buffers are there alone: c",
    ]
