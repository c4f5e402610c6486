"""Scripts that call from_pretrained and show the one thing that it gets wrong."""

from collections.abc import Sequence
from dataclasses import replace

from repro.core.answer import Answer
from repro.core.payloads import Misplaced
from repro.reproducer.code.tensors import inside, literal
from repro.reproducer.frame import ending
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import (
    Checkpoint,
    Loading,
    folder_lines,
    loading,
    needs_checkpoint,
    reading_script,
)
from repro.reproducer.words import found_in, generated

FILE = (
    "import glob",
    "import os",
    "from safetensors.torch import load_file",
    "file = {}",
    'for path in glob.glob(os.path.join(folder, "*.safetensors")):',
    "    file.update(load_file(path))",
)
"""The file's tensors by name."""


def load_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """from_pretrained, and the one thing that it gets wrong; None for what no script here can show."""
    load, how = answer.load, loading(answer, checkpoint)
    if load is None:
        return None
    if load.missing_keys or load.mismatched:
        code, about = _keys(how, load.missing_keys, [item.tensor for item in load.mismatched])
    elif load.unset_buffers:
        code, about = _unset(how, load.unset_buffers)
    elif load.meta:
        code, about = _meta(how, load.meta)
    elif load.misplaced and checkpoint.source != "gguf":
        code, about = _misplaced(how, load.misplaced[0])
        how = replace(how, needs=(*how.needs, "safetensors"))
    elif load.values is not None and load.values.differ and checkpoint.source != "gguf":
        code, about = _differ(how, load.values.differ[0])
        how = replace(how, needs=(*how.needs, "safetensors"))
    else:
        return None
    told = [
        about,
        found_in(answer, with_origin=False),
        needs_checkpoint(checkpoint, how.trusts, hashes=False),
        generated(answer),
    ]
    head = ["import torch", f"from transformers import {how.class_name}", *folder_lines(checkpoint, check=True)]
    does = "loads the model with from_pretrained"
    return reading_script(answer, checkpoint, "load", how.needs, told, [*head, *code], does)


def _keys(how: Loading, missing: Sequence[str], mismatched: Sequence[str]) -> tuple[list[str], str]:
    code = [
        *how.lines("model, info = ", ["output_loading_info=True", "ignore_mismatched_sizes=True"]),
        "missing, mismatched, unexpected = (",
        '    sorted(info[kind]) for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")',
        ")",
        *ending(
            "seen {missing} missing and {mismatched} of another shape ({unexpected} unexpected), right is none",
            "not missing and not mismatched",
            "the file does not have every tensor of the model",
        ),
    ]
    words = [f"{_first(missing)} is not in the file, so its values are random"] if missing else []
    words += [f"{_first(mismatched)} has another shape in the file than in the model"] if mismatched else []
    return code, "; ".join(words) + "."


def _unset(how: Loading, names: Sequence[str]) -> tuple[list[str], str]:
    code = [
        f"NAMES = {literal(names)}",
        "",
        "def buffers():",
        *(f"    {line}" for line in how.lines()),
        "    return dict(model.named_buffers())",
        "",
        "one = buffers()",
        "torch.use_deterministic_algorithms(True, warn_only=True)  # uninitialized memory is NaN from here on",
        "two = buffers()",
        "differ = [name for name in NAMES if not torch.allclose(one[name], two[name], rtol=0, atol=0, equal_nan=True)]",
        *ending(
            "seen other values in {differ}, right is the same from two loads of one file",
            "not differ",
            "nothing initializes {differ}",
        ),
    ]
    return code, f"No file has the buffer {_first(names)}, and nothing initializes it: two loads give different values."


def _meta(how: Loading, names: Sequence[str]) -> tuple[list[str], str]:
    code = [
        *how.lines(),
        "tensors = [*model.named_parameters(), *model.named_buffers()]",
        "meta = [name for name, tensor in tensors if tensor.is_meta]",
        *ending("seen no values in {meta}, right is a value everywhere", "not meta", "left on the meta device: {meta}"),
    ]
    return code, f"{_first(names)} is left on the meta device, without values."


def _misplaced(how: Loading, found: Misplaced) -> tuple[list[str], str]:
    own = "its own" if found.belongs == found.tensor else f"those of {found.belongs}"
    holds, belongs = inside(found.holds), inside(found.belongs)
    code = [
        *FILE,
        *how.lines(),
        f"seen = model.state_dict()[{literal(found.tensor)}]",
        "def equal(key):",
        "    return torch.allclose(seen, file[key].to(seen.dtype), rtol=0, atol=0, equal_nan=True)",
        "",
        f"wrong, right = equal({literal(found.holds)}), equal({literal(found.belongs)})",
        *ending(
            f"seen the values of {holds}: {{wrong}}, right are those of {belongs}: {{right}}",
            "right or not wrong",
            f"{inside(found.tensor)} holds the values of {holds}",
        ),
    ]
    return code, f"{found.tensor} holds the values of {found.holds}, not {own}."


def _differ(how: Loading, name: str) -> tuple[list[str], str]:
    code = [
        *FILE,
        f"NAME = {literal(name)}",
        *how.lines(),
        "seen = model.state_dict()[NAME]",
        "names = {NAME, NAME[len(model.base_model_prefix) + 1:], f'{model.base_model_prefix}.{NAME}'}",
        "key = next(key for key in file if key in names)",
        "expected = file[key].to(seen.dtype)",
        "differ = int((~torch.isclose(seen, expected, rtol=0, atol=0, equal_nan=True)).sum())",
        *ending(
            "seen {differ} of {seen.numel()} values that differ from the file's, right is 0",
            "not differ",
            "{NAME} does not hold the values of the file",
        ),
    ]
    return code, f"{name} has different values in memory than in the file."


def _first(names: Sequence[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
