"""Sibling models side by side, what follows, and what their configurations do differently."""

from repro.report.markdown import DASH, Row, cell, first_of, text
from repro.report.models import HEAD, LIMITED, model_row, setting_row
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ table(head, rows) }}

Largest output: of any layer, as far as it was measured. Headroom: the dtype's limit divided by it.

{{ note }}

{{ bullets(sentences) }}

{{ "Settings that differ (" ~ same ~ " are the same):" if settings }}

{{ table(settings_head, settings) }}

{{ settings_note }}

{{ "Everything below is about " ~ shown ~ "." if shown }}
"""


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.comparison
    if found is None:
        return None
    models, note = first_of(found.models, shown.rows, "models")
    settings, settings_note = first_of(found.settings, shown.rows, "settings")
    return {
        "head": [*HEAD, *(f"headroom {dtype}" for dtype in LIMITED)],
        "rows": [_markdown(model_row(one)) for one in models],
        "note": note,
        "sentences": [text(line) for line in found.threshold.sentences],
        "settings_head": ["setting", *(cell(one.name) for one in found.models), "by size", "separates bad from good"],
        "settings": [[cell(one.path), *_markdown(setting_row(one)[1:])] for one in settings],
        "settings_note": settings_note,
        "same": found.same_settings,
        "shown": cell(found.shown_model) if found.shown_model else None,
    }


def _markdown(row: Row) -> Row:
    return [value if value == DASH else text(value) for value in row]


SECTION = Section("Models", fill, TEMPLATE)
