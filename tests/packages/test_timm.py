"""Models of pictures as the package timm saves them: needs timm and the torchvision that goes with the torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.hosting import repro

pytestmark = pytest.mark.usefixtures("forked_interpreters")

timm = pytest.importorskip("timm", reason="the package timm is not installed here", exc_type=ImportError)


def saved(folder: Path, change: Any = None) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=2)
    if change is not None:
        with torch.no_grad():
            change(dict(model.named_parameters()))
    timm.models._hub.save_for_hf(model, str(folder), model_args={"depth": 2})
    return folder


def asked(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    ran = repro(folder.name, *options, "--no-ablations", "--no-bundle", "--out", "o", cwd=folder.parent)
    answer: dict[str, Any] = json.loads((folder.parent / "o/verdict.json").read_text("utf-8"))
    return ran.returncode, answer


def test_a_sound_model_is_good(tmp_path: Path) -> None:
    status, answer = asked(saved(tmp_path / "model"))
    assert (status, answer["verdict"], answer["files"]["package"]) == (0, "good", "timm"), answer["reason"]
    assert answer["load"]["missing_keys"] == []


def test_an_overflow_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", lambda held: held["blocks.1.norm2.weight"].fill_(6e4))
    status, answer = asked(folder, "--dtype", "float16")
    assert status == 1
    assert (answer["origin"]["module"], answer["origin"]["mechanism"]) == ("blocks.1.norm2", "overflow")


def test_a_nan_in_the_file_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", lambda held: held["blocks.1.attn.qkv.weight"][0, 7].fill_(float("nan")))
    status, answer = asked(folder)
    assert (status, answer["origin"]["tensor"], answer["owner"]["project"]) == (
        1, "blocks.1.attn.qkv.weight", "checkpoint",
    )  # fmt: skip
