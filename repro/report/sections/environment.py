"""What in the environment changes numbers."""

from collections.abc import Mapping

from repro.report.markdown import cell, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
Read inside the process that ran the model.

{{ facts(rows) }}
"""
ELSEWHERE = frozenset({"executable", "distributions", "closures"})
"""What only verdict.json has: a path of this machine, and lists of everything that is installed."""


def fill(shown: Shown) -> Variables | None:
    environment = shown.answer.environment
    if environment is None:
        return None
    names = [name for name in environment.__struct_fields__ if name not in ELSEWHERE]
    values = [(name.replace("_", " "), _shown(getattr(environment, name))) for name in names]
    rows = [[text(name), cell(value)] for name, value in values if value]
    return {"rows": rows} if rows else None


def _shown(value: object) -> str:
    """A setting on one line, its parts as name=value; empty where it has none."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_part(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return "; ".join(map(_part, value))
    return "" if value is None else str(value)


def _part(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items() if item is not None)
    return str(value)


SECTION = Section("Environment", fill, TEMPLATE)
