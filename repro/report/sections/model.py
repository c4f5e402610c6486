"""What was examined, below the title."""

from repro.core.answer import Answer
from repro.report.markdown import cell, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ "> **Random weights.** " ~ random if random }}

{{ facts(rows) }}
"""
RANDOM = (
    "The model was built from its configuration, with weights drawn from seed {}. "
    "This report says nothing about a published checkpoint."
)


def fill(shown: Shown) -> Variables:
    model, where = shown.answer.model, shown.answer.cell
    versions = {"torch": where.torch, "transformers": where.transformers, "python": where.python}
    named = {
        "script" if shown.answer.script else "watched" if shown.answer.watch else "model": cell(model.id),
        "revision": model.revision and cell(model.revision),
        "class": model.class_ and cell(model.class_),
        "parameters": model.parameters and shown_number(model.parameters),
        "weights": _weights(shown.answer),
        "dtype": where.dtype and cell(where.dtype),
        "device": where.device and cell(where.device),
        "attn": where.attn and cell(where.attn),
        "versions": text(", ".join(f"{name} {version}" for name, version in versions.items() if version)),
    }
    rows = [[name, value] for name, value in named.items() if value]
    return {"random": RANDOM.format(model.seed) if model.weights == "random" else None, "rows": rows}


def _weights(answer: Answer) -> str | None:
    if answer.script or answer.watch:
        return None
    if answer.model.weights == "memory":
        return "in memory, as the program held them"
    if answer.model.weights == "random":
        return f"random, seed {answer.model.seed}"
    if answer.model.weights == "factory":
        return "those that the factory gives"
    from_gguf = answer.files is not None and answer.files.source == "gguf"
    return "checkpoint" + (", dequantized by Transformers from the .gguf file" if from_gguf else "")


SECTION = Section("", fill, TEMPLATE)
