"""The model's class built from a small configuration: the fault is injected into the code, not into the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from corpus.families import build
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from repro.probes.checkpoint.resolve import Source
from repro.probes.model.forward import look
from repro.probes.model.inputs import Inputs
from repro.probes.model.load import Loaded
from repro.probes.origin.search import Search, find
from repro.probes.reduce.models.configuration import seeded
from repro.probes.reduce.trials import Trials


def asked(model: Any, ids: list[int], dtype: torch.dtype = torch.float32) -> Any:
    source = Source("folder", "")
    loaded = Loaded(model.to(dtype), type(model).__name__, source, dtype, torch.device("cpu"), "eager", {})
    inputs = Inputs(None, "seeded", torch.tensor([ids]), None)
    origin = find(Search(loaded, look(loaded.model, inputs)))
    assert origin is not None
    return seeded(loaded, inputs, origin, Trials(lambda *_, **__: None))


def test_a_fault_of_the_code_is_shown_by_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        return self.weight * hidden_states / (hidden_states - hidden_states).abs().mean(-1, keepdim=True)

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", forward)
    found = asked(build("llama"), [90, 91, 92])
    assert (found["model_class"], found["config_class"], found["seed"]) == ("LlamaForCausalLM", "LlamaConfig", 0)
    assert found["config"]["num_hidden_layers"] == 1
    assert max(found["ids"]) < found["config"]["vocab_size"]
    assert len(found["ids"]) == 3
    torch.manual_seed(found["seed"])
    again = LlamaForCausalLM(LlamaConfig(**found["config"], attn_implementation=found["attn"])).eval()
    with torch.no_grad():
        assert not again(torch.tensor([found["ids"]])).logits.isfinite().any()


def test_a_fault_of_the_weights_is_not_shown_by_random_ones() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(3e38)
    assert asked(model, [90, 91, 92]) is None


def test_a_class_that_is_not_of_transformers_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)
    monkeypatch.delattr(transformers, "LlamaForCausalLM")
    assert asked(model, [90, 91, 92]) is None
