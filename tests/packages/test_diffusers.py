"""Parts of a pipeline as the package diffusers writes them, by the real command: one denoising step, the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.hosting import repro

pytestmark = pytest.mark.usefixtures("forked_interpreters")

diffusers = pytest.importorskip("diffusers", reason="the package diffusers is not installed here")


def decoder() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, sample_size=32,
    )  # fmt: skip


def denoiser() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip


def transformer() -> Any:
    torch.manual_seed(0)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=2, sample_size=8,
        num_embeds_ada_norm=10,
    )  # fmt: skip


MAKERS = {"vae": decoder, "unet": denoiser, "transformer": transformer}


def asked(folder: Path, part: str, *options: str) -> tuple[int, dict[str, Any]]:
    ran = repro(part, *options, "--no-bundle", "--out", "o", cwd=folder)
    path = folder / "o" / "verdict.json"
    assert path.exists(), ran.stderr
    answer: dict[str, Any] = json.loads(path.read_text())
    return ran.returncode, answer


@pytest.mark.slow
@pytest.mark.parametrize("part", MAKERS)
def test_a_sound_part_is_good(tmp_path: Path, part: str) -> None:
    MAKERS[part]().save_pretrained(tmp_path / part)
    status, answer = asked(tmp_path, part, "--no-ablations")
    assert (status, answer["verdict"]) == (0, "good"), answer["reason"]
    assert answer["load"]["missing_keys"] == []


@pytest.mark.slow
def test_a_decoder_that_overflows_in_float16_is_named_with_what_avoids_it(tmp_path: Path) -> None:
    model = decoder()
    with torch.no_grad():
        model.decoder.conv_in.weight.mul_(3e4)
        model.decoder.conv_in.bias.fill_(6e4)
    model.save_pretrained(tmp_path / "vae")
    status, answer = asked(tmp_path, "vae", "--dtype", "float16", "--no-reduce")
    assert status == 1
    origin = answer["origin"]
    assert origin["module"].startswith("decoder.")
    assert origin["mechanism"] == "overflow"
    assert "dtype=float32" in answer["workarounds"]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "tensor"), [("unet", "mid_block.resnets.0.conv1.weight"), ("transformer", "norm")])
def test_a_nan_of_a_denoiser_is_named(tmp_path: Path, part: str, tensor: str) -> None:
    model = MAKERS[part]()
    held = dict(model.named_parameters())
    name = tensor if tensor in held else "transformer_blocks.1.attn1.to_q.weight"
    with torch.no_grad():
        held[name].view(-1)[7] = float("nan")
    model.save_pretrained(tmp_path / part)
    status, answer = asked(tmp_path, part, "--no-ablations", "--no-reduce")
    assert status == 1
    assert (answer["origin"]["mechanism"], answer["origin"]["tensor"]) == ("bad_weights", name)


def test_a_part_of_seeded_weights_needs_no_file(tmp_path: Path) -> None:
    denoiser().save_config(tmp_path / "unet")
    status, answer = asked(tmp_path, "unet", "--weights", "random:3", "--no-ablations")
    assert (status, answer["verdict"]) == (0, "good"), answer["reason"]
    assert answer["load"]["random_seed"] == 3
