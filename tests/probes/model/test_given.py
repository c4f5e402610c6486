"""Inputs that somebody gives: exact ones from a file, and pictures and sounds through the model's own processor."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

import pytest
import torch
import transformers
from corpus import families
from safetensors.torch import save_file
from support.handmade import load_folder
from support.kinds import KINDS

from repro.probes.model.compat import CannotLoad
from repro.probes.model.forward import run
from repro.probes.model.inputs import second_inputs
from repro.probes.model.kinds.exact import exact_inputs
from repro.probes.model.kinds.processed import processed_inputs, read_wave, resampled

RATE = 8_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    return lambda name: root / name if (root / name).is_dir() else KINDS[name].save(root / name)


def tone(path: Path, samples: int = 4_000, width: int = 2) -> Path:
    """A tone of 440 Hz at half the full scale, as the standard library writes it."""
    with wave.open(str(path), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(width)
        opened.setframerate(RATE)
        values = [round(2 ** (8 * width - 2) * math.sin(2 * math.pi * 440 * at / RATE)) for at in range(samples)]
        opened.writeframes(b"".join(struct.pack("<i", value)[:width] for value in values))
    return path


# --- exact inputs ------------------------------------------------------------------------------------------------


def test_exact_inputs_are_those_of_the_file(folders, tmp_path):
    loaded = load_folder(folders("vit"))
    pixels = torch.randn(2, 3, 32, 32)
    save_file({"pixel_values": pixels}, tmp_path / "in.safetensors")
    (made,) = exact_inputs(loaded, str(tmp_path / "in.safetensors"), False)
    assert torch.equal(made.arguments()["pixel_values"], pixels)
    with torch.no_grad():
        assert torch.equal(run(loaded.model, made).logits, loaded.model(pixel_values=pixels).logits)
    assert made.record()["further"] == [
        {"name": "pixel_values", "shape": [2, 3, 32, 32], "dtype": "float32", "seed": None, "made": "file"}
    ]
    assert second_inputs(loaded, made, False).source == "seeded"


def test_numbers_go_in_in_the_models_dtype_and_that_is_said(folders, tmp_path):
    loaded = load_folder(folders("vit"), "float16")
    save_file({"pixel_values": torch.randn(1, 3, 32, 32)}, tmp_path / "in.safetensors")
    (made,) = exact_inputs(loaded, str(tmp_path / "in.safetensors"), False)
    (row,) = made.record()["further"]
    assert (row["dtype"], row["stored"]) == ("float16", "float32")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_each_kind_of_file(folders, tmp_path, suffix):
    path, ids = tmp_path / f"in{suffix}", torch.tensor([[5, 6, 7]])
    held = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0]]), "token_type_ids": torch.zeros_like(ids)}
    if suffix == ".safetensors":
        save_file(held, path)
    elif suffix == ".npz":
        pytest.importorskip("numpy").savez(path, **{name: value.numpy() for name, value in held.items()})
    else:
        torch.save(held, path)
    (made,) = exact_inputs(load_folder(folders("layoutlm")), str(path), False)
    assert made.input_ids.tolist() == [[5, 6, 7]]
    assert made.attention_mask.tolist() == [[1, 1, 0]]
    assert made.further[0].by_token


def test_a_decoder_is_fed_the_ids_shifted(folders, tmp_path):
    save_file({"input_ids": torch.tensor([[5, 6, 7]])}, tmp_path / "in.safetensors")
    (made,) = exact_inputs(load_folder(folders("t5")), str(tmp_path / "in.safetensors"), False)
    assert made.decoder_input_ids.tolist() == [[0, 5, 6]]


def code(path):
    class Evil:
        def __reduce__(self):
            return (print, ("it ran",))

    torch.save({"pixel_values": Evil()}, path)


REFUSED = {
    "another name": (lambda path: save_file({"pixels": torch.zeros(1)}, path), r"has pixels, and ViT.* pixel_values"),
    "not safetensors": (lambda path: path.write_bytes(b"nothing"), r"The inputs in in.safetensors cannot be read: "),
    "empty": (lambda path: save_file({}, path), r"holds no tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_inputs_is_refused(folders, tmp_path, name):
    write, said = REFUSED[name]
    write(tmp_path / "in.safetensors")
    with pytest.raises(CannotLoad, match=said):
        exact_inputs(load_folder(folders("vit")), str(tmp_path / "in.safetensors"), False)


def test_no_code_of_a_file_runs(folders, tmp_path, capsys):
    code(tmp_path / "in.pt")
    with pytest.raises(CannotLoad, match=r"torch.load\(weights_only=True\) refuses it"):
        exact_inputs(load_folder(folders("vit")), str(tmp_path / "in.pt"), False)
    assert "it ran" not in capsys.readouterr().out


def test_a_list_in_a_file_is_refused(folders, tmp_path):
    torch.save({"pixel_values": [torch.zeros(1)]}, tmp_path / "in.pt")
    with pytest.raises(CannotLoad, match=r"its 'pixel_values' is a list, and no tensor: save a dict of tensors"):
        exact_inputs(load_folder(folders("vit")), str(tmp_path / "in.pt"), False)


def test_an_input_that_is_needed_and_not_there(folders, tmp_path):
    save_file({"labels": torch.zeros(1, 3, dtype=torch.int64)}, tmp_path / "in.safetensors")
    with pytest.raises(CannotLoad, match=r"has no input_values, which Wav2Vec2ForCTC needs"):
        exact_inputs(load_folder(folders("wav2vec2")), str(tmp_path / "in.safetensors"), False)


# --- pictures and sounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 3, 4])
def test_a_wave_of_each_width(tmp_path, width):
    samples, rate = read_wave(str(tone(tmp_path / "a.wav", width=width)))
    wanted = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(4_000, dtype=torch.float64) / RATE)
    assert rate == RATE
    assert torch.allclose(samples.double(), wanted, atol=2.0 ** -(8 * width - 2))


def test_a_wave_of_eight_bits_and_two_channels(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as opened:
        opened.setnchannels(2)
        opened.setsampwidth(1)
        opened.setframerate(RATE)
        opened.writeframes(bytes([128, 128, 192, 192, 255, 129]))
    samples, _ = read_wave(str(tmp_path / "a.wav"))
    assert samples.tolist() == [0.0, 0.5, 64 / 128]


def test_another_sample_rate_keeps_the_tone(tmp_path):
    samples, own = read_wave(str(tone(tmp_path / "a.wav")))
    again = resampled(samples, own, 16_000)
    wanted = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(8_000, dtype=torch.float64) / 16_000)
    assert again.shape == (8_000,)
    assert torch.allclose(again.double()[100:-100], wanted[100:-100], atol=5e-3)


def test_a_sound_goes_through_the_models_own_processor(folders, tmp_path):
    folder = folders("wav2vec2")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    extractor.save_pretrained(folder)
    loaded, path = load_folder(folder), tone(tmp_path / "a.wav")
    (made,) = processed_inputs(loaded, None, str(path), [], False, False)
    sound = resampled(*read_wave(str(path)), 16_000).numpy()
    wanted = extractor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"]
    assert torch.equal(made.arguments()["input_values"], wanted)
    assert made.record()["further"] == [
        {"name": "input_values", "shape": [1, 8_000], "dtype": "float32", "seed": None, "made": "audio"}
    ]


def test_a_decoder_of_speech_is_fed_seeded_ids(folders, tmp_path):
    folder = folders("whisper")
    transformers.WhisperFeatureExtractor(feature_size=8, n_fft=64, chunk_length=1, hop_length=266).save_pretrained(
        folder
    )
    (made,) = processed_inputs(load_folder(folder), None, str(tone(tmp_path / "a.wav")), [], False, False)
    assert made.arguments()["input_features"].shape == (1, 8, 60)
    assert made.decoder_input_ids.shape == (1, families.LENGTH)


def test_a_model_without_a_processor_says_so(folders, tmp_path):
    with pytest.raises(CannotLoad, match=r"has no processor \(.*preprocessor_config.json\).* --inputs FILE"):
        processed_inputs(load_folder(folders("series")), None, None, [], False, False)


def test_what_a_model_does_not_take_is_said(folders, tmp_path):
    path = str(tone(tmp_path / "a.wav"))
    with pytest.raises(CannotLoad, match=r"ViTForImageClassification takes no sound"):
        processed_inputs(load_folder(folders("vit")), None, path, [], False, False)
    with pytest.raises(CannotLoad, match=r"Wav2Vec2ForCTC takes no picture"):
        processed_inputs(load_folder(folders("wav2vec2")), path, None, [], False, False)


def test_a_package_that_is_missing_is_named(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(CannotLoad, match=r"Reading the picture a.png needs the package Pillow, which .* pip install"):
        processed_inputs(load_folder(folders("vit")), str(tmp_path / "a.png"), None, [], False, False)
    loaded = load_folder(folders("wav2vec2"))
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folders("wav2vec2"))
    with pytest.raises(CannotLoad, match=r"Reading the sound a.flac.* needs the package soundfile"):
        processed_inputs(loaded, None, str(tmp_path / "a.flac"), [], False, False)
