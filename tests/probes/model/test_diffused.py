"""Folders of diffusers: a part of a pipeline, and a pipeline as a whole, each with a fault that is planted in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.probes.model.compat import CannotLoad
from repro.probes.model.folders.noised import inputs_for
from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter
from repro.probes.steps import registry

diffusers = pytest.importorskip("diffusers")

SMALL = {"layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 8}
DENOISER = {
    **SMALL, "sample_size": 8, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 32, "attention_head_dim": 8,
}  # fmt: skip
CODER = {
    "block_out_channels": (16, 32), "norm_num_groups": 8, "latent_channels": 4, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
BLOCK = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "unconditional": ("UNet2DModel", {
        **SMALL, "sample_size": 16, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }),
    "text": ("UNet2DConditionModel", DENOISER),
    "text, sizes": ("UNet2DConditionModel", {
        **DENOISER, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }),
    "control": ("ControlNetModel", {
        **SMALL, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 32,
        "attention_head_dim": 8, "conditioning_embedding_out_channels": (16, 32),
    }),
    "coder": ("AutoencoderKL", CODER),
    "video coder": ("AutoencoderKLWan", {
        "base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
    }),
    "two streams": ("SD3Transformer2DModel", {
        **BLOCK, "sample_size": 16, "joint_attention_dim": 32, "caption_projection_dim": 16,
        "pooled_projection_dim": 64,
    }),
    "places": ("FluxTransformer2DModel", {
        "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "in_channels": 4,
        "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8], "guidance_embeds": True,
    }),
    "shapes": ("QwenImageTransformer2DModel", {
        "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 16,
        "in_channels": 16, "out_channels": 4, "axes_dims_rope": (8, 4, 4),
    }),
    "captions": ("PixArtTransformer2DModel", {
        **BLOCK, "cross_attention_dim": 16, "caption_channels": 24, "sample_size": 16, "out_channels": 8,
    }),
    "labels": ("DiTTransformer2DModel", {**BLOCK, "sample_size": 16}),
    "video": ("WanTransformer3DModel", {
        "num_layers": 1, "attention_head_dim": 12, "num_attention_heads": 2, "text_dim": 16, "freq_dim": 32,
        "ffn_dim": 32, "in_channels": 4, "out_channels": 4,
    }),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_of_a_part_ends(kind):
    name, settings = KINDS[kind]
    torch.manual_seed(0)
    part = getattr(diffusers, name)(**settings).eval()
    given = inputs_for(part, torch.float32)
    with torch.no_grad():
        (output, *_) = part(**given, return_dict=False)
    first = output[0] if isinstance(output, (list, tuple)) else output
    assert bool(torch.isfinite(first).all())


def test_a_part_that_takes_something_else_says_what_it_takes():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = {"in_channels": 4}

        def forward(self, sample: Any, moods: Any) -> None: ...

    with pytest.raises(CannotLoad, match=r"Odd takes sample, moods, .* Give exact ones with --inputs FILE"):
        inputs_for(Odd(), torch.float32)


def asked(folder: Path, steps: list[str], **case: Any) -> dict[str, tuple[str, str, dict[str, Any]]]:
    class Silent(Emitter):
        def event(self, name: str, **fields: Any) -> None:
            pass

    plan = {"model": str(folder), "weights": "checkpoint", "device": "cpu", "prompts": ["a b"], **case}
    session = Session(plan, str(folder.parent / "cache"), Silent(None))
    return {step: registry.run(session, step, scripted=False) for step in steps}


STEPS = ["files", "weights", "load", "forward", "bisect"]


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("denoiser")
    diffusers.UNet2DConditionModel(**DENOISER).save_pretrained(folder)
    return folder


def test_a_sound_denoiser_is_good(denoiser):
    found = asked(denoiser, STEPS)
    assert {step: row[0] for step, row in found.items()} == dict.fromkeys(STEPS, "good")
    assert "tensors equal to the file" in found["load"][1]
    assert found["files"][2]["package"] == "diffusers"


def test_an_overflow_in_a_denoiser_is_named(denoiser, tmp_path):
    part = diffusers.UNet2DConditionModel.from_pretrained(denoiser)
    with torch.no_grad():
        part.mid_block.resnets[1].conv1.bias[3] = 70000.0  # finite in float32, beyond float16
    part.save_pretrained(tmp_path / "part")
    found = asked(tmp_path / "part", STEPS, dtype="float16")
    assert found["weights"][0] == "good"
    origin = found["bisect"][2]["origin"]
    assert origin["tensor"] == "mid_block.resnets.1.conv1.bias"


def test_a_nan_in_the_file_of_a_part_is_named(denoiser, tmp_path):
    part = diffusers.UNet2DConditionModel.from_pretrained(denoiser)
    with torch.no_grad():
        part.conv_in.weight[0, 0, 0, 0] = float("nan")
    part.save_pretrained(tmp_path / "part")
    found = asked(tmp_path / "part", ["files", "weights"])
    assert found["weights"][0] == "bad"
    assert [row["tensor"] for row in found["weights"][2]["findings"]] == ["conv_in.weight"]


# --- pipelines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoder, denoiser and decoder of random weights, as a pipeline saves them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=77
    )
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=len(words),
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    ))  # fmt: skip
    whole = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**CODER), text_encoder=encoder, tokenizer=tokenizer, feature_extractor=None,
        unet=diffusers.UNet2DConditionModel(**DENOISER), safety_checker=None, requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline") / "whole"
    whole.save_pretrained(folder)
    return folder


def changed(pipeline: Path, folder: Path, part: str, kind: Any, change: Any) -> Path:
    """The pipeline with one part changed; the other parts are linked."""
    folder.mkdir()
    for place in pipeline.iterdir():
        if place.name != part:
            (folder / place.name).symlink_to(place)
    model = kind.from_pretrained(pipeline / part)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder / part)
    return folder


def test_a_sound_pipeline_is_good_and_gives_its_own_pictures(pipeline):
    found = asked(pipeline, STEPS)
    assert {step: row[0] for step, row in found.items()} == dict.fromkeys(STEPS, "good")
    names = {row["name"] for row in found["files"][2]["files"]}
    assert {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"} <= names


def test_a_black_picture_is_traced_into_the_decoder(pipeline, tmp_path):
    def grow(coder: Any) -> None:
        norm = coder.decoder.mid_block.resnets[1].norm2
        norm.weight.fill_(6e4)  # times what a norm gives, some of it beyond 1.1, overflows in float16

    folder = changed(pipeline, tmp_path / "black", "vae", diffusers.AutoencoderKL, grow)
    assert asked(folder, STEPS)["forward"][0] == "good"  # in float32
    origin = asked(folder, STEPS, dtype="float16")["bisect"][2]["origin"]
    assert (origin["module"], origin["op"], origin["mechanism"]) == (
        "vae.decoder.mid_block.resnets.1.norm2", "aten.native_group_norm.default", "overflow",
    )  # fmt: skip


def test_an_infinity_that_the_picture_would_hide_is_seen(pipeline, tmp_path):
    def lift(coder: Any) -> None:
        coder.decoder.conv_out.bias[1] = float("inf")  # clamped to 1 in the picture: white

    folder = changed(pipeline, tmp_path / "white", "vae", diffusers.AutoencoderKL, lift)
    found = asked(folder, STEPS)
    assert found["weights"][2]["findings"][0]["tensor"] == "vae.decoder.conv_out.bias"
    assert found["weights"][2]["findings"][0]["file"] == "vae/diffusion_pytorch_model.safetensors"
    assert found["forward"][0] == "bad"
    assert found["bisect"][2]["origin"]["tensor"] == "vae.decoder.conv_out.bias"


def test_a_nan_in_the_text_encoder_is_not_the_denoisers(pipeline, tmp_path):
    from transformers import CLIPTextModel

    def plant(encoder: Any) -> None:
        dict(encoder.named_parameters())[next(
            name for name, _ in encoder.named_parameters() if name.endswith("layers.1.mlp.fc1.bias")
        )][0] = float("nan")  # fmt: skip

    folder = changed(pipeline, tmp_path / "text", "text_encoder", CLIPTextModel, plant)
    origin = asked(folder, STEPS)["bisect"][2]["origin"]
    assert origin["module"].startswith("text_encoder.")
    assert origin["module"].endswith("layers.1.mlp.fc1")


def test_a_pipeline_that_makes_no_pictures_from_a_prompt_names_its_parts(denoiser, tmp_path):
    part = diffusers.UNet2DModel(**KINDS["unconditional"][1])
    diffusers.DDPMPipeline(unet=part, scheduler=diffusers.DDPMScheduler()).save_pretrained(tmp_path / "plain")
    with pytest.raises(CannotLoad, match="Give one of its parts: unet"):
        asked(tmp_path / "plain", ["files", "load"])


def test_a_class_that_diffusers_lacks_could_not_be_told(denoiser, tmp_path):
    config = json.loads((denoiser / "config.json").read_text("utf-8"))
    diffusers.UNet2DConditionModel.from_pretrained(denoiser).save_pretrained(tmp_path / "part")
    (tmp_path / "part/config.json").write_text(json.dumps({**config, "_class_name": "UNetOfTomorrow"}))
    with pytest.raises(CannotLoad, match=r"diffusers .* has no model UNetOfTomorrow"):
        asked(tmp_path / "part", ["files", "load"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unet": ["this", "Zen"]}, r".unet. of the pipeline is to be imported from .this., which is neither"),
        ({"_class_name": ["mine", "Pipeline"]}, r"The pipeline's class is \[.*: code of its own only runs with"),
    ],
)
def test_nothing_that_a_file_names_is_imported(pipeline, tmp_path, change, said):
    folder = changed(pipeline, tmp_path / "other", "vae", diffusers.AutoencoderKL, lambda coder: None)
    index = json.loads((pipeline / "model_index.json").read_text("utf-8"))
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").write_text(json.dumps({**index, **change}))
    sys.modules.pop("this", None)
    with pytest.raises(CannotLoad, match=said):
        asked(folder, ["files", "load"])
    assert "this" not in sys.modules
