"""Folders with a LoRA adapter: the base model and the adapter, merged and not."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from safetensors.torch import save_file
from torch import Tensor

from repro.probes.checkpoint.resolve import CannotResolve, resolve
from repro.probes.main import run_plan
from repro.probes.model.compat import CannotLoad
from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter

RANK, ALPHA = 4, 8
LAYERS = {
    "llama": ("model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"),
    "gpt2": ("transformer.h.1.attn.c_attn", "transformer.h.2.mlp.c_proj"),
}
STEPS = ("files", "weights", "load", "forward", "bisect", "ablation:adapter=merged", "ablation:adapter=off")


def write(folder: Path, base: Path, family: str, change: Any = None, **settings: Any) -> dict[str, Tensor]:
    """An adapter as PEFT saves it, and its tensors; ``change`` is given these first."""
    model = families.build(family)
    modules = dict(model.named_modules())
    generator = torch.Generator().manual_seed(1)
    held: dict[str, Tensor] = {}
    for layer in LAYERS[family]:
        shape = tuple(modules[layer].weight.shape)
        out, into = shape if family == "llama" else shape[::-1]  # Conv1D holds it the other way round
        held[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(RANK, into, generator=generator) * 0.2
        held[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, RANK, generator=generator) * 0.2
    if change is not None:
        change(held)
    folder.mkdir()
    save_file(held, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(base), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return held


def ends(folder: Path, *steps: str, dtype: str | None = None) -> dict[str, dict[str, Any]]:
    lines: list[dict[str, Any]] = []

    class Kept(Emitter):
        def event(self, kind: str, **fields: Any) -> None:
            lines.append({"event": kind, **fields})

    case = {"model": str(folder), "weights": "checkpoint", "device": "cpu", "dtype": dtype, "prompts": []}
    run_plan({"steps": list(steps), "case": case, "cache": str(folder / "cache")}, Kept(None))
    return {line["step"]: line for line in lines if line["event"] == "end"}


def by_hand(base: Path, held: dict[str, Tensor], family: str, scale: float) -> Tensor:
    """The logits of the base model with the product added to its weights, in plain torch."""
    model = type(families.build(family)).from_pretrained(base).eval()
    modules = dict(model.named_modules())
    with torch.no_grad():
        for layer in LAYERS[family]:
            a, b = (held[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
            product = scale * b @ a
            modules[layer].weight += product if family == "llama" else product.T
        return model(torch.tensor([families.DEFAULT_IDS])).logits


def logits_of(folder: Path) -> Tensor:
    case = {"model": str(folder), "weights": "checkpoint", "device": "cpu", "prompts": [], "trust_remote_code": False}
    session = Session(case, str(folder / "cache"), Emitter(None))
    with torch.no_grad():
        return session.loaded().model(torch.tensor([families.DEFAULT_IDS])).logits


@pytest.fixture
def base(checkpoints: dict[str, Path]) -> dict[str, Path]:
    return checkpoints


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize("stabilised", [False, True])
def test_the_adapter_is_added_by_its_formula(base, tmp_path, family, stabilised):
    held = write(tmp_path / "adapter", base[family], family, use_rslora=stabilised)
    scale = ALPHA / math.sqrt(RANK) if stabilised else ALPHA / RANK
    wanted = by_hand(base[family], held, family, scale)
    got = logits_of(tmp_path / "adapter")
    plain = type(families.build(family)).from_pretrained(base[family]).eval()
    assert torch.allclose(got, wanted, atol=1e-4)
    assert not torch.allclose(got, plain(torch.tensor([families.DEFAULT_IDS])).logits, atol=1e-2)


def test_a_sound_adapter_is_good_in_each_way(base, tmp_path):
    write(tmp_path / "adapter", base["llama"], "llama")
    found = ends(tmp_path / "adapter", *STEPS)
    assert {step: end["verdict"] for step, end in found.items()} == dict.fromkeys(STEPS, "good")
    assert found["files"]["reason"].endswith(f"an adapter on {base['llama']}")
    assert "with a LoRA adapter of rank 4 on 2 layers, not merged" in found["load"]["reason"]
    tensors = found["weights"]["payload"]["tensors"]
    assert tensors == len(families.build("llama").state_dict()) + 4


def test_a_nan_of_the_adapter_is_named(base, tmp_path):
    key = "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"

    def change(held):
        held[key][5, 1] = math.nan

    write(tmp_path / "adapter", base["llama"], "llama", change)
    found = ends(tmp_path / "adapter", *STEPS)
    assert (found["weights"]["verdict"], found["weights"]["payload"]["findings"][0]["tensor"]) == ("bad", key)
    origin = found["bisect"]["payload"]["origin"]
    assert (origin["mechanism"], origin["tensor"]) == ("bad_weights", "model.layers.2.mlp.down_proj.lora_B.weight")
    assert (origin["tensor_index"], origin["stored_as"]) == ([5, 1], key)
    assert found["ablation:adapter=off"]["verdict"] == "good"
    assert found["ablation:adapter=merged"]["verdict"] == "bad"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("part", ["mlp.c_proj", "attn.c_proj"])  # with an adapter on it, and without
def test_an_infinity_of_the_base_is_the_same_tensor_in_the_weights_and_in_the_origin(tmp_path, part, dtype):
    model, name = families.build("gpt2"), f"transformer.h.2.{part}.weight"
    with torch.no_grad():
        dict(model.named_parameters())[name][3, 2] = float("inf")
    model.save_pretrained(tmp_path / "base")
    write(tmp_path / "adapter", tmp_path / "base", "gpt2")
    found = ends(tmp_path / "adapter", *STEPS[:5], dtype=dtype)
    origin = found["bisect"]["payload"]["origin"]
    assert f"the first is {name}: 0 NaN, 1 +inf, 0 -inf, first at [3, 2]" in found["weights"]["reason"]
    assert (origin["tensor"], origin["tensor_index"], origin["mechanism"]) == (name, [3, 2], "bad_weights")


def test_an_adapter_that_overflows_goes_away_with_it(base, tmp_path):
    def change(held):
        for name in held:
            if "down_proj" in name:
                held[name] *= 2_000

    write(tmp_path / "adapter", base["llama"], "llama", change)
    found = ends(tmp_path / "adapter", *STEPS, dtype="float16")
    origin = found["bisect"]["payload"]["origin"]
    assert (origin["module"], origin["mechanism"]) == ("model.layers.2.mlp.down_proj", "overflow")
    assert found["ablation:adapter=off"]["verdict"] == "good"


def test_what_was_put_on_is_as_before_after_the_ablations(base, tmp_path):
    write(tmp_path / "adapter", base["llama"], "llama")
    again = ends(tmp_path / "adapter", "forward", "ablation:adapter=merged", "ablation:adapter=off", "trace", "forward")
    assert again["forward"]["verdict"] == "good"
    equal = {step: again[step]["payload"]["equal_to_case"] for step in again if step.startswith("ablation")}
    assert equal["ablation:adapter=off"] is False


def test_a_key_of_nothing_in_the_model_is_a_finding(base, tmp_path):
    def change(held):
        held["base_model.model.model.layers.9.mlp.down_proj.lora_A.weight"] = torch.zeros(4, 4)

    write(tmp_path / "adapter", base["llama"], "llama", change)
    found = ends(tmp_path / "adapter", "files", "load")["load"]
    assert found["verdict"] == "bad"
    assert "the adapter has keys that the model does not: base_model.model.model.layers.9" in found["reason"]


def test_a_matrix_without_its_other_is_named(base, tmp_path):
    gone = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    write(tmp_path / "adapter", base["llama"], "llama", lambda held: held.pop(gone))
    found = ends(tmp_path / "adapter", "files", "load")["load"]
    assert found["verdict"] == "bad"
    assert f"the adapter lacks one of the two matrices of a layer: there is no {gone}" in found["reason"]


def test_a_rank_of_0_is_said_and_not_repeated(base, tmp_path):
    write(tmp_path / "adapter", base["llama"], "llama", r=0)
    found = ends(tmp_path / "adapter", "files", "load")["load"]
    assert found["verdict"] == "bad"
    assert "adapter_config.json says r=0, and the matrices have the rank" in found["reason"]
    assert "of rank 0" not in found["reason"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, r"The adapter is of kind IA3, which needs the package peft"),
        ({"use_dora": True}, r"The adapter is with use_dora, which needs the package peft"),
    ],
)
def test_what_only_peft_knows_could_not_be_told_without_it(base, tmp_path, settings, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    write(tmp_path / "adapter", base["llama"], "llama", **settings)
    with pytest.raises(CannotLoad, match=said):
        logits_of(tmp_path / "adapter")


def test_an_adapter_on_another_model_says_so(base, tmp_path):
    write(tmp_path / "adapter", base["gpt2"], "llama")
    with pytest.raises(CannotLoad, match=r"The adapter fits no layer of GPT2LMHeadModel"):
        logits_of(tmp_path / "adapter")


def test_a_base_model_that_is_not_here_is_named(tmp_path, monkeypatch, base):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path / "adapter", tmp_path / "gone", "llama")
    with pytest.raises(CannotResolve, match=r"is an adapter on .*gone, which is not here. Put its folder there"):
        resolve({"model": str(tmp_path / "adapter")})


def test_a_base_model_beside_the_adapter(base, tmp_path):
    (tmp_path / "base").symlink_to(base["llama"])
    write(tmp_path / "adapter", Path("../base"), "llama")
    found = resolve({"model": str(tmp_path / "adapter")})
    assert (Path(found.folder).resolve(), found.adapter) == (base["llama"].resolve(), str(tmp_path / "adapter"))
