"""The owner of the fault, and why."""

from repro.report.markdown import text
from repro.report.opening import full_stop
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
**{{ owner }}.** {{ reason }}{{ " Fix: " ~ advice if advice }}
"""
OWNERS = {
    "pytorch": "PyTorch",
    "transformers": "Transformers",
    "checkpoint": "The checkpoint",
    "caller": "The caller",
}


def owner_name(project: str) -> str:
    """How an owner is written in a report."""
    return OWNERS.get(project, text(project))


def fill(shown: Shown) -> Variables | None:
    owner = shown.answer.owner
    if owner is None:
        return None
    advice = text(full_stop(owner.advice)) if owner.advice else None
    project = owner.project or ("Nobody" if shown.answer.is_rounding else "Not known")
    return {"owner": owner_name(project), "reason": text(owner.reason), "advice": advice}


SECTION = Section("Owner", fill, TEMPLATE, rank=7)
