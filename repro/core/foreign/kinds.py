"""What a folder or a file is that is no model of Transformers' by itself, by the names in it; and what to do."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

Names = frozenset[str]


def _has(*patterns: str) -> Callable[[Names], bool]:
    """Whether one of the names is like one of these."""
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)
    return lambda names: any(wanted.fullmatch(name) for name in names)


MERGED = "save the whole model with save_pretrained() and give that folder"
SCRIPT = "give a script (.py) that loads and runs it"
CONVERTED = "give its PyTorch form; a release 4 of transformers converts it (from_pretrained(..., {}=True))"
TOKENIZER = (r"tokenizer(_config)?\.json", r"vocab\.(json|txt)", r"merges\.txt", r"special_tokens_map\.json",
             r"added_tokens\.json", r".*\.(spm|tiktoken)", r"(sentencepiece\.bpe|spiece|tokenizer)\.model",
             r"chat_template\.(jinja|json)", r"README\.md", r"\.gitattributes")  # fmt: skip
WEIGHTS = (r".*\.safetensors", r"pytorch_model.*\.bin", r".*\.(pt|pth|bin)")

FOLDERS: tuple[tuple[Callable[[Names], bool], str, str], ...] = (
    (_has(r"zero_to_fp32\.py", r"global_step\d+"), "a checkpoint of DeepSpeed, whose weights lie in pieces",
     "run its zero_to_fp32.py, and put the result beside a config.json"),
    (_has(r"pytorch_model_fsdp_\d+", r".*\.distcp"), "a checkpoint of FSDP (torch.distributed.checkpoint), in pieces",
     "merge it (accelerate merge-weights), and put the result beside a config.json"),
    (_has(r"mp_rank_\d+.*", r"latest_checkpointed_iteration\.txt"), "a checkpoint of Megatron-LM",
     "convert it to Transformers' form, or " + SCRIPT),
    (_has(r"checkpoint-\d+"), "the output of a Trainer", "give one of its checkpoints"),
    (_has(r".*\.ckpt", r"lightning_logs", r"hparams\.yaml"), "a checkpoint of Lightning",
     "load it in the LightningModule, " + MERGED + ", or " + SCRIPT),
    (_has(r".*\.onnx", r".*\.onnx_data"), "a model in ONNX form, which PyTorch does not run",
     "give the model that it was exported from"),
    (_has(r"openvino_model\.xml"), "a model in OpenVINO form, which PyTorch does not run",
     "give the model that it was exported from"),
    (_has(r".*\.engine", r".*\.plan"), "an engine of TensorRT, which PyTorch does not run",
     "give the model that it was built from"),
    (_has(r".*\.mlpackage", r".*\.mlmodel"), "a model in Core ML form, which PyTorch does not run",
     "give the model that it was converted from"),
    (_has(r"saved_model\.pb", r"tf_model\.h5", r".*\.ckpt\.index", r".*\.tflite"),
     "a model of TensorFlow", CONVERTED.format("from_tf")),
    (_has(r".*\.keras", r"keras_metadata\.pb", r".*\.weights\.h5", r".*\.h5"), "a model of Keras",
     "give its PyTorch form, or " + SCRIPT),
    (_has(r"flax_model.*\.msgpack", r".*\.msgpack"), "a model of Flax (JAX)",
     CONVERTED.format("from_flax")),
    (_has(r"open_clip_config\.json"), "a model of the package open_clip", SCRIPT),
    (_has(r"params\.json", r"consolidated\..*"), "a model in its maker's own form (params.json)",
     "convert it to Transformers' form, or give that from the Hub"),
    (_has(r"dataset_(info|dict)\.json", r"state\.json", r".*\.(arrow|parquet)", r"(train|test)\.(csv|jsonl?)"),
     "a dataset", "give the folder of a model; `repro prompts` runs a dataset's prompts on it"),
    (_has(*WEIGHTS), "weights without their configuration (a state_dict)",
     "put the config.json of the model beside them, or " + SCRIPT),
    (_has(r"(pre)?processor_config\.json"), "a processor or a tokenizer without a model",
     "give the folder of its model"),
)  # fmt: skip
"""Whether a folder is of the kind, what it is, and what to do; the first that fits says it."""

FILES = (
    (r"adapter_model\.(safetensors|bin)", "the weights of an adapter", "give the folder, with its adapter_config.json"),
    (r".*\.(safetensors|bin|pt|pth)", "weights without their configuration (a state_dict)",
     "give the folder that holds config.json and the weights, or " + SCRIPT),
    (r".*\.ckpt", "a checkpoint of Lightning or TensorFlow", MERGED + ", or " + SCRIPT),
    (r".*\.onnx", "a model in ONNX form, which PyTorch does not run", "give the model that it was exported from"),
    (r".*\.(h5|keras|pb|tflite)", "a model of TensorFlow or Keras", "give its PyTorch form"),
    (r".*\.msgpack", "a model of Flax (JAX)", "give its PyTorch form"),
    (r".*\.(zip|tar|gz|tgz|zst|7z|nemo|mar)", "an archive", "unpack it, and give the folder in it"),
    (r".*\.(parquet|arrow|jsonl|csv)", "a dataset", "give the folder of a model; `repro prompts` runs its prompts"),
    (r".*\.ipynb", "a notebook", "save it as a script (jupyter nbconvert --to script)"),
    (r".*config\.json", "a configuration", "give the folder that it is in"),
    (r"tokenizer.*|vocab.*", "a tokenizer", "give the folder of its model"),
)  # fmt: skip


def folder_is(path: Path, names: Iterable[str]) -> str | None:
    """What a folder is and what to do, in words; None where its names say nothing."""
    held = frozenset(names)
    inside = next((name for name in sorted(held) if (path / name / "config.json").is_file()), None)
    for fits, what, remedy in FOLDERS:
        if fits(held):
            if what == "the output of a Trainer":
                inside = max((name for name in held if re.fullmatch(r"checkpoint-\d+", name)), key=_number)
            hint = f" ({path / inside})" if inside is not None else ""
            return f"it is {what}: {remedy}{hint}."
    if inside is not None:
        return f"there is a model in {path / inside}: give that folder."
    if held and all(any(re.fullmatch(one, name) for one in TOKENIZER) for name in held):
        return "it is a tokenizer without a model: give the folder of its model."
    return None


def file_is(name: str) -> str | None:
    """What a file is and what to do, in words; None where its name says nothing."""
    found = next((row for row in FILES if re.fullmatch(row[0], name, re.IGNORECASE)), None)
    return None if found is None else f"it is {found[1]}: {found[2]}."


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
