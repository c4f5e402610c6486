"""Operators with bad values from which nothing bad follows."""

from repro.report.markdown import cell, or_dash
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ table(["module", "operator", "why"], rows) }}
"""
ROWS = 8


def fill(shown: Shown) -> Variables | None:
    items = shown.answer.bisect.ruled_out if shown.answer.bisect else ()
    outside = "the script itself" if shown.answer.script else "the model itself"
    rows = [
        [cell(item.module or outside), or_dash(item.op, cell), or_dash(item.why)]
        for item in items[: min(shown.rows, ROWS)]
    ]
    return {"rows": rows} if rows else None


SECTION = Section("Ruled out", fill, TEMPLATE)
