"""The environment as a project's form wants it: known facts put into the lines of that project's own tool.

The facts are those of the kit's environment step, read inside the process that failed. A line whose facts are not all
known is left out: nothing is asked anew here, and nothing is invented.
"""

import re
import string
from collections.abc import Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from repro.core.answer import Answer, CellInfo
from repro.core.payloads import Environment
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
AS_RECORDED = (
    "python", "python_build", "torch", "torch_git", "transformers", "platform", "libc", "blas", "mkldnn", "threads",
    "interop_threads", "matmul_precision", "deterministic", "flush_denormal",
)  # fmt: skip
"""Facts that are fields of the record, by the same name."""
NUMBERS = "numbers"
"""The block of what changes numbers and is in no project's own list."""


def environment(answer: Answer, name: str) -> str:
    """The environment block ``name``, and below it what changes numbers; empty where no environment was recorded."""
    if answer.environment is None:
        return ""
    known = {**facts(answer.environment, answer.cell), "needed": _needed(answer, answer.environment)}
    shape = block(name)
    label = f"Read by repro {answer.tool} inside the process that ran the model."
    lines, numbers = _lines(shape, known), _lines(block(NUMBERS), known)
    if shape.language == "Shell":  # GitHub puts the fence around it
        return "\n".join([f"# {label}", *lines, "", "# What else changes numbers:", *numbers])
    listed = fenced("\n".join(lines), shape.language) if shape.language else "\n".join(lines)
    return "\n\n".join([label, listed, "What else changes numbers:", fenced("\n".join(numbers), "text")])


def facts(found: Environment, cell: CellInfo) -> Facts:
    """Every fact that a line may ask for, as text; None for what was not recorded."""
    plain = {name: _text(getattr(found, name)) for name in AS_RECORDED}
    return {**plain, **_versions(found), **_build(found), **_device(found, cell.device), **_numbers(found, cell)}


def _needed(answer: Answer, found: Environment) -> str | None:
    """The releases of the owner's package and of what the scripts import, a line each, without PyTorch's."""
    scripts = () if answer.reproducer is None else (answer.reproducer, *answer.reproducer.others)
    names = [answer.owner.project if answer.owner else None, *(name for script in scripts for name in script.needs)]
    known = {name: found.version(name) for name in names if name not in (None, "torch")}
    return "\n".join(f"{name}: {version}" for name, version in known.items() if version) or None


def _versions(found: Environment) -> Facts:
    installed = {**found.packages, **found.distributions}
    known = {
        name.replace("-", "_"): installed.get(name, MISSING)
        for name in ("huggingface-hub", "safetensors", "tokenizers", "accelerate", "deepspeed", "tensorflow", "flax")
    }
    config = found.accelerate_config
    shown = None if config is None else "\n".join(f"\t- {key}: {value}" for key, value in config.items())
    listed = sorted(name for name in installed if LIBRARIES.match(name))
    return {
        **known,
        "transformers_or_none": found.transformers or MISSING,
        "numpy": installed.get("numpy"),
        "jax": installed.get("jax", MISSING),
        "jaxlib": installed.get("jaxlib", MISSING),
        "tensorflow_gpu": "NA" if known["tensorflow"] == MISSING else None,
        "jax_backend": "NA" if known["flax"] == MISSING else None,
        "accelerate_config": "not found" if known["accelerate"] == MISSING else "\tnot found" if shown == "" else shown,
        "accelerate_default_config": "\tNot found" if shown == "" else shown,
        "libraries": "\n".join(f"{name}=={installed[name]}" for name in listed) or None,
    }


def _build(found: Environment) -> Facts:
    build, memory = found.build, found.memory_bytes
    return {
        "system": f"{found.system} ({found.machine})" if found.system and found.machine else found.system,
        "debug": _text(build.get("debug")),
        "cuda_built": str(build["cuda"] or "None") if "cuda" in build else None,
        "rocm_built": str(build["hip"] or "N/A") if "hip" in build else None,
        "xnnpack": _text(build.get("xnnpack")),
        "memory": None if memory is None else f"{memory / 1024**3:.2f} GB",
        "cpu": _cpu(found.cpu),
    }


def _device(found: Environment, device: str | None) -> Facts:
    cards = [card for card in found.accelerators or () if card.get("type") == "cuda"]
    kind, recorded = found.accelerator, found.accelerators is not None
    gpu = None if device is None else "no" if device == "cpu" else "yes"
    return {
        "device": device,
        "cuda_available": str(bool(cards)) if recorded else None,
        # Transformers knows no name for Apple's GPU there, Accelerate does.
        "accelerator_or_na": (kind if kind not in (None, "MPS") else "NA") if recorded else None,
        "accelerator_or_n_a": (kind or "N/A") if recorded else None,
        "gpu_used": gpu,
        "gpu_used_where_there_is_one": gpu if cards else None,
        "parallel": "no",  # the kit is one process, and places the model on one device
        "gpu_type": str(cards[0].get("name")) if cards else None,
        "gpus": "".join(f"\nGPU {place}: {card.get('name')}" for place, card in enumerate(cards)) or None,
        "driver": found.gpu_driver,
        "cudnn": str(cards[0]["cudnn"]) if cards and cards[0].get("cudnn") else None,
    }


def _numbers(found: Environment, cell: CellInfo) -> Facts:
    return {
        "dtype": cell.dtype,
        "attn": cell.attn,
        "capability": _text(found.cpu.get("capability")),
        "tf32": ", ".join(f"{name} {value}" for name, value in found.tf32.items() if value is not None) or None,
        "allocator": _assigned(found.allocator),
        "variables": _assigned(found.variables),
    }


def _cpu(cpu: Mapping[str, Any]) -> str | None:
    named = {"CPU(s)": cpu.get("count"), "Model name": cpu.get("model"), "CPU capability": cpu.get("capability")}
    return "\n".join(f"{name}: {value}" for name, value in named.items() if value) or None


def _assigned(values: Mapping[str, object]) -> str | None:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or None


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
    if not _of_release(line, known["transformers"] or "0"):
        return None
    names = [name for _, name, _, _ in string.Formatter().parse(line.text) if name]
    if any(known[name] is None for name in names):
        return None
    return line.text.format_map(known)


def _of_release(line: Line, transformers: str) -> bool:
    """Whether this release has the line; of one whose version cannot be read, only the lines that all have."""
    if line.since is None and line.until is None:
        return True
    try:
        release = Version(transformers)
    except InvalidVersion:
        return False
    return not (line.since and release < Version(line.since)) and not (line.until and release >= Version(line.until))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
