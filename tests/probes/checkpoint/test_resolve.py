"""From what the user typed to a folder, without a network."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.handmade import write_floats

from repro.probes.checkpoint.resolve import CannotResolve, first_line, resolve, seed_of, split_revision


def refused(model, **more):
    with pytest.raises(CannotResolve) as caught:
        resolve({"model": model, **more})
    return str(caught.value)


def test_a_folder_is_taken_as_it_is(tmp_path):
    source = resolve({"model": str(tmp_path)})
    assert (source.kind, source.folder, source.seed) == ("folder", str(tmp_path), None)


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve({"model": "model"}).folder == str(tmp_path / "model")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve({"model": "~/model"}).folder == str(tmp_path / "model")


def test_a_folder_with_an_at_sign_in_its_name(tmp_path):
    (tmp_path / "model@home").mkdir()
    assert resolve({"model": str(tmp_path / "model@home")}).kind == "folder"


def test_a_gguf_file(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    source = resolve({"model": str(path)})
    assert (source.kind, source.gguf, source.folder) == ("gguf", str(path), None)


def test_a_file_that_is_no_gguf_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_floats(path, a=[1.0])
    message = refused(str(path))
    assert str(path) in message
    assert "not a .gguf file" in message
    assert "model folder" in message


@pytest.mark.parametrize(
    "model", ["/nowhere/model", "./model", "../model", "a/b/c", "a b", "", "model.gguf", "org/model.gguf", "~/nowhere"]
)
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(model)
    assert "There is no file or folder" in message
    assert model in message


@pytest.mark.parametrize("model", ["repro-no-such-model", "repro-org/no.such_model-1"])
def test_the_offline_message_says_where_it_looked_and_what_to_do(model):
    message = refused(model)
    assert constants.HF_HUB_CACHE in message
    assert "HF_HUB_OFFLINE is set" in message
    assert f"hf download {model}" in message
    assert "HF_HOME" in message
    assert "--weights random:0" in message


def test_the_message_names_the_revision():
    message = refused("repro-no-such-model@v1.5")
    assert "repro-no-such-model@v1.5" in message
    assert "hf download repro-no-such-model" in message
    assert "hf download repro-no-such-model@" not in message


BOTH = ("config.json", "model.safetensors")


def hub_cache(files, revision=None):
    """A model in the tests' own Hub cache, with a commit under `refs`."""
    sha = "0123456789abcdef0123456789abcdef01234567"
    root = Path(constants.HF_HUB_CACHE, "models--repro-org--tiny")
    snapshot = root / "snapshots" / sha
    snapshot.mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / (revision or "main")).write_text(sha)
    for name in BOTH:
        (snapshot / name).unlink(missing_ok=True)
        if name in files:
            (snapshot / name).write_text("{}")
    return str(snapshot), sha


def test_a_cached_model_needs_no_network():
    snapshot, sha = hub_cache(BOTH)
    source = resolve({"model": "repro-org/tiny"})
    assert (source.kind, source.folder, source.revision) == ("hub", snapshot, sha)


@pytest.mark.parametrize("at", ["v2", "0123456789abcdef0123456789abcdef01234567"])
def test_a_cached_revision_behind_an_at_sign(at):
    snapshot, sha = hub_cache(BOTH, "v2")
    source = resolve({"model": f"repro-org/tiny@{at}"})
    assert (source.folder, source.revision) == (snapshot, sha)


def test_a_cached_revision_of_the_case():
    snapshot, _ = hub_cache(BOTH, "v2")
    assert resolve({"model": "repro-org/tiny", "revision": "v2"}).folder == snapshot


def test_a_revision_that_is_not_cached():
    hub_cache(BOTH)
    assert "repro-org/tiny@v9" in refused("repro-org/tiny@v9")


def test_a_cached_snapshot_without_weights():
    snapshot, _ = hub_cache(("config.json",))
    message = refused("repro-org/tiny")
    assert f"{snapshot} has no weights" in message


def test_random_weights_need_only_a_configuration():
    snapshot, _ = hub_cache(("config.json",))
    source = resolve({"model": "repro-org/tiny", "weights": "random:7"})
    assert (source.kind, source.folder, source.config, source.seed) == ("random", None, snapshot, 7)


def test_random_weights_of_a_shipped_configuration(tmp_path):
    config = tmp_path / "config.json"
    source = resolve({"model": "gpt2", "weights": "random:0", "config": str(config)})
    assert (source.kind, source.config, source.seed) == ("random", str(config), 0)


def test_random_weights_of_a_folder(tmp_path):
    assert resolve({"model": str(tmp_path), "weights": "random:0"}).config == str(tmp_path)


def test_random_weights_of_nothing():
    assert "its architecture is not known" in refused("./nowhere", weights="random:0")


def test_the_seed():
    assert [seed_of(text) for text in ("checkpoint", "random:0", "random:41")] == [None, 0, 41]


@pytest.mark.parametrize(
    "text",
    [
        "random",
        "random:",
        "random:x",
        "rnadom:0",
    ],
)
def test_weights_that_are_neither_checkpoint_nor_seed(text):
    with pytest.raises((ValueError, CannotResolve)):
        seed_of(text)


@pytest.mark.parametrize(
    ("model", "revision", "wanted"),
    [
        ("gpt2", None, ("gpt2", None)),
        ("gpt2@abc", None, ("gpt2", "abc")),
        ("gpt2@abc", "def", ("gpt2", "abc")),
        ("gpt2", "def", ("gpt2", "def")),
        ("gpt2@", "def", ("gpt2", "def")),
        ("org/m@refs/pr/1", None, ("org/m", "refs/pr/1")),
    ],
)
def test_the_revision_behind_the_at_sign_wins(model, revision, wanted):
    assert split_revision(model, revision) == wanted


def test_the_first_line_of_an_error():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(first_line(ValueError("x" * 1000))) == 300


# --- folders of other packages ---------------------------------------------------------------------------------------


def test_a_pipeline_of_diffusers_names_its_parts_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as where it is not installed
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"text_encoder": ["transformers", "CLIPTextModel"]}))
    for part, config in (("unet", {"_class_name": "UNet2DConditionModel"}), ("text_encoder", {"model_type": "clip"})):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotResolve) as caught:
        resolve({"model": str(tmp_path)})
    said = str(caught.value)
    assert "is a pipeline of diffusers (StableDiffusionPipeline: text_encoder, unet)" in said
    assert "the package diffusers runs" in said
    assert said.endswith(f"Its parts can be given by themselves: {tmp_path / 'text_encoder'}.")


@pytest.mark.parametrize(
    ("config", "what", "package"),
    [
        ({"_class_name": "VQModel"}, "a part of a diffusers pipeline (VQModel)", "diffusers"),
        ({"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {}}, "a model of timm (resnet18)", "timm"),
    ],
)  # fmt: skip
def test_a_model_of_another_package_names_it(tmp_path, config, what, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotResolve) as caught:
        resolve({"model": str(tmp_path)})
    assert f"{what}, which the package {package} runs" in str(caught.value)


def test_a_configuration_of_transformers_is_left_to_it(tmp_path):
    config = {"model_type": "timm_wrapper", "architecture": "x", "num_classes": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert resolve({"model": str(tmp_path)}).folder == str(tmp_path)
