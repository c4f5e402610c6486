"""Which inputs the model was asked, and what came of each."""

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
        shape = ", ".join(map(str, further.shape))
        line += f" {code(further.name)}: ({shape}), {further.dtype}, {_origin_of(further)}."
    if item.without:
        line += f" Not given: {', '.join(map(code, item.without))}."
    if item.tokens and len(item.tokens) <= IDS:
        line += f" Tokens: {' '.join(code(token) for token in item.tokens)}"
    return line


def _origin_of(further: Further) -> str:
    return "given" if further.seed is None else f"normally distributed, seed {further.seed}"


def _prompt(item: Pass) -> str:
    if item.input_source == "memory":
        return "inputs that the factory gives"
    if not item.input_ids and item.further:
        return f"inputs drawn from seed {item.seed} (the model takes no token ids)"
    if item.input_source == "seeded" or item.prompt is None:
        return f"token ids drawn from seed {item.seed} (no tokenizer was used)"
    cut, whole = item.prompt[:CHARACTERS], len(item.prompt)
    return code(cut) + (f" (the first {len(cut)} of {whole:,} characters)" if len(cut) < whole else "")


SECTION = Section("Inputs", fill, TEMPLATE, rank=11)
