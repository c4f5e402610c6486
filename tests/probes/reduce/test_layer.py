"""The module alone: of every family, from a configuration, with plain values; and what cannot be built so."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from corpus.faults import ATTENTION, BY_NAME, RESIDUAL
from support.handmade import hooks_of, load_folder, state_of
from support.reducing import module_result, number, trials
from torch import Tensor, nn
from transformers import Gemma3TextConfig, LlamaConfig, T5Config

from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.origin.search import bisect
from repro.probes.protocol.wire import jsonable
from repro.probes.reduce.models import module as layer
from repro.probes.reduce.models import tiny
from repro.probes.reduce.models.module import Given, block_of, captured, reduced
from repro.probes.reduce.program import Leaf
from repro.probes.reduce.tokens import Place

NAMES = [f"{family}-qk-overflow" for family in families.FAMILIES] + [
    f"{family}-residual-overflow" for family in RESIDUAL
]
LISTS = {
    "gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers", "llama": "model.layers", "gemma3": "model.layers",
    "bert": "bert.encoder.layer", "t5": "encoder.block",
}  # fmt: skip


def injected(name: str, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    fault = BY_NAME[name]
    fault.build(folder)
    loaded = load_folder(folder, fault.dtype, attn=fault.attn, trust_remote_code=fault.trust_remote_code)
    inputs = make_inputs(loaded, [fault.prompt] if fault.prompt else [], False)[0]
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    return loaded, inputs, payload["origin"]


@pytest.mark.parametrize("name", NAMES)
def test_every_familys_module_shows_the_fault_with_nothing_but_its_record(tmp_path: Path, name: str) -> None:
    loaded, inputs, origin = injected(name, tmp_path)
    before, hooks, state = state_of(loaded.model), hooks_of(loaded.model), torch.get_rng_state()
    asked, _ = trials()
    found, note = reduced(loaded, inputs, origin, asked)
    assert (note, asked.notes) == ("", [])
    module = jsonable(found)
    seen = number(module["seen"])
    assert not math.isfinite(seen)
    assert str(module_result(module)) == str(seen)
    assert (module["op"], module["mechanism"], module["source"]) == (origin["op"], "overflow", origin["source"])
    assert state_of(loaded.model) == before
    assert hooks_of(loaded.model) == hooks
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_layer_is_built_and_few_words(tmp_path: Path, family: str) -> None:
    loaded, inputs, origin = injected(f"{family}-qk-overflow", tmp_path)
    asked, _ = trials()
    found, _ = reduced(loaded, inputs, origin, asked)
    assert found is not None
    assert found["config"][{"gpt2": "n_layer"}.get(family, "num_hidden_layers")] == 1
    assert found["config"]["vocab_size"] == tiny.VOCABULARY
    assert ".0" in found["path"]
    assert found["parameters"]


def test_the_expected_value_is_that_of_float32_with_the_same_numbers(tmp_path: Path) -> None:
    """Without rounding the residual add of the injected layer is 40000 + 40000, less what the attention adds."""
    loaded, inputs, origin = injected("gpt2-residual-overflow", tmp_path)
    asked, _ = trials()
    found, _ = reduced(loaded, inputs, origin, asked)
    assert found is not None
    assert found["expected"]["dtype"] == "float32"
    assert 65504 < found["expected"]["value"] < 1e6


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_block_of_a_module_is_the_repeated_layer_that_holds_it(family: str) -> None:
    model = families.build(family)
    assert block_of(model, ATTENTION[family]) == f"{LISTS[family]}.1"


def test_a_module_outside_of_the_layers_is_its_own_block() -> None:
    assert block_of(families.build("llama"), "model.norm") == "model.norm"


def test_custom_code_is_refused_with_its_reason(tmp_path: Path) -> None:
    asked, events = trials()
    found, note = reduced(*injected("custom-mask-module-residual", tmp_path), asked)
    assert (found, events) == (None, [])
    assert note == "the model's code comes with the model, so no class of Transformers can be called alone"


def test_a_layer_of_pytorch_is_left_to_its_operator(tmp_path: Path) -> None:
    asked, _ = trials()
    found, note = reduced(*injected("bert-norm-scale-overflow", tmp_path), asked)
    assert found is None
    assert note == "bert.embeddings.LayerNorm is a layer of PyTorch itself, which its operator shows"


def test_a_module_too_large_for_a_second_one_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "LARGEST", 100)
    asked, _ = trials()
    found, note = reduced(*injected("llama-qk-overflow", tmp_path), asked)
    assert found is None
    assert note == "model.layers.1 is too large for a second one to be built"


def test_a_module_whose_values_are_too_many_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "simplest", lambda *args, **kwargs: None)
    asked, _ = trials()
    found, note = reduced(*injected("llama-qk-overflow", tmp_path), asked)
    assert found is None
    assert note == "input_layernorm.weight of layers.0 needs 32 values of its own, too many for a script"


def test_arguments_are_taken_as_they_are_given_and_caches_left_out(tmp_path: Path) -> None:
    loaded, inputs, _ = injected("llama-qk-overflow", tmp_path)
    given = captured(loaded, inputs, "model.layers.1", 0)
    assert given is not None
    assert given.leaves[0].shape == (1, inputs.input_ids.shape[1], families.HIDDEN)
    assert "past_key_values" not in given.kwargs
    assert isinstance(given.kwargs["position_embeddings"], tuple)


def test_a_call_that_is_never_made_gives_nothing(tmp_path: Path) -> None:
    loaded, inputs, _ = injected("llama-qk-overflow", tmp_path)
    assert captured(loaded, inputs, "model.layers.1", 5) is None


def test_a_module_that_makes_a_nan_elsewhere_first_is_another_fault(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("llama-residual-overflow", tmp_path)
    given = captured(loaded, inputs, "model.layers.1", 0)
    assert given is not None
    (plan, *_) = tiny.plans(loaded, "model.layers.1")
    small = tiny.built(loaded, "model.layers.1", plan, origin)
    assert layer.shows(small, given)
    with torch.no_grad():
        dict(small.block.named_parameters())["self_attn.v_proj.weight"].fill_(float("nan"))
    assert not layer.shows(small, given)


@pytest.mark.parametrize("other", [False, True])
def test_a_module_in_which_another_operator_makes_a_nan_first_does_not_show_it(other: bool) -> None:
    """Its own overflow is there as well; the script would show two faults."""

    class Block(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            zero = x - x
            first = zero / zero if other else zero
            return x + x, first  # born

    model = nn.Module()
    model.block = Block()
    lines, start = inspect.getsourcelines(Block)
    (number,) = (at for at, line in enumerate(lines) if line.rstrip().endswith("# born"))
    place = Place("block", "aten.add.Tensor", f"test_layer.py:{start + number}", "overflow", False, frozenset())
    given = Given((torch.tensor([40000.0]).half(),), ("x",), (Leaf(0),), {})
    assert layer.shows(tiny.Small(model, {}, "block", place, None), given) is not other


def test_another_mechanism_at_the_same_operator_is_refused(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("llama-residual-overflow", tmp_path)
    given = captured(loaded, inputs, "model.layers.1", 0)
    assert given is not None
    (plan, *_) = tiny.plans(loaded, "model.layers.1")
    small = tiny.built(loaded, "model.layers.1", plan, {**origin, "mechanism": "divide_by_zero"})
    assert not layer.shows(small, given)


# --- settings ----------------------------------------------------------------------------------------------------


def settings_of(config: Any, path: str) -> list[tuple[dict[str, Any], str]]:
    return list(tiny.settings_of(config, path))


def test_what_is_listed_layer_by_layer_is_cut_along() -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(num_hidden_layers=3, layer_types=kinds)
    one, up_to, *_ = settings_of(config, "layers.1")
    assert (one[0]["num_hidden_layers"], one[0]["layer_types"], one[1]) == (1, kinds[1:2], "layers.0")
    assert (up_to[0]["num_hidden_layers"], up_to[0]["layer_types"], up_to[1]) == (2, kinds[:2], "layers.1")


def test_only_the_layers_own_number_is_changed_in_a_path() -> None:
    one, up_to, *_ = settings_of(T5Config(num_layers=3), "encoder.block.1.layer.1.DenseReluDense")
    assert one[1] == "encoder.block.0.layer.1.DenseReluDense"
    assert up_to[1] == "encoder.block.1.layer.1.DenseReluDense"
    assert one[0]["num_layers"] == 1


def test_settings_are_what_differs_from_the_class_and_no_names() -> None:
    config = LlamaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=99, torch_dtype="float16")
    settings = settings_of(config, "layers.0")[0][0]
    assert settings["hidden_size"] == 64
    assert settings["vocab_size"] == tiny.VOCABULARY
    assert "intermediate_size" not in settings
    assert not {"architectures", "model_type", "dtype", "torch_dtype"} & settings.keys()


def test_the_place_moves_with_the_module(tmp_path: Path) -> None:
    loaded, _, origin = injected("llama-qk-overflow", tmp_path)
    (plan, *_) = tiny.plans(loaded, "model.layers.1")
    small = tiny.built(loaded, "model.layers.1", plan, origin)
    assert small.place == dataclasses.replace(Place.of(origin), module=f"{plan.path}.self_attn")
    assert torch.equal(
        dict(small.block.named_parameters())["self_attn.q_proj.weight"],
        dict(loaded.model.named_parameters())["model.layers.1.self_attn.q_proj.weight"],
    )
