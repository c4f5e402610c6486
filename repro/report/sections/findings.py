"""What the files, weights and load steps found, one line each."""

from collections.abc import Iterator, Sequence

from repro.core.payloads import Files, Finding, Load, Mismatch, Weights
from repro.report.markdown import cell, first_of, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ bullets(lines) }}
"""
NAMES = 8


def fill(shown: Shown) -> Variables | None:
    answer = shown.answer
    found = [*_files(answer.files or Files()), *_load(answer.load or Load()), *_weights(answer.weights or Weights())]
    lines, more = first_of(found, shown.rows, "findings")
    return {"lines": lines + ([more] if more else [])} if lines else None


def _files(files: Files) -> Iterator[str]:
    return (_line("files", item) for item in files.findings)


def _load(load: Load) -> Iterator[str]:
    lists = {
        "missing keys (not in the file, so initialized at random)": load.missing_keys,
        "unexpected keys (in the file, not in the model)": load.unexpected_keys,
        "mismatched shapes": [_shapes(item) for item in load.mismatched],
        "tensors left without storage": load.meta,
        "buffers left uninitialized": load.unset_buffers,
    }
    named = [names[0] for names in lists.values() if names]
    for item in load.findings:
        # What is listed below, with a number, is not said twice.
        if "not aligned" not in item.problem and (item.cause or not any(name in item.problem for name in named)):
            yield _line("load", item)
    for words, names in lists.items():
        yield from _names(f"load: {words}", names)
    misplaced = {item.tensor for item in load.misplaced}
    differ = [name for name in load.values.differ if name not in misplaced] if load.values else []
    yield from _names("load: values that differ from the file", differ)
    if load.misaligned:
        example = f", such as {cell(load.misaligned_examples[0].tensor)}" if load.misaligned_examples else ""
        note = "(a precondition of some faults, not a fault by itself)"
        yield f"load: {load.misaligned:,} parameters are misaligned in memory{example} {note}"


def _weights(weights: Weights) -> Iterator[str]:
    yield from _names("weights: all-zero tensors", weights.zero_tensors)
    for dtype, names in weights.overflows_in.items():
        yield from _names(f"weights: too large for {text(dtype)}", names)


def _line(step: str, item: Finding) -> str:
    where = f"{cell(item.file)}: " if item.file else ""
    note = " (not a fault by itself)" if item.severity == "note" else ""
    return f"{step}: {where}{text(item.problem)}{note}"


def _shapes(item: Mismatch) -> str:
    file, model = (None if shape is None else list(shape) for shape in (item.file, item.model))
    return f"{item.tensor} {file} in the file, {model} in the model"


def _names(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(cell(name) for name in names[:NAMES])
        yield f"{what}: {len(names):,} ({shown}{', ...' if len(names) > NAMES else ''})"


SECTION = Section("Findings", fill, TEMPLATE, rank=9)
