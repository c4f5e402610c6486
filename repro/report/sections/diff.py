"""Two ways of running the model: where they part first, how the difference grows, and what both end with."""

from repro.core.finite.diff import SIDES, Beside, Departure, Diff, End, Gradients
from repro.report.markdown import Row, code, grown, or_dash, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ facts(rows) }}

{{ bullets(notes) }}

{{ table(["at the end", "figure"], end) }}

{{ table(["layer", "apart", "by rounding alone", "size of the values"], growth) }}

{{ thinned }}
"""
ROWS = 14
NOT_COMPARED = 6
PART = "no rounding of each other"


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.diff
    if found is None or not found.way:
        return None
    growth, note = grown(found.growth, min(shown.rows, ROWS))
    return {
        "rows": [[name, value] for name, value in _facts(found).items() if value],
        "notes": [*_notes(found)],
        "end": [] if found.end is None else _end(found.end),
        "growth": growth,
        "thinned": note,
    }


def _facts(found: Diff) -> dict[str, str | None]:
    rows: dict[str, str | None] = {
        "held against": text(found.way),
        "compared": f"{found.places:,} inputs and outputs of {found.calls:,} module calls",
    }
    if found.gradients is not None:
        rows["gradients"] = _gradients(found.gradients)
    if found.departure is not None:
        return {**rows, **_departure(found.departure)}
    if found.nearest is not None:
        near = found.nearest
        rows["nearest to that"] = f"{code(near.module or 'the model itself')} ({text(near.what)}): {_times(near)}"
    return rows


def _gradients(found: Gradients) -> str:
    if found.why_not is not None:
        return text(f"not compared: {found.why_not}")
    return f"of {found.parameters:,} parameters, and of what modules give: {found.places:,} in all"


def _times(row: Beside) -> str:
    whole, part, column = (shown_number(found) for found in (row.whole, row.row, row.column))
    drift = f"{whole} times the drift, that is what rounding at random does there"
    return f"{drift}; its worst row {part} times and its worst column {column} times" + _allowed(row)


def _allowed(row: Beside) -> str:
    return f" (rounding: at most {', '.join(map(shown_number, row.limits))})" if row.limits else ""


def _departure(found: Departure) -> dict[str, str | None]:
    what = "its output" if found.what == "output" else f"what it gives {found.of or 'the model'} as {found.path}"
    if found.what == "gradient":
        what = f"the gradient of {found.path}" if found.path else f"the gradient that comes back to {found.of}"
    element = [f"token {found.token_index}" if found.token_index is not None else ""]
    element += [f"({found.token!r})" if found.token is not None else ""]
    element += [f"channel {found.channel_index}" if found.channel_index is not None else ""]
    values = f"{or_dash(found.this, shown_number)} here, {or_dash(found.other, shown_number)} there"
    errors = f"{or_dash(found.error_this, shown_number)} here, {or_dash(found.error_other, shown_number)} there"
    return {
        "the first that parts": f"{code(found.module or 'the model itself')} ({text(found.module_class or '')})",
        "in": text(what),
        "how far": f"{found.mismatched:,} values that are no rounding of each other"
        if found.mismatched
        else _times(found),
        "operator here": found.op and f"{code(found.op)}{_line(found.source)}",
        "operator there": found.other_op and f"{code(found.other_op)}{_line(found.other_source)}",
        "where": text(" ".join(part for part in element if part)) or None,
        "values": values,
        "error against float64": errors if found.error_this is not None else None,
        "so": found.side and SIDES.get(found.side),
        "weights that differ": ", ".join(code(row.tensor) for row in found.weights) or None,
    }


def _line(source: str | None) -> str:
    return f", {text(source)}" if source else ""


def _notes(found: Diff) -> list[str]:
    notes = [text(note) for note in found.notes]
    notes += [f"{code(stage.name)}: {text(stage.verdict)}, {text(stage.reason)}." for stage in found.stages]
    if found.departure is not None and found.departure.note:
        notes.append(text(found.departure.note))
    if len(found.modules) > 1:
        notes.append(
            f"{len(found.modules)} modules part on equal inputs: {', '.join(map(code, found.modules[:ROWS]))}."
        )
    for row in found.not_compared[:NOT_COMPARED]:
        where = f"{code(row.module or 'the model')}, {text(row.what)} ({row.count:,} such)"
        notes.append(f"Not compared: {where}: {text(row.reason)}.")
    return notes


def _end(end: End) -> list[Row]:
    rows: dict[str, str | None] = {
        f"root mean square of the difference of {text(end.output)}": _numbers(end.rmse),
        "the same by rounding alone": _numbers(end.drift),
        "KL divergence, mean and largest": _numbers(end.kl_mean, end.kl_max),
        "likeliest tokens that differ": None if end.top1_flips is None else f"{end.top1_flips} of {end.positions}",
        "rank correlation": _numbers(end.rank_correlation),
        "entropy here, there": _numbers(end.entropy_this, end.entropy_other),
        "RMSE against float64 here, there (torch's `same`)": _numbers(end.rmse_this, end.rmse_other),
    }
    return [[name, value] for name, value in rows.items() if value is not None]


def _numbers(*given: object) -> str | None:
    return None if None in given else ", ".join(map(shown_number, given))


SECTION = Section("Two ways of running it", fill, TEMPLATE, rank=10)
