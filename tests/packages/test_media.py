"""Pictures and sounds from files, by the real packages: every format, and what becomes of a fault."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import kinds
from support.handmade import load_folder
from support.hosting import repro

from repro.probes.model.compat import CannotLoad
from repro.probes.model.kinds.processed import processed_inputs

pytestmark = pytest.mark.usefixtures("forked_interpreters")


def picture(path: Path, **options: Any) -> Path:
    """A picture that is red at its top and blue below."""
    image = pytest.importorskip("PIL.Image", reason="the package Pillow is not installed here")
    made = image.new("RGB", (48, 40), (255, 0, 0))
    made.paste((0, 0, 255), (0, 20, 48, 40))
    made.save(path, **options)
    return path


def tone(path: Path) -> Path:
    """Half a second of 440 Hz at 16 kHz."""
    soundfile = pytest.importorskip("soundfile", reason="the package soundfile is not installed here")
    seconds = torch.arange(8_000, dtype=torch.float64) / 16_000
    soundfile.write(path, (0.5 * torch.sin(2 * math.pi * 440 * seconds)).numpy(), 16_000)
    return path


def vit(folder: Path) -> Path:
    kinds.KINDS["vit"].save(folder)
    extractor = transformers.ViTImageProcessorPil if hasattr(transformers, "ViTImageProcessorPil") else None
    made = (extractor or transformers.ViTImageProcessor)(size={"height": 32, "width": 32})
    made.save_pretrained(folder)
    return folder


def wav2vec2(folder: Path) -> Path:
    kinds.KINDS["wav2vec2"].save(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "gif"])
def test_a_picture_of_each_format_is_what_the_processor_makes_of_it(tmp_path: Path, ending: str) -> None:
    loaded = load_folder(vit(tmp_path / "vit"))
    path = picture(tmp_path / f"a.{ending}")
    (made,) = processed_inputs(loaded, str(path), None, [], False, False)
    pixels = made.arguments()["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    red, _, blue = pixels[0].mean(-1)  # each row's
    assert red[:12].min() > 0.8 > -0.8 > red[-12:].max()
    assert blue[-12:].min() > 0.8 > -0.8 > blue[:12].max()


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "aiff"])
def test_a_sound_of_each_format_is_the_tone_that_was_written(tmp_path: Path, ending: str) -> None:
    loaded = load_folder(wav2vec2(tmp_path / "model"))
    (made,) = processed_inputs(loaded, None, str(tone(tmp_path / f"a.{ending}")), [], False, False)
    samples = made.arguments()["input_values"][0]
    spectrum = torch.fft.rfft(samples).abs()
    assert int(spectrum.argmax()) / (samples.numel() / 16_000) == pytest.approx(440, abs=3)


def asked(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    ran = repro(*words, "--no-bundle", "--no-reduce", "--out", "o", cwd=folder)
    path = folder / "o" / "verdict.json"
    assert path.exists(), ran.stderr
    answer: dict[str, Any] = json.loads(path.read_text())
    return ran.returncode, answer


@pytest.mark.slow
@pytest.mark.parametrize("bad", [True, False])
def test_a_picture_through_the_command(tmp_path: Path, bad: bool) -> None:
    """The patches add up their blue and a bias beyond float16's limit: the lower half of the picture does."""
    folder = vit(tmp_path / "vit")
    if bad:
        path = folder / "model.safetensors"
        held = load_file(path)
        (name,) = (name for name in held if name.endswith("patch_embeddings.projection.weight"))
        held[name][:, 2] = 0.0
        held[name][3, 2] = 600.0  # of 64 pixels
        held[name.replace("weight", "bias")][3] = 4e4
        save_file(held, path, metadata={"format": "pt"})
    picture(tmp_path / "a.png")
    status, answer = asked(tmp_path, "vit", "--image", "a.png", "--dtype", "float16", "--no-ablations")
    assert status == int(bad), answer["reason"]
    if bad:
        origin = answer["origin"]
        assert origin["mechanism"] == "overflow"
        assert origin["module"].endswith("patch_embeddings.projection")
        assert origin["place"]["kind"] == "map"
        assert origin["place"]["shape"] == [4, 4]
        assert origin["place"]["index"][0] >= 2  # rows 2 and 3 of 4 are blue


@pytest.mark.slow
@pytest.mark.parametrize("bad", [True, False])
def test_a_sound_through_the_command(tmp_path: Path, bad: bool) -> None:
    folder = wav2vec2(tmp_path / "model")
    if bad:
        path = folder / "model.safetensors"
        held = load_file(path)
        (name,) = (name for name in held if name.endswith("encoder.layers.1.attention.out_proj.weight"))
        held[name][1, 2] = float("nan")
        save_file(held, path, metadata={"format": "pt"})
    tone(tmp_path / "a.flac")
    status, answer = asked(tmp_path, "model", "--audio", "a.flac", "--no-ablations")
    assert status == int(bad), answer["reason"]
    if bad:
        assert answer["origin"]["tensor"].endswith("encoder.layers.1.attention.out_proj.weight")


def test_what_is_no_picture_and_no_sound_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the package Pillow is not installed here")
    pytest.importorskip("soundfile", reason="the package soundfile is not installed here")
    for ending in ("png", "flac"):
        (tmp_path / f"a.{ending}").write_bytes(b"not this")
    with pytest.raises(CannotLoad, match=r"a\.png is no picture that Pillow reads"):
        processed_inputs(load_folder(vit(tmp_path / "v")), str(tmp_path / "a.png"), None, [], False, False)
    with pytest.raises(CannotLoad, match=r"a\.flac is no sound that soundfile reads"):
        processed_inputs(load_folder(wav2vec2(tmp_path / "w")), None, str(tmp_path / "a.flac"), [], False, False)
