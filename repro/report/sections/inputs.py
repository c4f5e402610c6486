"""Which inputs the model was asked, and what came of each."""

import json

from repro.core.payloads import Further, Pass
from repro.core.sentences import sentence, unused_prompt
from repro.report.markdown import code, first_of, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ bullets(lines) }}

{{ note }}
"""
IDS = 48
CHARACTERS = 400


def fill(shown: Shown) -> Variables | None:
    forward = shown.answer.forward
    if forward is None or not forward.prompts:
        return None
    inputs, more = first_of(forward.prompts, shown.rows, "inputs")
    note = text(sentence(unused_prompt(shown.answer.case.prompts, forward) or ""))
    return {"lines": [_line(item) for item in inputs] + ([more] if more else []), "note": note}


def _line(item: Pass) -> str:
    verdict = item.verdict.value if item.verdict else "no verdict"
    line = f"{_prompt(item)}: {verdict}."
    if item.input_ids:
        ids = ", ".join(map(str, item.input_ids[:IDS]))
        more = f", ... ({len(item.input_ids):,} in all)" if len(item.input_ids) > IDS else ""
        line += f" Ids: {ids}{more}."
    for further in item.further:
        line += f" {code(further.name)}: {_made(further)}."
    if item.without:
        line += f" Not given: {', '.join(map(code, item.without))}."
    if item.tokens and len(item.tokens) <= IDS:
        line += f" Tokens: {' '.join(code(token) for token in item.tokens)}"
    return line


def _made(item: Further) -> str:
    """Shape, dtype, and where the values come from."""
    said = f"({', '.join(map(str, item.shape))}), {item.dtype}"
    words = {
        "normal": None if item.seed is None else f"normally distributed, seed {item.seed}",
        "whole": f"whole numbers below {item.below}, seed {item.seed}",
        "ones": "ones",
        "given": "as the program gave it",
        "file": "from the file of inputs",
        "image": "from the picture, by the model's own processor",
        "audio": "from the sound, by the model's own processor",
    }
    if words.get(item.made):
        said += f", {words[item.made]}"
    if item.stored:
        said += f" (there {item.stored})"
    return said + (f": {code(json.dumps(item.values))}" if item.values is not None else "")


def _prompt(item: Pass) -> str:
    if item.input_source == "memory":
        return "inputs as the program gave them"
    if item.input_source == "file":
        return "inputs from the file that was given"
    if item.input_source == "processor" and item.prompt is None:
        return "what the model's own processor makes"
    if not item.input_ids and item.further:
        return f"inputs drawn from seed {item.seed} (the model takes no token ids)"
    if item.input_source == "seeded" or item.prompt is None:
        return f"token ids drawn from seed {item.seed} (no tokenizer was used)"
    cut, whole = item.prompt[:CHARACTERS], len(item.prompt)
    return code(cut) + (f" (the first {len(cut)} of {whole:,} characters)" if len(cut) < whole else "")


SECTION = Section("Inputs", fill, TEMPLATE, rank=11)
