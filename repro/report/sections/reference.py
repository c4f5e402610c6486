"""Each operator held against float64 of its own inputs: how far the farthest of each kind are."""

from repro.core.encoding import number
from repro.core.finite.reference import OperatorKind, Reference
from repro.core.sentences import many
from repro.report.markdown import Row, cell, code, shown_number
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ said }}

{{ table(["operator", "dtype", "calls", "farthest, of what rounding allows", "RMS error, in epsilons"], rows) }}

{{ bullets(notes) }}
"""
ROWS = 8
NAMED = 5
UNLIKE = "NaN and a number"


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.reference
    if found is None or not found.operators:
        return None
    calls, in_part = many(found.operators, "call"), f", {found.sampled:,} of them in part" if found.sampled else ""
    said = f"{calls} of operators{in_part}, each held against float64 on the CPU, on the same inputs."
    return {"said": said, "rows": [_row(kind) for kind in found.kinds[:ROWS]], "notes": _notes(found)}


def _row(kind: OperatorKind) -> Row:
    ratio = number(kind.ratio)
    far = UNLIKE if ratio is None or ratio == float("inf") else f"{ratio:.2g}"
    return [code(kind.op), cell(kind.dtype), f"{kind.calls:,}", far, shown_number(kind.rms)]


def _notes(found: Reference) -> list[str]:
    notes = []
    if found.others:
        named = ", ".join(f"{code(row.op)} in {code(row.module or 'the model')}" for row in found.others[:NAMED])
        notes.append(f"{many(found.departed - 1, 'more operator')} beyond what rounding allows: {named}.")
    if found.not_judged:
        named = ", ".join(f"{code(op)} ({count:,})" for op, count in list(found.not_judged.items())[:NAMED])
        notes.append(f"Not judged, for they draw random numbers or have no float64 counterpart: {named}.")
    return notes


SECTION = Section("Held against float64", fill, TEMPLATE, rank=12)
