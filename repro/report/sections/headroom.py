"""The largest magnitude of each layer's output against the dtype's limit."""

from collections.abc import Sequence

from repro.core.encoding import number
from repro.core.payloads import Headroom
from repro.core.sentences import plain
from repro.report.markdown import DASH, DIGITS, cell, shown_number, text, thinned
from repro.report.plots.magnitude import magnitude
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ "Largest magnitude in each layer's output, compared with " ~ against ~ "." if rows }}

{{ table(["layer (execution order)", "largest magnitude", "share of the limit"], rows) }}

{{ note }}
"""
AROUND = 3
"""How many layers before and behind the origin are always shown."""
WORTH_A_TABLE = 0.01
"""Where no layer comes within this share of the dtype's limit, one line says so."""


def fill(shown: Shown) -> Variables | None:
    bisect, origin = shown.answer.bisect, shown.answer.origin
    limit = number(bisect.limit) if bisect else None
    if bisect is None or not bisect.headroom or not limit:
        return None
    items, against = bisect.headroom, f"{plain(limit, DIGITS)}, the largest finite {text(bisect.dtype or '')}"
    if not origin and all(_size(item) < WORTH_A_TABLE * limit for item in items):  # false where one is NaN
        return {"rows": [], "against": against, "note": _far(items, limit, against)}
    known = [item for item in items if item.absmax != "nan"]
    if not known:
        return None
    here = {index for index, item in enumerate(known) if origin and item.module == origin.module}
    around = {index + step for index in sorted(here)[:1] for step in range(-AROUND, AROUND + 1)}
    chosen, note = thinned(known, shown.rows, around)
    unknown = len(items) - len(known)
    left_out = f"Layers with NaN as their largest magnitude, not shown: {unknown}." if unknown else None
    rows = [
        [
            _name(item) + (" (origin)" if origin and item.module == origin.module else ""),
            shown_number(item.absmax),
            DASH if item.absmax is None else _share(_size(item) / limit),
        ]
        for item in chosen
    ]
    return {"rows": rows, "against": against, "note": " ".join(filter(None, (note, left_out)))}


def _far(items: Sequence[Headroom], limit: float, against: str) -> str:
    peak = max(items, key=_size)
    size = _size(peak)
    said = f"The largest magnitude in any layer's output is {plain(size, DIGITS)}, in {_name(peak)}"
    return f"{said}: {_share(size / limit)} of {against}."


def _size(item: Headroom) -> float:
    return number(item.absmax) or 0.0


def _name(item: Headroom) -> str:
    return cell(item.module or "the model itself")


def _share(ratio: float) -> str:
    if ratio == float("inf"):
        return "over the limit"
    return f"{100 * ratio:.1f} %" if ratio >= 0.001 else "below 0.1 %"


SECTION = Section("Headroom", fill, TEMPLATE, plot=magnitude, rank=13)
