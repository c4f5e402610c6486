"""Adapters as the package PEFT itself writes them: the numbers are PEFT's own, and an injected fault is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from support.hosting import repro
from torch import Tensor

from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter

peft = pytest.importorskip("peft", reason="the package peft is not installed here")
# PEFT asks Transformers by names that this one calls old; what it warns of is not ours.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("forked_interpreters")]

IDS = torch.tensor([families.DEFAULT_IDS])
LINEAR = ["q_proj", "down_proj"]
LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
KINDS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=LINEAR),
    "rslora": lambda: peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=LINEAR, **LM),
    "patterns": lambda: peft.LoraConfig(
        r=4, target_modules=LINEAR, rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"down_proj": 32}
    ),
    "embedding": lambda: peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], **LM),
    "head": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, modules_to_save=["lm_head"], **LM),
    "bias": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, lora_bias=True, **LM),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, use_dora=True, **LM),
    "new tokens": lambda: peft.LoraConfig(r=4, target_modules=LINEAR, trainable_token_indices=[3, 5], **LM),
    "ia3": lambda: peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"], **LM),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=LINEAR, **LM),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=LINEAR, **LM),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **LM),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, **LM),
}
NOT_MERGED = ("prompt", "prefix", "bias")
"""Kinds that PEFT does not merge: they work on the inputs, or the layer has no bias that would take theirs."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    families.build("llama").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def fresh(base: Path) -> Any:
    return type(families.build("llama")).from_pretrained(base).eval()


def written(base: Path, kind: str, change: Any = None) -> Path:
    """The folder that PEFT saves of an adapter with seeded numbers. change: is given its trained parameters."""
    torch.manual_seed(0)
    model = peft.get_peft_model(fresh(base), KINDS[kind]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        if change is not None:
            change({name: held for name, held in model.named_parameters() if held.requires_grad})
    model.save_pretrained(base.parent / "adapter")
    return base.parent / "adapter"


def by_peft(base: Path, folder: Path) -> Tensor:
    with torch.no_grad():
        found: Tensor = peft.PeftModel.from_pretrained(fresh(base), folder).eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_peft_and_other_ones_than_the_base_model_has(base: Path, kind: str) -> None:
    folder = written(base, kind)
    case = {"model": str(folder), "weights": "checkpoint", "device": "cpu", "prompts": [], "trust_remote_code": False}
    session = Session(case, str(base.parent / "cache"), Emitter(None))
    loaded = session.loaded()
    outcome = session.load_outcome()
    assert outcome[0] == "good", outcome[1]
    with torch.no_grad():
        got = loaded.model(input_ids=IDS).logits
        assert torch.allclose(got, by_peft(base, folder), atol=1e-5)
        plain = fresh(base)(IDS).logits
        assert not torch.allclose(got[:, -IDS.shape[1] :], plain, atol=1e-3)  # behind the tokens of a learned prompt
        with loaded.adapter.off():
            # what the adapter has as a whole stays
            assert kind in ("head", "new tokens") or torch.allclose(
                loaded.model(input_ids=IDS).logits, plain, atol=1e-5
            )
        if kind not in NOT_MERGED:
            with loaded.adapter.merged(loaded):
                assert torch.allclose(loaded.model(input_ids=IDS).logits, got, atol=1e-3)
        assert torch.equal(loaded.model(input_ids=IDS).logits, got)


def asked(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    ran = repro(folder, *options, "--no-bundle", "--out", "o", cwd=folder.parent)
    path = folder.parent / "o" / "verdict.json"
    assert path.exists(), ran.stderr
    answer: dict[str, Any] = json.loads(path.read_text())
    return ran.returncode, answer


PLANTED = {
    "dora": "model.layers.1.mlp.down_proj.lora_magnitude_vector.default.weight",
    "ia3": "model.layers.1.mlp.down_proj.ia3_l.default",
    "prompt": "prompt_encoder.default.embedding.weight",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTED)
def test_a_nan_of_the_adapter_is_named_and_goes_away_without_it(base: Path, kind: str) -> None:
    def change(held: dict[str, Tensor]) -> None:
        (name,) = (name for name in held if name.endswith(PLANTED[kind]))
        held[name].view(-1)[2] = float("nan")

    status, answer = asked(written(base, kind, change), "--no-reduce")
    assert status == 1
    assert (answer["origin"]["mechanism"], answer["origin"]["tensor"]) == ("bad_weights", PLANTED[kind])
    assert "adapter=off" in answer["workarounds"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora", "prefix"])
def test_the_sound_adapter_is_good_in_generation_and_training(base: Path, kind: str) -> None:
    status, answer = asked(written(base, kind), "--generate", "3", "--no-ablations")
    assert (status, answer["verdict"]) == (0, "good")
    ran = repro(base.parent / "adapter", "--train-step", "2", "--no-bundle", "--out", "t", cwd=base.parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr
