"""Each kind of input, read from the model's forward pass and its configuration."""

from __future__ import annotations

import pytest
import torch
from support.handmade import load_folder
from support.kinds import KINDS

from repro.probes.model.inputs import make_inputs, second_inputs, without_first
from repro.probes.model.kinds.facts import Facts
from repro.probes.reduce.tokens import only

TEXT_ONLY = ("t5", "bart")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    return lambda name: root / name if (root / name).is_dir() else KINDS[name].save(root / name)


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_given_its_inputs_and_runs_with_them(folders, name):
    kind, loaded = KINDS[name], load_folder(folders(name), "float16" if name == "vit" else None)
    (made,) = make_inputs(loaded, [], False)
    given = made.arguments()
    assert set(given) == kind.inputs
    for token, count in kind.marks.items():
        assert int((given["input_ids"] == token).sum()) == count
    with torch.no_grad():
        loaded.model(**given)


@pytest.mark.parametrize("name", ["qwen2_vl", "gemma3", "layoutlmv3", "sam"])
def test_other_inputs_of_the_same_kind(folders, name):
    loaded = load_folder(folders(name))
    (first,) = make_inputs(loaded, [], False)
    second = second_inputs(loaded, first, False)
    assert set(second.arguments()) == set(first.arguments())
    assert not torch.equal(second.arguments()["pixel_values"], first.arguments()["pixel_values"])


def passes_of(loaded):
    """How many forward passes the choice of inputs costs."""
    calls = []
    handle = loaded.model.register_forward_hook(lambda *_: calls.append(1), always_call=True)
    make_inputs(loaded, [], False)
    handle.remove()
    return len(calls)


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_a_model_of_token_ids_alone_costs_no_pass(folders, name):
    assert passes_of(load_folder(folders(name))) == 0


def test_a_choice_costs_passes(folders):
    assert passes_of(load_folder(folders("clip"))) > 0


def test_what_belongs_to_the_tokens_goes_with_them(folders):
    (made,) = make_inputs(load_folder(folders("layoutlm")), [], False)
    boxes = made.arguments()["bbox"]
    assert bool((boxes[..., :2] <= boxes[..., 2:]).all())
    assert int(boxes.max()) <= 1000
    assert torch.equal(without_first(made).arguments()["bbox"], boxes[:, 1:])
    assert torch.equal(only(made, [2, 5]).arguments()["bbox"], boxes[:, [2, 5]])


def test_drawn_ids_stand_for_no_picture(folders):
    (made,) = make_inputs(load_folder(folders("qwen2_vl")), [], False)
    assert int((made.input_ids == 90).sum()) == 6  # (1, 4, 6) patches, two by two merged into one
    types = made.arguments()["mm_token_type_ids"]
    assert [int((types == kind).sum()) for kind in (1, 2)] == [6, 12]


def test_the_record_says_how_each_input_is_made(folders):
    (made,) = make_inputs(load_folder(folders("sam")), [], False)
    rows = {row["name"]: row for row in made.record()["further"]}
    assert rows["pixel_values"] == {"name": "pixel_values", "shape": [1, 3, 32, 32], "dtype": "float32", "seed": 0}
    assert rows["input_labels"]["values"] == [[[1, 0]]]
    assert (rows["input_points"]["made"], rows["input_points"]["seed"]) == ("exact", None)


def test_a_module_without_a_configuration_has_facts_too():
    facts = Facts(torch.nn.Bilinear(2, 3, 4))
    assert (facts.needed, facts.parameters) == ({"input1", "input2"}, {"input1", "input2"})
    assert (facts.setting("hidden_size"), facts.hidden(), facts.main) == (None, None, ())
