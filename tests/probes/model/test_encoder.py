"""Folders of sentence encoders: the transformer, and the pooling and the dense layer behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from safetensors.torch import save_file

from repro.probes.model.compat import CannotLoad
from repro.probes.model.folders.encoder import EMBEDDING, MODES, Pooling
from repro.probes.model.forward import run
from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter
from repro.probes.steps.bisect import run as bisect

KIND = "sentence_transformers.models."
OUT = 6


def write(folder: Path, mode: str = "mean_tokens", first: str = "", kind: str = "Dense") -> torch.nn.Linear:
    """An encoder as the library saves it, and its dense layer."""
    place = folder / first
    families.build("bert_plain").save_pretrained(place)
    families.write_tokenizer(place)
    torch.manual_seed(3)
    dense = torch.nn.Linear(families.HIDDEN, OUT)
    for name, settings in (
        ("1_Pooling", {f"pooling_mode_{one}": one == mode for one in MODES}),
        ("2_Dense", {
            "in_features": families.HIDDEN, "out_features": OUT, "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        }),
    ):  # fmt: skip
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(settings))
    save_file(
        {f"linear.{key}": value for key, value in dense.state_dict().items()}, folder / "2_Dense/model.safetensors"
    )
    rows = [(first, "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", kind), ("3_Normalize", "Normalize")]
    listed = [{"idx": at, "name": str(at), "path": path, "type": KIND + kind} for at, (path, kind) in enumerate(rows)]
    (folder / "modules.json").write_text(json.dumps(listed))
    return dense


def session_of(folder: Path, **more: Any) -> Session:
    class Silent(Emitter):
        def event(self, name: str, **fields: Any) -> None:
            pass

    case = {"model": str(folder), "weights": "checkpoint", "device": "cpu", "prompts": ["w3 w4 w5"], **more}
    return Session(case, str(folder / "cache"), Silent(None))


@pytest.mark.parametrize("first", ["", "0_Transformer"])
def test_the_embedding_is_that_of_plain_torch(tmp_path, first):
    dense = write(tmp_path, first=first)
    session = session_of(tmp_path)
    (made,) = session.inputs()
    model = families.build("bert_plain")
    with torch.no_grad():
        hidden = model(input_ids=made.input_ids, attention_mask=made.attention_mask).last_hidden_state
        wanted = torch.nn.functional.normalize(torch.tanh(dense(hidden.mean(1))), dim=1)
    seen = run(session.loaded().model, made)
    assert torch.allclose(seen[EMBEDDING], wanted, atol=1e-6)
    assert "with Pooling and Dense and Normalize behind it" in session.load_outcome()[1]
    assert session.passes()[0].output_name == EMBEDDING


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_pooling(mode):
    hidden, mask = torch.randn(1, 4, 3), torch.tensor([[1, 1, 1, 0]])
    kept = hidden[0, :3]
    steps = torch.tensor([1.0, 2.0, 3.0])[:, None]
    wanted = {
        "cls_token": kept[0],
        "max_tokens": kept.amax(0),
        "mean_tokens": kept.mean(0),
        "mean_sqrt_len_tokens": kept.sum(0) / 3**0.5,
        "weightedmean_tokens": (kept * steps).sum(0) / 6,
        "lasttoken": kept[2],
    }[mode]
    assert torch.allclose(Pooling((mode,))(hidden, mask)[0], wanted, atol=1e-6)


def test_a_nan_of_the_dense_layer_is_named(tmp_path):
    dense = write(tmp_path)
    with torch.no_grad():
        dense.weight[2, 7] = float("nan")
    held = {f"linear.{key}": value.detach() for key, value in dense.state_dict().items()}
    save_file(held, tmp_path / "2_Dense/model.safetensors")
    verdict, _, payload = bisect(session_of(tmp_path), "bisect")
    origin = payload["origin"]
    assert (verdict, origin["mechanism"], origin["tensor"]) == ("bad", "bad_weights", "2_Dense.linear.weight")
    assert origin["tensor_index"] == [2, 7]


def test_a_module_that_is_not_known_is_named(tmp_path):
    write(tmp_path, kind="WeightedLayerPooling")
    with pytest.raises(CannotLoad, match=r"a module WeightedLayerPooling \(2_Dense\) that only the package sentence-"):
        session_of(tmp_path).loaded()
