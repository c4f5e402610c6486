"""A generation or a training: how it was run, and what is not finite in it."""

from repro.core.payloads import Generate, Train
from repro.report.markdown import cell, code, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ facts(rows) }}

{{ bullets(bad) }}
"""
NAMES = 12
"""How many tensors are named that are not finite."""


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.generate or shown.answer.train
    if found is None:
        return None
    rows = _generation(found) if isinstance(found, Generate) else _training(found)
    bad = [f"{code(name)} is not finite." for name in found.bad[:NAMES]]
    if len(found.bad) > NAMES:
        bad.append(f"{len(found.bad) - NAMES:,} more.")
    named = {**rows, "note": found.note and text(found.note)}
    return {"rows": [[name, value] for name, value in named.items() if value], "bad": bad}


def _generation(found: Generate) -> dict[str, str | None]:
    return {
        "new tokens": None if found.tokens is None else f"{found.tokens:,} at most, {len(found.generated):,} looked at",
        "passes behind the first": "one token each" if found.cached else None,
        "judged": None if found.judged is None else f"{found.judged:,} tensors of logits and scores",
    }


def _training(found: Train) -> dict[str, str | None]:
    examples = ", ".join(map(str, found.examples))
    return {
        "steps": None if found.steps is None else f"{found.steps:,}",
        "loss": found.loss and text(found.loss),
        "loss by step": ", ".join(shown_number(loss) for loss in found.losses) or None,
        "batch": None if found.batch is None else f"{found.batch:,}",
        "micro batches of a step": None if found.micro_batches is None else f"{found.micro_batches:,}",
        "examples that make it bad": examples or None,
        "autocast": found.autocast and cell(found.autocast),
        "loss scale at the beginning": None if found.loss_scale is None else shown_number(found.loss_scale),
        "gradients are clipped to a norm of": None if found.clip is None else shown_number(found.clip),
        "optimizer": found.optimizer and cell(found.optimizer),
    }


SECTION = Section("Generation or training", fill, TEMPLATE, rank=11)
