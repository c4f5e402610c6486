"""Tensors of the checkpoint that hold NaN or Inf."""

from repro.core.payloads import Tensor
from repro.report.markdown import Row, cell, first_of, or_dash, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ table(["tensor", "file", "dtype and shape", "NaN", "+Inf", "-Inf", "first index"], rows) }}

{{ note }}
"""


def fill(shown: Shown) -> Variables | None:
    items = shown.answer.weights.findings if shown.answer.weights else ()
    if not items:
        return None
    chosen, note = first_of(items, shown.rows, "tensors")
    return {"rows": [_row(item) for item in chosen], "note": note}


def _row(item: Tensor) -> Row:
    kind = " ".join([item.dtype or "", str(list(item.shape or ()))])
    counts = map(shown_number, (item.nan, item.posinf, item.neginf))
    name = f"{cell(item.tensor)} ({cell(item.stored_as)} in the file)" if item.stored_as else cell(item.tensor)
    return [name, or_dash(item.file, cell), text(kind), *counts, or_dash(_index(item))]


def _index(item: Tensor) -> str | None:
    return None if item.first_index is None else str(list(item.first_index))


SECTION = Section("Tensors with NaN or Inf in the file", fill, TEMPLATE, rank=8)
