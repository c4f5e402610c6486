"""As few layers as a fault needs, in models whose module cannot be called alone; and the model whole afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from support.handmade import Small, as_loaded, inputs_of, load_folder, state_of
from support.reducing import trials
from torch import Tensor, nn

from repro.probes.model.forward import look
from repro.probes.origin.search import bisect
from repro.probes.reduce.models import layers as depth


class Adds(nn.Module):
    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(height).half(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.height


class Stack(Small):
    """Layers that add: the last one that is needed passes float16's limit."""

    def __init__(self, *heights: float) -> None:
        super().__init__()
        self.config.num_hidden_layers = len(heights)
        self.config.kinds = [f"kind {number}" for number in range(len(heights))]
        self.layers = nn.ModuleList(map(Adds, heights))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = input_ids.half()
        for layer in self.layers[: self.config.num_hidden_layers]:
            x = layer(x)
        return x


def fewest(*heights: float) -> dict[str, Any] | None:
    loaded, inputs = as_loaded(Stack(*heights), torch.float16), inputs_of(torch.ones(1, 1))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    origin = payload["origin"]
    asked, _ = trials()
    return depth.fewest(loaded, inputs, origin, origin["module"], asked)


def test_layers_behind_the_fault_are_cut_off_and_those_before_that_it_does_not_need() -> None:
    """60000 + 50000: the second and the fifth."""
    found = fewest(1.0, 60000.0, 2.0, 3.0, 50000.0, 4.0, 5.0)
    assert found is not None
    assert found.pop("trials") > 2
    assert found == {"path": "layers", "total": 7, "kept": [1, 4], "fed": "token ids"}


def test_the_layer_alone_is_tried_first() -> None:
    """It adds 65504 and the largest that 1 + 65504 rounds down to is 65504: the layer in front is needed."""
    found = fewest(65504.0, 100.0, 7.0)
    assert found is not None
    assert found["kept"] == [0, 1]


def test_nothing_is_claimed_where_every_layer_is_needed() -> None:
    assert fewest(40000.0, 40000.0) is None


def test_another_layers_fault_is_not_taken_for_it() -> None:
    """Without the third layer the fourth overflows, and that is another module."""
    found = fewest(60000.0, -1.0, 50000.0, 50000.0)
    assert found is not None
    assert found["kept"] == [0, 2]


def test_a_module_that_is_no_layer_has_no_depth(tmp_path: Path) -> None:
    families.build("llama").save_pretrained(tmp_path)
    loaded = load_folder(tmp_path, "float16")
    asked, events = trials()
    assert depth.fewest(loaded, inputs_of(torch.ones(1, 1)), {}, "model.norm", asked) is None
    assert events == []


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bert"])
def test_a_model_of_fewer_layers_runs_and_is_whole_again(tmp_path: Path, family: str) -> None:
    families.build(family).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path, "float32")
    model: Any = loaded.model
    path = {"llama": "model.layers", "gemma3": "model.layers", "gpt2": "transformer.h", "bert": "bert.encoder.layer"}[
        family
    ]
    before, settings, layers = state_of(model), dict(vars(model.config)), model.get_submodule(path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        with depth.only(model, path, [0, 2]):
            assert len(model.get_submodule(path)) == 2
            assert model.config.num_hidden_layers == 2
            few = model(input_ids=ids, use_cache=False).logits
        again = model(input_ids=ids, use_cache=False).logits
    assert not torch.equal(few, whole)
    assert torch.equal(again, whole)
    assert vars(model.config) == settings
    assert model.get_submodule(path) is layers
    assert state_of(model) == before


def test_what_is_listed_layer_by_layer_follows_and_comes_back() -> None:
    model = Stack(1.0, 2.0, 3.0)
    with depth.only(model, "layers", [2]):
        assert model.config.kinds == ["kind 2"]
    assert model.config.kinds == ["kind 0", "kind 1", "kind 2"]


def test_the_model_is_whole_again_when_its_pass_raises() -> None:
    model = Stack(1.0, 2.0, 3.0)
    layers = model.layers
    with pytest.raises(RuntimeError, match="no"), depth.only(model, "layers", [2]):
        raise RuntimeError("no")
    assert model.layers is layers
    assert model.config.num_hidden_layers == 3
