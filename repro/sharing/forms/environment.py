"""The environment as a project's form wants it: known facts put into the lines of that project's own tool.

The facts are those of the kit's environment step, read inside the process that failed. A line whose facts are not all
known is left out: nothing is asked anew here, and nothing is invented.
"""

import re
import string
from collections.abc import Mapping
from typing import Any

from packaging.version import Version

from repro.core.sentences import visible
from repro.report.markdown import block as fenced
from repro.sharing.forms.forms import Block, Line, block

Facts = Mapping[str, str | None]
MISSING = "not installed"
LIBRARIES = re.compile(
    r"(torch|nvidia|triton|pytorch|numpy|onnx|optree|functorch|transformers|safetensors|tokenizers|accelerate|"
    r"huggingface-hub|gguf|bitsandbytes|peft|flash-attn|deepspeed|vllm|kernels)"
)
"""The distributions that PyTorch's own list names, by the start of their names, and those that it never lists."""
NUMBERS = "numbers"
"""The block of what changes numbers and is in no project's own list."""


def environment(document: Mapping[str, Any], name: str) -> str:
    """The environment block ``name``, and below it what changes numbers; empty where no environment was recorded."""
    found = document.get("environment") or {}
    if not found:
        return ""
    known, shape = facts(document), block(name)
    label = f"Read by repro {document['tool']} inside the process that ran the model."
    lines, numbers = _lines(shape, known), _lines(block(NUMBERS), known)
    if shape.language == "Shell":  # GitHub puts the fence around it
        return "\n".join([f"# {label}", *lines, "", "# What else changes numbers:", *numbers])
    listed = fenced("\n".join(lines), shape.language) if shape.language else "\n".join(lines)
    return "\n\n".join([label, listed, "What else changes numbers:", fenced("\n".join(numbers), "text")])


def facts(document: Mapping[str, Any]) -> Facts:
    """Every fact that a line may ask for, as text; None for what was not recorded."""
    found = document.get("environment") or {}
    return {**_versions(found), **_build(found), **_device(document, found), **_numbers(document, found)}


def _versions(found: Mapping[str, Any]) -> Facts:
    installed = {**(found.get("packages") or {}), **(found.get("distributions") or {})}
    known = {
        name.replace("-", "_"): installed.get(name, MISSING)
        for name in ("huggingface-hub", "safetensors", "tokenizers", "accelerate", "deepspeed", "tensorflow", "flax")
    }
    config = found.get("accelerate_config")
    shown = None if config is None else "\n".join(f"\t- {key}: {value}" for key, value in config.items())
    listed = sorted(name for name in installed if LIBRARIES.match(name))
    return {
        **known,
        "transformers": found.get("transformers"),
        "transformers_or_none": found.get("transformers") or MISSING,
        "torch": found.get("torch"),
        "python": found.get("python"),
        "numpy": installed.get("numpy"),
        "jax": installed.get("jax", MISSING),
        "jaxlib": installed.get("jaxlib", MISSING),
        "tensorflow_gpu": "NA" if known["tensorflow"] == MISSING else None,
        "jax_backend": "NA" if known["flax"] == MISSING else None,
        "accelerate_config": "not found" if known["accelerate"] == MISSING else "\tnot found" if shown == "" else shown,
        "accelerate_default_config": "\tNot found" if shown == "" else shown,
        "libraries": "\n".join(f"{name}=={installed[name]}" for name in listed) or None,
    }


def _build(found: Mapping[str, Any]) -> Facts:
    build, memory = found.get("build") or {}, found.get("memory_bytes")
    return {
        **{name: found.get(name) for name in ("platform", "libc", "python_build")},
        "system": _beside(found.get("system"), found.get("machine")),
        "debug": _boolean(build.get("debug")),
        "cuda_built": (build["cuda"] or "None") if "cuda" in build else None,
        "rocm_built": (build["hip"] or "N/A") if "hip" in build else None,
        "xnnpack": _boolean(build.get("xnnpack")),
        "memory": None if memory is None else f"{memory / 1024**3:.2f} GB",
        "torch_git": found.get("torch_git"),
        "cpu": _cpu(found.get("cpu") or {}),
    }


def _device(document: Mapping[str, Any], found: Mapping[str, Any]) -> Facts:
    cards = [card for card in found.get("accelerators") or () if card.get("type") == "cuda"]
    listed = found.get("accelerators")
    device = document["cell"].get("device")
    gpu = None if device is None else "no" if device == "cpu" else "yes"
    kind = found.get("accelerator")
    recorded = "accelerator" in found
    return {
        "device": device,
        "cuda_available": None if listed is None else str(bool(cards)),
        # Transformers knows no name for Apple's GPU there, Accelerate does.
        "accelerator_or_na": (kind if kind not in (None, "MPS") else "NA") if recorded else None,
        "accelerator_or_n_a": (kind or "N/A") if recorded else None,
        "gpu_used": gpu,
        "gpu_used_where_there_is_one": gpu if cards else None,
        "parallel": "no",  # the kit is one process, and places the model on one device
        "gpu_type": cards[0]["name"] if cards else None,
        "gpus": "".join(f"\nGPU {place}: {card['name']}" for place, card in enumerate(cards)) or None,
        "driver": found.get("gpu_driver"),
        "cudnn": str(cards[0]["cudnn"]) if cards and cards[0].get("cudnn") else None,
    }


def _numbers(document: Mapping[str, Any], found: Mapping[str, Any]) -> Facts:
    cell, tf32 = document["cell"], found.get("tf32") or {}
    allocator, variables = found.get("allocator") or {}, found.get("variables") or {}
    switched = ", ".join(f"{name} {value}" for name, value in tf32.items() if value is not None)
    return {
        "dtype": cell.get("dtype"),
        "attn": cell.get("attn"),
        "blas": found.get("blas"),
        "capability": (found.get("cpu") or {}).get("capability"),
        "tf32": switched or None,
        "allocator": ", ".join(f"{name}={value}" for name, value in allocator.items()) or None,
        "variables": ", ".join(f"{name}={value}" for name, value in variables.items()) or None,
        **{name: _boolean(found.get(name)) for name in ("mkldnn", "deterministic", "flush_denormal")},
        **{name: _text(found.get(name)) for name in ("threads", "interop_threads", "matmul_precision")},
    }


def _cpu(cpu: Mapping[str, Any]) -> str | None:
    named = {"CPU(s)": cpu.get("count"), "Model name": cpu.get("model"), "CPU capability": cpu.get("capability")}
    return "\n".join(f"{name}: {value}" for name, value in named.items() if value) or None


def _lines(shape: Block, known: Facts) -> list[str]:
    """The lines of which every fact is known, for the release of transformers that ran."""
    lines: list[str] = []
    for line in shape.lines:
        said = _said(line, known)
        if said is None:
            continue
        # The tools themselves indent with tabs; nothing else that does not print may stay.
        shown = ["\t".join(map(visible, part.split("\t"))) for part in said.split("\n")]
        lines += ["", *shown] if line.apart and lines else shown
    return lines


def _said(line: Line, known: Facts) -> str | None:
    release = Version(known["transformers"] or "0")
    if (line.since and release < Version(line.since)) or (line.until and release >= Version(line.until)):
        return None
    names = [name for _, name, _, _ in string.Formatter().parse(line.text) if name]
    if any(known[name] is None for name in names):
        return None
    return line.text.format_map(known)


def _beside(value: str | None, machine: object) -> str | None:
    return f"{value} ({machine})" if value and machine else value


def _boolean(value: object) -> str | None:
    return str(value) if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
