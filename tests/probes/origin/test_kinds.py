"""One injected fault and one sound twin for each kind of input: the answer names the injected place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.handmade import load_folder
from support.kinds import KINDS

from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.model.kinds.exact import exact_inputs
from repro.probes.origin.search import bisect

LIMIT = 65_504.0  # of float16
APART = 1.01  # what float16 can tell apart is 1.001


@dataclass(frozen=True)
class Injected:
    """A saved model and the element that overflows in float16, as plain torch sees it in float32."""

    folder: Path
    element: tuple[int, ...]
    shape: tuple[int, ...]


def inject(name: str, module: str, folder: Path) -> Injected:
    """Scale one layer so that its largest number is beyond float16's limit, and no other is."""
    model = KINDS[name].save(folder) and KINDS[name].build()
    (made,) = make_inputs(load_folder(folder), [], False)
    seen: list[torch.Tensor] = []
    layer: Any = dict(model.named_modules())[module]
    handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(output.detach()))
    with torch.no_grad():
        model(**made.arguments())
        channel = 1 if isinstance(layer, torch.nn.Conv2d) else seen[0].dim() - 1
        loudest = int(seen[0].abs().movedim(channel, -1).flatten(0, -2).max(0).values.argmax())
        scale(layer, 1.5, loudest)
        model(**made.arguments())
        handle.remove()
        output = seen[-1]
        flat = output.abs().flatten().sort(descending=True)
        first, second = float(flat.values[0]), float(flat.values[1])
        assert first > APART * second, "two elements are as large"
        factor = LIMIT / (first * second) ** 0.5
        scale(layer, math.copysign(factor, float(output.flatten()[flat.indices[0]])))  # a ReLU absorbs -inf
        assert float(layer.weight.abs().max()) < LIMIT
    model.save_pretrained(folder)
    element = torch.unravel_index(flat.indices[0], output.shape)
    return Injected(folder, tuple(int(at) for at in element), tuple(output.shape))


def scale(layer: Any, factor: float, channel: int | None = None) -> None:
    """All that a layer gives, or one channel of it, times a factor."""
    for parameter in (layer.weight, layer.bias):
        if parameter is not None:
            parameter[slice(None) if channel is None else channel] *= factor


def origin_of(folder: Path, dtype: str) -> tuple[str, dict[str, Any] | None]:
    loaded = load_folder(folder, dtype)
    passes = [look(loaded.model, made) for made in make_inputs(loaded, [], False)]
    verdict, _, payload = bisect(loaded, passes)
    return verdict, payload["origin"]


