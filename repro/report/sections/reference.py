"""Each operator held against float64 of its own inputs: how far the farthest of each kind are."""

from repro.core.encoding import number
from repro.core.finite.reference import OperatorKind, Reference
from repro.core.sentences import many
from repro.report.markdown import Row, cell, code, grown, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ said }}

{{ table(["operator", "dtype", "calls", "farthest, of what rounding allows", "RMS error, in epsilons"], rows) }}

{{ bullets(notes) }}

{{ "How the error grows, in a pass beside the same pass in float64:" if growth }}

{{ table(["behind", "apart from float64", "by rounding alone", "size of the values"], growth) }}

{{ thinned }}
"""
ROWS = 8
GROWN = 14
NAMED = 5
# Of one that is wrong the origin tells, which need not be the first.
MATTERS = {
    "sound": "That makes no difference",
    "open": "Whether that matters could not be told",
}
UNLIKE = "NaN and a number"


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.reference
    if found is None or not found.operators:
        return None
    calls, in_part = many(found.operators, "call"), f", {found.sampled:,} of them in part" if found.sampled else ""
    said = f"{calls} of operators{in_part}, each held against float64 on the CPU, on the same inputs."
    rows = [_row(kind) for kind in found.kinds[:ROWS]]
    growth, note = grown(found.growth, min(shown.rows, GROWN))
    return {"said": said, "rows": rows, "notes": _notes(found), "growth": growth, "thinned": note}


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
    if found.alone:
        named = ", ".join(f"{code(op)} ({count:,})" for op, count in list(found.alone.items())[:NAMED])
        notes.append(f"Held against nothing independent, being in float64 or another library's: {named}.")
    for item in (row for row in found.swallowed if row.verdict in MATTERS):
        value = shown_number(number(item.value))
        what = f"{code(item.op)} in {code(item.module or 'the model')} gives {value} in {cell(item.dtype)}, of finite"
        notes.append(f"{what} numbers, and the output is finite. {MATTERS[item.verdict]}: {text(item.reason)}.")
    return notes


SECTION = Section("Held against float64", fill, TEMPLATE, rank=12)
