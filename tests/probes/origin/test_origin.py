"""Values that are bad before the pass begins: what is said of them depends on what the file holds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}


def ends(model: PreTrainedModel, folder: Path, *steps: str) -> dict[str, dict[str, Any]]:
    """End events of the steps on a saved model in float16."""
    model.save_pretrained(folder)
    stream = io.StringIO()
    case = {"model": str(folder), "weights": "checkpoint", "dtype": "float16", "prompts": []}
    run_plan({"steps": ["load", "forward", *steps], "case": case, "cache": str(folder)}, Emitter(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    return {event["step"]: event for event in events if event["event"] == "end"}


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def test_weights_of_both_signs_that_the_cast_makes_infinite_are_an_overflow_of_that_tensor(llama, tmp_path):
    """inf - inf in the product is NaN, and the product overflows by itself as well; the weights came first."""
    weight = llama.model.layers[1].self_attn.v_proj.weight
    with torch.no_grad():
        weight.copy_(torch.where(torch.arange(32) % 2 == 0, 1e5, -1e5).expand(16, 32))
    origin = ends(llama, tmp_path, "bisect")["bisect"]["payload"]["origin"]
    assert (origin["mechanism"], origin["tensor"]) == ("overflow", "model.layers.1.self_attn.v_proj.weight")
    assert abs(origin["reference_value"]) == 1e5


def test_a_row_of_negative_infinities_in_a_weight_is_no_mask(llama, tmp_path):
    with torch.no_grad():
        llama.model.layers[1].self_attn.v_proj.weight[3] = -torch.inf
    origin = ends(llama, tmp_path, "bisect")["bisect"]["payload"]["origin"]
    assert (origin["mechanism"], origin["tensor"]) == ("bad_weights", "model.layers.1.self_attn.v_proj.weight")


def test_a_fused_parameter_that_the_cast_makes_infinite_is_no_bad_weight(tmp_path):
    """transformers 5 stacks the experts of the file into one tensor, so no tensor of the file is that one."""
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers.1" in name and (("experts" in name and "gate_up" in name) or "w1" in name):
                parameter.fill_(1e5)
    found = ends(model, tmp_path, "bisect", "ablation:dtype=float32")
    assert found["bisect"]["payload"]["origin"]["mechanism"] == "overflow"
    assert found["ablation:dtype=float32"]["verdict"] in ("skip", "good")  # never bad: the file's digits are finite


def test_a_model_that_takes_something_else_is_skipped_in_one_line(tmp_path):
    from transformers import PerceiverConfig, PerceiverModel

    config = PerceiverConfig(num_latents=4, d_latents=8, d_model=8, num_blocks=1, num_self_attends_per_block=1)
    forward = ends(PerceiverModel(config), tmp_path)["forward"]
    assert forward["verdict"] == "skip"
    assert forward["reason"].startswith("PerceiverModel takes inputs, and only these can be made here: input_ids")