def row_and_column(count: int, wide: int, special: int = 0) -> Any:
    """The place of a patch, of ``count`` behind ``special`` other tokens."""

    def place(element: tuple[int, ...], part: str) -> dict[str, Any]:
        at = element[1] - special
        shape = [count // wide, wide]
        if at < 0:
            return {"kind": "special", "of": part, "index": [element[1]], "shape": shape}
        return {"kind": "patch", "of": part, "index": [at // wide, at % wide], "shape": shape}

    return place


def in_a_spectrogram(element: tuple[int, ...], part: str) -> dict[str, Any]:
    """Of 4 x 7 patches: (26 - 8) // 6 + 1 along the frequencies, (44 - 8) // 6 + 1 in time, behind two tokens."""
    at = element[1] - 2
    return {"kind": "spectrogram patch", "of": part, "index": [at // 7, at % 7], "shape": [4, 7]}


def along(kind: str, count: int, dim: int = 1) -> Any:
    return lambda element, part: {"kind": kind, "of": part, "index": [element[dim]], "shape": [count]}


def on_map(rows: int, first: int) -> Any:
    return lambda element, part: {
        "kind": "map", "of": part, "index": list(element[first : first + 2]), "shape": [rows, rows],
    }  # fmt: skip


def on_patches(element: tuple[int, ...], part: str) -> dict[str, Any]:
    return {"kind": "patch", "of": part, "index": list(element[1:3]), "shape": [4, 4]}


# name -> the layer, the input that its places belong to, what they are, and the dimension of the channel
FAULTS: dict[str, tuple[str, str, Any, int]] = {
    "vit": ("vit.layers.0.attention.v_proj", "pixel_values", row_and_column(16, 4, special=1), 2),
    "clip": ("vision_model.encoder.layers.0.self_attn.v_proj", "pixel_values", row_and_column(16, 4, special=1), 2),
    "siglip": ("vision_model.encoder.layers.0.mlp.fc1", "pixel_values", row_and_column(16, 4), 2),
    "detr": ("model.backbone.model.embedder.embedder.convolution", "pixel_values", on_map(112, 2), 1),
    "sam": ("vision_encoder.layers.1.mlp.lin1", "pixel_values", on_patches, 3),
    "whisper": ("model.encoder.layers.0.self_attn.v_proj", "input_features", along("frame", 30), 2),
    "wav2vec2": ("wav2vec2.encoder.layers.0.attention.v_proj", "input_values", along("frame", 47), 2),
    "ast": ("audio_spectrogram_transformer.layers.0.attention.v_proj", "input_values", in_a_spectrogram, 2),
}
TEXT: dict[str, str] = {
    "qwen2_vl": "model.language_model.layers.1.mlp.down_proj",
    "gemma3": "model.language_model.layers.1.mlp.down_proj",
    "llava": "model.language_model.layers.1.mlp.down_proj",
    "layoutlm": "encoder.layer.1.output.dense",
    "t5": "encoder.block.1.layer.1.DenseReluDense.wi",
    "bart": "model.encoder.layers.1.fc2",
    "mllama": "model.language_model.layers.0.mlp.down_proj",
}
OTHERS = {"series": "model.encoder.layers.1.fc2", "patchtst": "model.encoder.layers.1.ff.3"}


@pytest.mark.parametrize("name", FAULTS)
def test_the_answer_names_the_place_of_a_picture_or_a_sound(tmp_path, name):
    module, part, place, channel = FAULTS[name]
    injected = inject(name, module, tmp_path)
    verdict, origin = origin_of(injected.folder, "float16")
    assert (verdict, origin["module"], origin["mechanism"]) == ("bad", module, "overflow")
    assert origin["place"] == place(injected.element, part)
    assert origin["channel_index"] == injected.element[channel]
    assert origin["token_index"] is None


@pytest.mark.parametrize("name", TEXT)
def test_the_answer_names_the_token_of_a_prompt_with_a_picture(tmp_path, name):
    injected = inject(name, TEXT[name], tmp_path)
    verdict, origin = origin_of(injected.folder, "float16")
    assert (verdict, origin["module"], origin["mechanism"]) == ("bad", TEXT[name], "overflow")
    assert (origin["token_index"], origin["channel_index"]) == injected.element[-2:]
    (made,) = make_inputs(load_folder(injected.folder), [], False)
    token = int(made.input_ids[0, injected.element[-2]])
    assert (origin["place"] is not None) == (token in (90, 91))


@pytest.mark.parametrize("name", OTHERS)
def test_the_answer_names_the_layer_of_a_series(tmp_path, name):
    injected = inject(name, OTHERS[name], tmp_path)
    verdict, origin = origin_of(injected.folder, "float16")
    assert (verdict, origin["module"], origin["mechanism"]) == ("bad", OTHERS[name], "overflow")
    wanted = {"kind": "stretch", "of": "past_values", "index": list(injected.element[:2]), "shape": [2, 4]}
    assert origin["place"] == (wanted if name == "patchtst" else None)


@pytest.mark.parametrize("name", [*FAULTS, *TEXT, *OTHERS])
def test_the_sound_twin_is_good(tmp_path, name):
    assert origin_of(KINDS[name].save(tmp_path), "float16") == ("good", None)


# name -> the input with a NaN, where it lies, and what that place is
BAD_INPUTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "vit": ("pixel_values", (0, 2, 5, 7), {"kind": "pixel", "index": [5, 7], "shape": [32, 32]}),
    "wav2vec2": ("input_values", (0, 123), {"kind": "sample", "index": [123], "shape": [965]}),
    "patchtst": ("past_values", (0, 6, 1), {"kind": "step", "index": [6], "shape": [16]}),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_nan_of_the_inputs_is_named_by_its_place_there(tmp_path, name):
    part, index, place = BAD_INPUTS[name]
    loaded = load_folder(KINDS[name].save(tmp_path / "model"))
    (made,) = make_inputs(loaded, [], False)
    given = {key: value.clone() for key, value in made.arguments().items()}
    given[part][index] = float("nan")
    save_file(given, tmp_path / "in.safetensors")
    passes = [look(loaded.model, made) for made in exact_inputs(loaded, str(tmp_path / "in.safetensors"), False)]
    origin = bisect(loaded, passes)[2]["origin"]
    assert (origin["mechanism"], origin["tensor"], tuple(origin["tensor_index"])) == ("bad_input", part, index)
    assert origin["place"] == {**place, "of": part}
