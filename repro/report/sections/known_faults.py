"""The known faults that the run looks like, with what the further test says."""

from repro.report.markdown import text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ bullets(lines) }}
"""


def fill(shown: Shown) -> Variables | None:
    lines = [f"{text(item.sentence)} {item.url}" for item in shown.answer.looks_like]
    return {"lines": lines} if lines else None


SECTION = Section("Similar known faults", fill, TEMPLATE, rank=4)
