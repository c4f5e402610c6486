"""Scripts that look at one tensor in the model's own files: a bad value, or one that the case's dtype cannot hold.

They check whatever file they are given, so that a repaired one passes.
"""

from collections.abc import Sequence

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import mechanism
from repro.core.payloads import Held, Origin, Tensor
from repro.core.sentences import plain
from repro.reproducer.code.calls import index_of
from repro.reproducer.code.tensors import literal
from repro.reproducer.frame import ending
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import Checkpoint, folder_lines, needs_checkpoint, reading_script
from repro.reproducer.words import generated

DOES = "reads the tensor from the file"


def weight_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """One tensor of a file: a bad value in it, or a finite one that the case's dtype cannot hold."""
    weights, origin = answer.weights, answer.origin
    if checkpoint.source == "gguf" or weights is None:
        return None
    if weights.findings:
        return _bad_tensor(answer, checkpoint, weights.findings)
    if origin is not None and origin.held is not None and origin.held.in_file:
        return _held(answer, checkpoint, origin, origin.held)
    dtype = answer.cell.dtype or ""
    names = weights.overflows_in.get(dtype)
    if origin is None or not origin.tensor or not names or not mechanism(origin.mechanism).beyond_limit:
        return None
    own = origin.tensor
    name = next((item for item in names if item == own or own.endswith(f".{item}") or item.endswith(f".{own}")), None)
    return _too_large(answer, checkpoint, name or names[0], dtype, origin)


def _bad_tensor(answer: Answer, checkpoint: Checkpoint, findings: Sequence[Tensor]) -> Script:
    row = findings[0]
    counted = ((row.nan, "NaN"), (row.posinf, "inf"), (row.neginf, "-inf"))
    counts = " and ".join(f"{count} {word}" for count, word in counted if count)
    first = index_of(row.first_index or ()) or "[]"
    code = [
        *_tensor(checkpoint, [str(row.file)], row.tensor),
        "bad = ~values.isfinite()",
        "first = bad.nonzero()[:1].tolist()",
        *ending(
            "seen {int(bad.sum())} of {values.numel()} values not finite, the first at {first}; right is 0",
            "not bad.any()",
            "the file holds NaN or Inf",
        ),
    ]
    more = f", and {len(findings) - 1} more tensors are not finite" if len(findings) > 1 else ""
    about = [
        f"{row.tensor} in {row.file} contains {counts}, the first at {first}{more}.",
        "The fault is in the file, not in any code.", needs_checkpoint(checkpoint), generated(answer),
    ]  # fmt: skip
    return reading_script(answer, checkpoint, "weights", _reader(str(row.file)), about, code, DOES)


def _held(answer: Answer, checkpoint: Checkpoint, origin: Origin, held: Held) -> Script | None:
    """The one number that makes an operator bad, whatever the module is given."""
    files = [] if answer.files is None else [row.name for row in answer.files.files]
    value, instead = number(held.value), number(held.instead)
    if not files or value is None or instead is None:
        return None
    negative = value < 0 <= instead
    right = "a number that is not negative" if negative else f"another number, such as {plain(instead)}"
    code = [
        *_tensor(checkpoint, files, held.tensor),
        f"seen = values{index_of(held.index)}.item()",
        *ending(
            f"seen {{seen}} at {list(held.index)}, right is {right}",
            "seen >= 0" if negative else f"seen != {literal(value)}",
            f"{origin.op} gives {origin.value} with this number",
        ),
    ]
    about = [
        f"{held.tensor} holds {plain(value)} at {list(held.index)}. With it {origin.op} gives {origin.value},",
        f"whatever the module is given; with {plain(instead)} in its place a finite number.",
        "The fault is in the file, not in any code.", needs_checkpoint(checkpoint), generated(answer),
    ]  # fmt: skip
    return reading_script(answer, checkpoint, "weights", _reader(files[0]), about, code, DOES)


def _too_large(answer: Answer, checkpoint: Checkpoint, name: str, dtype: str, origin: Origin) -> Script | None:
    files = [] if answer.files is None else [row.name for row in answer.files.files]
    if not files:
        return None
    limit = number(origin.limit)
    code = [
        *_tensor(checkpoint, files, name),
        "expected = values.flatten()[values.abs().argmax()]",
        f"seen = expected.to(torch.{dtype})",
        *ending(
            f"seen {{seen}} ({dtype}), right is {{expected}} (the file)",
            "seen.isfinite()",
            f"{{expected}} is beyond what {dtype} holds",
        ),
    ]
    largest = "" if limit is None else f", whose largest is {plain(limit, 12)}"
    about = [
        f"{name} contains a finite number that is too large for {dtype}{largest}.",
        "This is not a bug of PyTorch or Transformers: the dtype is too narrow for this file.",
        needs_checkpoint(checkpoint), generated(answer),
    ]  # fmt: skip
    return reading_script(answer, checkpoint, "weights", _reader(files[0]), about, code, DOES)


def _tensor(checkpoint: Checkpoint, files: Sequence[str], name: str) -> list[str]:
    """``values`` is the tensor in float32, from whichever of the files has it."""
    lines = ["import os", "import torch", *folder_lines(checkpoint, check=False)]
    if not files[0].endswith(".safetensors"):
        path = f"os.path.join(folder, {literal(files[0])})"
        return [*lines, f"values = torch.load({path}, weights_only=True)[{literal(name)}].float()"]
    lines.append("from safetensors import safe_open")
    if len(files) == 1:
        return [
            *lines,
            f'with safe_open(os.path.join(folder, {literal(files[0])}), framework="pt") as opened:',
            f"    values = opened.get_tensor({literal(name)}).float()",
        ]
    return [
        *lines,
        f"for file in {literal(files)}:",
        '    with safe_open(os.path.join(folder, file), framework="pt") as opened:',
        f"        if {literal(name)} in opened.keys():",
        f"            values = opened.get_tensor({literal(name)}).float()",
    ]


def _reader(file: str) -> tuple[str, ...]:
    return ("torch", "safetensors") if file.endswith(".safetensors") else ("torch",)
