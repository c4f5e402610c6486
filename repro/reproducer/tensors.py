"""Scripts that look at one tensor in the model's own files: a bad value, or one that the case's dtype cannot hold.

They ask whatever file they are given, so that a mended one is found to be mended.
"""

from repro.core.encoding import number
from repro.core.sentences import plain
from repro.reproducer.checkpoint import Checkpoint, folder_lines, needs_checkpoint, reading_script
from repro.reproducer.frame import STATUSES, Document
from repro.reproducer.script import Script
from repro.reproducer.values import Json, literal
from repro.reproducer.words import generated


def weight_script(document: Document, checkpoint: Checkpoint) -> Script | None:
    """One tensor of a file: a bad value in it, or a finite one that the case's dtype cannot hold."""
    if checkpoint.source == "gguf":
        return None
    findings = (document.get("weights") or {}).get("findings") or []
    if findings:
        return _bad_tensor(document, checkpoint, findings)
    origin = document.get("origin") or {}
    dtype = str(document["cell"].get("dtype") or "")
    names = ((document.get("weights") or {}).get("overflows_in") or {}).get(dtype) or []
    if origin.get("mechanism") != "overflow" or not origin.get("tensor") or not names:
        return None
    own = str(origin["tensor"])
    name = next(
        (item for item in names if item == own or own.endswith(f".{item}") or item.endswith(f".{own}")), names[0]
    )
    return _too_large(document, checkpoint, str(name), dtype)


def _bad_tensor(document: Document, checkpoint: Checkpoint, findings: list[Json]) -> Script:
    row = findings[0]
    counts = [
        f"{row[key]} {word}" for key, word in (("nan", "NaN"), ("posinf", "inf"), ("neginf", "-inf")) if row.get(key)
    ]
    place = f"[{', '.join(map(str, row.get('first_index') or []))}]"
    code = [
        *_tensor(checkpoint, str(row["file"]), str(row["tensor"])),
        "bad = ~values.isfinite()",
        "first = bad.nonzero()[:1].tolist()",
        'print(f"expected {values.numel()} finite numbers, seen {int(bad.sum())} that are none, the first at {first}")',
        f"sys.exit(1 if bad.any() else 0)  {STATUSES}",
    ]
    more = f", and {len(findings) - 1} more tensors are not finite" if len(findings) > 1 else ""
    about = [
        f"{row['tensor']} in {row['file']} holds {' and '.join(counts)}, the first at {place}{more}.",
        "No code is to blame: the values are in the file.", needs_checkpoint(checkpoint), generated(document),
    ]  # fmt: skip
    return reading_script(
        document, checkpoint, "weights", _reader(str(row["file"])), about, code, "the tensor in the file"
    )


def _too_large(document: Document, checkpoint: Checkpoint, name: str, dtype: str) -> Script | None:
    files = [str(row["name"]) for row in document["files"].get("files") or () if row.get("name")]
    if not files:
        return None
    limit = number((document.get("origin") or {}).get("limit"))
    code = [
        *_tensor(checkpoint, files[0] if len(files) == 1 else None, name, files),
        "expected = values.flatten()[values.abs().argmax()]",
        f"seen = expected.to(torch.{dtype})",
        f'print(f"expected {{expected}} (the file), seen {{seen}} ({dtype})")',
        f"sys.exit(0 if seen.isfinite() else 1)  {STATUSES}",
    ]
    largest = "" if limit is None else f" beyond {plain(limit, 12)}, its largest number"
    about = [
        f"{name} holds a finite number that {dtype} does not have{largest or ''}.",
        "Neither PyTorch nor Transformers is to blame: the dtype is too narrow for this file.",
        needs_checkpoint(checkpoint), generated(document),
    ]  # fmt: skip
    return reading_script(document, checkpoint, "weights", _reader(files[0]), about, code, "the tensor in the file")


def _tensor(checkpoint: Checkpoint, file: str | None, name: str, files: list[str] | None = None) -> list[str]:
    """``values`` is the tensor in float32."""
    lines = ["import os", "import torch", *folder_lines(checkpoint, check=False)]
    if (file or (files or [""])[0]).endswith(".safetensors"):
        lines.append("from safetensors import safe_open")
        if file is None:
            lines += [
                f"for file in {literal(files)}:",
                '    with safe_open(os.path.join(folder, file), framework="pt") as opened:',
                f"        if {literal(name)} in opened.keys():",
                f"            values = opened.get_tensor({literal(name)}).float()",
            ]
        else:
            lines += [
                f'with safe_open(os.path.join(folder, {literal(file)}), framework="pt") as opened:',
                f"    values = opened.get_tensor({literal(name)}).float()",
            ]
        return lines
    path = f"os.path.join(folder, {literal(file or (files or [''])[0])})"
    return [*lines, f"values = torch.load({path}, weights_only=True)[{literal(name)}].float()"]


def _reader(file: str) -> tuple[str, ...]:
    return ("torch", "safetensors") if file.endswith(".safetensors") else ("torch",)
