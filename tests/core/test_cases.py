"""What MODEL and the options mean, and what is refused before anything starts."""

import sys

import pytest
from support.hosting import model_folder

from repro.core.case import MODELS, SHIPPED, case_from
from repro.core.errors import UsageError
from repro.environments.cells import cell_from


def refusal(model, **options):
    with pytest.raises(UsageError) as caught:
        case_from(str(model), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "name", "revision"),
    [
        ("gpt2", "gpt2", None),
        ("google/gemma-3-12b-it@abc123", "google/gemma-3-12b-it", "abc123"),
        ("org/model@refs/pr/7", "org/model", "refs/pr/7"),
        ("pythia-160m", "EleutherAI/pythia-160m", None),
        ("gemma-3-270m@main", "google/gemma-3-270m", "main"),
    ],
)
def test_a_hub_id_with_and_without_a_revision(model, name, revision):
    case = case_from(model)
    assert (case.model, case.revision) == (name, revision)


def test_a_folder_becomes_an_absolute_path(tmp_path, monkeypatch):
    model_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert case_from("model").model == str(tmp_path / "model")


def test_a_gguf_file_becomes_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert case_from("m.gguf").model == str(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    "model", ["./gone", "/gone/away", "a/b/c", "gone.gguf", "model.safetensors", "~/gone", "gone/"]
)
def test_a_path_that_does_not_exist(model):
    assert "does not exist (looked for " in refusal(model)


def test_an_empty_folder(tmp_path):
    assert refusal(tmp_path) == f"the folder '{tmp_path}' is empty: it needs a config.json and the weights."


def test_a_folder_without_a_configuration(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    assert "holds no config.json (found: notes.txt). Give the folder that save_pretrained() wrote." in refusal(tmp_path)


def test_a_folder_with_a_gguf_file_is_pointed_to_it(tmp_path):
    (tmp_path / "m.gguf").write_text("")
    assert f"Did you mean {tmp_path / 'm.gguf'}?" in refusal(tmp_path)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_text("")
    assert "is a file, and only .gguf files are models by themselves" in refusal(tmp_path / "model.bin")


@pytest.mark.parametrize("model", ["", "two words", "a|b", "ümlaut", "-dash", "org/", "nul\0l"])
def test_what_is_neither_id_nor_path(model):
    assert refusal(model)


def test_a_revision_that_is_missing():
    assert "ends in '@'" in refusal("gpt2@")


@pytest.mark.parametrize("weights", ["random", "random:", "random:x", "random:-1", "Random:0", "zero"])
def test_weights_that_are_neither(weights):
    assert "expected 'checkpoint' or 'random:SEED', such as random:0" in refusal("gpt2", weights=weights)


def test_random_weights_need_a_configuration(tmp_path):
    (tmp_path / "m.gguf").write_text("")
    assert "needs a configuration" in refusal(tmp_path / "m.gguf", weights="random:0")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_name_has_its_configuration(name):
    for model in (name, *SHIPPED[name]):
        assert case_from(model, weights="random:0").config == str(MODELS / f"{name}.json")
    assert (MODELS / f"{name}.json").is_file()


def test_every_shipped_configuration_has_a_name():
    assert {path.stem for path in MODELS.glob("*.json")} == set(SHIPPED)


def test_a_shipped_configuration_is_used_for_random_weights_only():
    assert case_from("gpt2").config is None


def test_random_weights_of_another_hub_id_leave_the_configuration_to_the_kit():
    assert case_from("org/other", weights="random:7").config is None


def test_random_weights_of_a_folder_use_its_own_configuration(tmp_path):
    assert case_from(str(model_folder(tmp_path)), weights="random:7").config is None


def test_without_a_prompt_the_choice_is_the_kit_s():
    assert case_from("gpt2").prompts == ()


def test_prompts_are_kept_in_order():
    assert case_from("gpt2", prompts=("a", "b")).prompts == ("a", "b")


def test_the_default_cell_is_this_interpreter():
    assert cell_from(None).python == sys.executable


def test_an_interpreter_by_name_is_looked_for_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "python-of-mine").write_text("#!/bin/sh\n")
    (tmp_path / "python-of-mine").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cell_from("python-of-mine").python == str(tmp_path / "python-of-mine")


