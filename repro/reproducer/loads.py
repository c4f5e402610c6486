"""Scripts that call from_pretrained and show the one thing that it gets wrong."""

from collections.abc import Mapping
from typing import Any

from repro.reproducer.checkpoint import Checkpoint, Loading, folder_lines, loading, needs_checkpoint, reading_script
from repro.reproducer.frame import STATUSES, Document
from repro.reproducer.script import Script
from repro.reproducer.values import literal
from repro.reproducer.words import found_in, generated


def load_script(document: Document, checkpoint: Checkpoint) -> Script | None:
    """from_pretrained, and the one thing that it gets wrong; None for what no script here can ask."""
    load = document.get("load") or {}
    how = loading(document, checkpoint)
    head = ["import torch", f"from transformers import {how.class_name}", *folder_lines(checkpoint, check=True)]
    keys = {kind: load.get(kind) or [] for kind in ("missing_keys", "mismatched")}
    if any(keys.values()):
        code, about = _keys(how, keys)
    elif load.get("unset_buffers"):
        code, about = _unset(how, [str(name) for name in load["unset_buffers"]])
    elif load.get("meta"):
        code, about = _meta(how, [str(name) for name in load["meta"]])
    elif (load.get("values") or {}).get("differ") and checkpoint.source != "gguf":
        code, about = _differ(how, str(load["values"]["differ"][0]))
        how = Loading(how.class_name, how.arguments, (*how.needs, "safetensors"))
    else:
        return None
    told = [
        about,
        found_in({**document, "origin": None}),
        needs_checkpoint(checkpoint, how.trusts, hashes=False),
        generated(document),
    ]
    return reading_script(document, checkpoint, "load", how.needs, told, [*head, *code], "from_pretrained alone")


def _keys(how: Loading, keys: Mapping[str, list[Any]]) -> tuple[list[str], str]:
    code = [
        *how.lines("model, info = ", ["output_loading_info=True", "ignore_mismatched_sizes=True"]),
        "missing, mismatched, unexpected = (",
        '    sorted(info[kind]) for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")',
        ")",
        'print(f"expected every tensor of the model in its file, seen {missing} missing, "',
        '      f"{mismatched} of another shape, {unexpected} not known to the model")',
        f"sys.exit(1 if missing or mismatched else 0)  {STATUSES}",
    ]
    names = [str(name) for name in keys["missing_keys"]]
    words = [f"{_first(names)} is not in the file, so its values are random"] if names else []
    shapes = [str(item.get("tensor", item) if isinstance(item, Mapping) else item) for item in keys["mismatched"]]
    words += [f"{_first(shapes)} has another shape in the file than in the model"] if shapes else []
    return code, "; ".join(words) + "."


def _unset(how: Loading, names: list[str]) -> tuple[list[str], str]:
    code = [
        f"NAMES = {literal(names)}",
        "",
        "def buffers():",
        *(f"    {line}" for line in how.lines()),
        "    return dict(model.named_buffers())",
        "",
        "one = buffers()",
        "torch.use_deterministic_algorithms(True, warn_only=True)  # memory that nobody sets is NaN from here on",
        "two = buffers()",
        "differ = [name for name in NAMES if not torch.allclose(one[name], two[name], rtol=0, atol=0, equal_nan=True)]",
        'print(f"expected the same values from two loads of one file, seen other ones in {differ}")',
        f"sys.exit(1 if differ else 0)  {STATUSES}",
    ]
    return code, f"No file covers the buffer {_first(names)}, and nothing sets it: two loads give it different values."


def _meta(how: Loading, names: list[str]) -> tuple[list[str], str]:
    code = [
        *how.lines(),
        "tensors = [*model.named_parameters(), *model.named_buffers()]",
        "meta = [name for name, tensor in tensors if tensor.is_meta]",
        'print(f"expected a value in every tensor, seen none in {meta}")',
        f"sys.exit(1 if meta else 0)  {STATUSES}",
    ]
    return code, f"{_first(names)} is left on the meta device, without values."


def _differ(how: Loading, name: str) -> tuple[list[str], str]:
    code = [
        "import glob",
        "import os",
        "from safetensors.torch import load_file",
        f"NAME = {literal(name)}",
        *how.lines(),
        "file = {}",
        'for path in glob.glob(os.path.join(folder, "*.safetensors")):',
        "    file.update(load_file(path))",
        "seen = model.state_dict()[NAME]",
        "names = {NAME, NAME[len(model.base_model_prefix) + 1:], f'{model.base_model_prefix}.{NAME}'}",
        "key = next(key for key in file if key in names)",
        "expected = file[key].to(seen.dtype)",
        "differ = int((~torch.isclose(seen, expected, rtol=0, atol=0, equal_nan=True)).sum())",
        'print(f"expected the values of the file, seen others in {differ} of {seen.numel()} places of {NAME}")',
        f"sys.exit(1 if differ else 0)  {STATUSES}",
    ]
    return code, f"{name} has other values in memory than in the file."


def _first(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
