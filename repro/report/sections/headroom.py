"""The largest magnitude of each layer's output against the dtype's limit, and what narrower dtypes would do."""

from collections.abc import Sequence

from repro.core.encoding import number
from repro.core.finite.narrow import Forecast, NarrowDtype
from repro.core.payloads import Headroom
from repro.core.sentences import listed, plain
from repro.report.markdown import DASH, DIGITS, cell, shown_number, text, thinned
from repro.report.plots.magnitude import magnitude
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ "Largest magnitude in each layer's output, compared with " ~ against ~ "." if rows }}

{{ table(["layer (execution order)", "largest magnitude", "share of the limit"], rows) }}

{{ note }}

{{ forecast.intro if forecast }}

{{ table(forecast.columns, forecast.rows) if forecast }}

{{ bullets(forecast.notes) if forecast }}
"""
COLUMNS = (
    "dtype", "limit", "verdict", "first operator that would overflow", "modules beyond",
    "largest within, and how many times that the limit is",
)  # fmt: skip
AROUND = 3
"""How many layers before and behind the origin are always shown."""
NAMED = 12
"""How many modules beyond a limit are named."""
WORTH_A_TABLE = 0.01
"""Where no layer comes within this share of the dtype's limit, one line says so."""


def fill(shown: Shown) -> Variables | None:
    own, forecast = _own(shown), _forecast(shown.answer.forecast)
    if own is None and forecast is None:
        return None
    return {**(own or {"rows": [], "against": "", "note": None}), "forecast": forecast}


def _own(shown: Shown) -> Variables | None:
    """Of the run itself."""
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
    return _module(item.module)


def _share(ratio: float) -> str:
    if ratio == float("inf"):
        return "over the limit"
    return f"{100 * ratio:.1f} %" if ratio >= 0.001 else "below 0.1 %"


VERDICTS = {
    "sound": "sound",
    "overflows": "would overflow",
    "absorbed": "sound: what is beyond is absorbed",
    "wrong": "would overflow, and end with finite and wrong numbers",
}


def _forecast(forecast: Forecast | None) -> Variables | None:
    """Of narrower dtypes."""
    if forecast is None or not forecast.dtypes:
        return None
    rows = [
        [
            cell(row.dtype),
            plain(number(row.limit) or 0.0, DIGITS),
            VERDICTS[row.verdict],
            _first(row),
            str(len(row.modules)) if row.modules else DASH,
            _within(row),
        ]
        for row in forecast.dtypes
    ]
    eight = any(row.dtype.startswith("float8") for row in forecast.dtypes)
    notes = [_beyond(row) for row in forecast.dtypes if row.modules and not row.dtype.startswith("float8")]
    if eight:
        notes.append("In float8: what matrix products and attention are given, cast without a scale.")
    intro = f"Narrower dtypes, told from this run in {text(forecast.dtype or '')} without a run in them:"
    return {"intro": intro, "columns": COLUMNS, "rows": rows, "notes": notes}


def _first(row: NarrowDtype) -> str:
    first = row.first
    if row.weights:
        more = f" and {len(row.weights) - 1:,} more" if len(row.weights) > 1 else ""
        return f"the weight {cell(row.weights[0])}{more}"
    if first is None:
        return DASH
    words = [_module(first.module), cell(first.op)]
    words += [cell(first.source)] if first.source else []
    words += [f"token {first.token_index}"] if first.token_index is not None else []
    words += [f"channel {first.channel_index}"] if first.channel_index is not None else []
    what = "partial sum " if first.partial_sum else ""
    size, ratio = number(first.absmax) or 0.0, number(first.ratio)
    share = "" if ratio is None else f", {ratio:.2g} of the limit"
    return f"{', '.join(words)}: {what}{plain(size, DIGITS)}{share}"


def _within(row: NarrowDtype) -> str:
    if row.largest is None:
        return DASH
    size, ratio = number(row.largest.absmax) or 0.0, number(row.largest.ratio)
    return f"{plain(size, DIGITS)} in {_module(row.largest.module)}" + ("" if ratio is None else f", {ratio:.3g}")


def _beyond(row: NarrowDtype) -> str:
    said = listed([f"{_module(item.module)} ({shown_number(item.absmax)})" for item in row.modules[:NAMED]])
    more = len(row.modules) - NAMED
    return f"Beyond {text(row.dtype)}: {said}" + (f", and {more:,} more." if more > 0 else ".")


def _module(name: str) -> str:
    return cell(name or "the model itself")


SECTION = Section("Headroom", fill, TEMPLATE, plot=magnitude, rank=13)