def test_a_relative_interpreter_is_found_and_its_link_is_kept(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert cell_from("./python").python == str(tmp_path / "python")


def test_a_folder_is_no_interpreter(tmp_path):
    with pytest.raises(UsageError, match=r"is a folder\. Give the interpreter itself, such as .*bin"):
        cell_from(str(tmp_path))


@pytest.mark.parametrize("python", ["./gone", "no-such-python", "./text"])
def test_an_interpreter_that_is_none(python, tmp_path, monkeypatch):
    (tmp_path / "text").write_text("not executable")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no such program\. Give the path of the Python that has torch"):
        cell_from(python)


# --- what the model is given -----------------------------------------------------------------------------------------


def test_files_of_inputs_become_absolute_paths(tmp_path, monkeypatch):
    model_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "in.npz").write_bytes(b"numbers")
    monkeypatch.chdir(tmp_path)
    assert case_from("model", image="a.png").given == {"--image": str(tmp_path / "a.png")}
    assert case_from("model", inputs="in.npz").given == {"--inputs": str(tmp_path / "in.npz")}
    assert case_from("model").given == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "gone.png"}, r"--image gone.png: there is no such file (looked for "),
        ({"audio": "model"}, "is a folder"),
        ({"inputs": "a.txt"}, "--inputs a.txt: expected a file of tensors (.safetensors .npz .pt .pth .bin)"),
        ({"inputs": "in.npz", "prompts": ("x",)}, "--inputs gives exact inputs, so --prompt would not be used"),
        ({"inputs": "in.npz", "image": "a.txt"}, "--inputs gives exact inputs, so --image would not be used"),
    ],
)
def test_files_of_inputs_that_are_refused(tmp_path, monkeypatch, options, said):
    model_folder(tmp_path)
    for name in ("a.txt", "in.npz"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert said in refusal("model", **options)


def test_a_script_takes_no_file_of_inputs(tmp_path):
    (tmp_path / "s.py").write_text("")
    (tmp_path / "in.npz").write_bytes(b"")
    assert "is a script, which takes no --inputs" in refusal(tmp_path / "s.py", inputs=str(tmp_path / "in.npz"))


# --- what is no model ------------------------------------------------------------------------------------------------

FOLDERS = {
    "DeepSpeed": (["zero_to_fp32.py", "latest", "global_step10"], "a checkpoint of DeepSpeed", "zero_to_fp32.py"),
    "FSDP": (["pytorch_model_fsdp_0", ".metadata"], "a checkpoint of FSDP", "merge-weights"),
    "DCP": (["__0_0.distcp", ".metadata"], "a checkpoint of FSDP", "merge-weights"),
    "Megatron": (["latest_checkpointed_iteration.txt", "iter_0000010"], "of Megatron-LM", "convert it"),
    "Lightning": (["epoch=1-step=5.ckpt", "hparams.yaml"], "a checkpoint of Lightning", "save_pretrained()"),
    "ONNX": (["model.onnx", "tokenizer.json"], "a model in ONNX form", "exported from"),
    "OpenVINO": (["openvino_model.xml", "openvino_model.bin"], "in OpenVINO form", "exported from"),
    "TensorFlow": (["tf_model.h5", "vocab.txt"], "a model of TensorFlow", "from_tf=True"),
    "SavedModel": (["saved_model.pb", "variables"], "a model of TensorFlow", "from_tf=True"),
    "Keras": (["model.keras"], "a model of Keras", "PyTorch form"),
    "Flax": (["flax_model.msgpack"], "a model of Flax (JAX)", "from_flax=True"),
    "own form": (["params.json", "consolidated.00.pth", "tokenizer.model"], "its maker's own form", "convert it"),
    "dataset": (["dataset_info.json", "data-00000-of-00001.arrow", "state.json"], "a dataset", "repro prompts"),
    "parquet": (["train.parquet"], "a dataset", "repro prompts"),
    "state_dict": (["model.safetensors"], "weights without their configuration (a state_dict)", "config.json"),
    "saved state_dict": (["best.pt"], "weights without their configuration (a state_dict)", "script (.py)"),
    "tokenizer": (
        ["tokenizer.json", "vocab.json"],
        "a tokenizer without a model",
        "its model",
    ),
    "processor": (["preprocessor_config.json", "tokenizer.json"], "a processor or a tokenizer", "its model"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_no_model_is_named(tmp_path, name):
    held, what, remedy = FOLDERS[name]
    for item in held:
        (tmp_path / item).write_bytes(b"")
    said = refusal(tmp_path)
    assert "holds no config.json" in said
    assert f"{what}" in said
    assert remedy in said


def test_the_last_checkpoint_of_a_trainer_is_named(tmp_path):
    for step in (90, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "config.json").write_text("{}")
    said = refusal(tmp_path)
    assert f"It is the output of a Trainer: give one of its checkpoints ({tmp_path / 'checkpoint-100'})." in said


def test_a_model_in_a_folder_of_the_folder_is_named(tmp_path):
    model_folder(tmp_path)
    assert f"There is a model in {tmp_path / 'model'}: give that folder." in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.safetensors", "It is weights without their configuration (a state_dict): give the folder"),
        ("adapter_model.safetensors", "It is the weights of an adapter"),
        ("last.ckpt", "It is a checkpoint of Lightning or TensorFlow"),
        ("model.onnx", "It is a model in ONNX form"),
        ("tf_model.h5", "It is a model of TensorFlow or Keras"),
        ("model.tar.gz", "It is an archive: unpack it"),
        ("train.ipynb", "It is a notebook"),
        ("config.json", "It is a configuration: give the folder that it is in."),
        ("notes.txt", "Give the folder that holds config.json and the weights."),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path, name, what):
    (tmp_path / name).write_bytes(b"")
    said = refusal(tmp_path / name)
    assert "is a file, and only .gguf files are models by themselves" in said
    assert what in said


@pytest.mark.parametrize("name", ["adapter_config.json", "modules.json", "model_index.json"])
def test_what_the_kit_can_say_more_of_is_handed_on(tmp_path, name):
    (tmp_path / name).write_text("{}")
    assert case_from(str(tmp_path)).model == str(tmp_path)
