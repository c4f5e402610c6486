"""Where it is born: the origin, how it spreads, how much headroom there was, and what looked bad and is not."""

from collections.abc import Mapping
from typing import Any

from repro.core.encoding import number
from repro.core.sentences import MECHANISMS, named_module, origin_dtype, plain
from repro.report.markdown import cell, text
from repro.report.tables import DASH, DIGITS, Json, Row, shown_number, thinned

AROUND = 3
"""How many modules before and behind the origin the headroom table always shows."""
CONFIRMED = {
    "repaired": "with only this operator's bad values replaced by 0, the model's whole output is finite",
    "changed": "with only this operator's bad values replaced by 0, fewer or other values of the output are bad",
    "suffices": "with every later operator that makes bad values of its own repaired, this one alone spoils the output",
    "corrected": "with only this operator's result replaced by float64's, rounded to its dtype, the script is good",
    "walked": "the walk back from the model's output, operator by operator, ends here",
}
"""What was seen when the operator was put to the test."""
SPREAD_ROWS = 12
WORTH_A_TABLE = 0.01
"""Where no layer comes within this share of the dtype's limit, one line says so."""
RULED_OUT_ROWS = 8


def origin_rows(origin: Json | None, bisect: Json) -> list[Row]:
    if not origin:
        return []
    module_class = f" ({text(origin['module_class'])})" if origin.get("module_class") else ""
    rows = [["module", cell(named_module(origin)) + module_class]]
    dtype = origin_dtype(origin, bisect)
    named = [
        ("call of the module, from 0", origin["call_index"] if (origin.get("call_index") or 0) > 0 else None),
        ("operator", origin.get("op")),
        ("source", origin.get("source")),
        ("mechanism", MECHANISMS.get(str(origin.get("mechanism")), origin.get("mechanism"))),
        ("dtype", dtype),
        ("weight", origin.get("tensor")),
        ("index in the weight", origin.get("tensor_index")),
    ]
    rows += [[name, cell(value)] for name, value in named if value is not None]
    if origin.get("token_index") is not None:
        token = f" {cell(origin['token'])}" if origin.get("token") is not None else ""
        rows.append(["token", f"{origin['token_index']}{token}"])
    for name, key in (("head", "head_index"), ("channel", "channel_index")):
        rows += [[name, str(origin[key])]] if origin.get(key) is not None else []
    reference = origin.get("reference") or {}
    if number(origin.get("reference_value")) is not None:
        scope = {"model": "the whole model", "operator": "this operator alone"}.get(str(reference.get("scope")))
        by = ", ".join(str(part) for part in (reference.get("dtype"), scope and f"{scope} run in it") if part)
        value = shown_number(origin["reference_value"])
        rows.append(["reference value there", f"{value} ({text(by)})" if by else value])
    element = origin.get("element")
    rows += [["element of the output", text(list(element))]] if element else []
    limit = origin.get("limit") if origin.get("limit") is not None else bisect.get("limit")
    if number(limit) is not None and origin.get("mechanism") == "overflow":
        rows.append(["largest finite value of the dtype", shown_number(limit)])
    for index, stats in enumerate(origin.get("inputs") or []):
        rows.append([f"input {index}", _stats(stats)])
    there = [value for value in origin.get("operands") or [] if value is not None]
    if there and len(there) == len(origin.get("operands") or []):
        rows.append(["inputs at that element", ", ".join(shown_number(value) for value in there)])
    rows += [["output", _stats(origin["output"])]] if origin.get("output") else []
    if origin.get("confirmed_by") in CONFIRMED:
        rows.append(["confirmed by", CONFIRMED[origin["confirmed_by"]]])
    if origin.get("note"):
        rows.append(["note", text(origin["note"])])
    return rows


def _stats(stats: object) -> str:
    """Statistics of a tensor in one cell."""
    if not isinstance(stats, Mapping):
        return cell(stats)
    head = " ".join(str(stats[key]) for key in ("dtype", "shape") if stats.get(key) is not None)
    parts = [text(head)] if head else []
    for name, key in (("min", "min"), ("max", "max"), ("NaN", "nan"), ("+Inf", "posinf"), ("-Inf", "neginf")):
        value = stats.get(key)
        if value is not None and not (value == 0 and key in ("nan", "posinf", "neginf")):
            parts.append(f"{name} {shown_number(value)}")
    return ", ".join(parts) or cell(dict(stats))


def headroom(origin: Json | None, bisect: Json, rows: int) -> dict[str, Any] | None:
    """Largest magnitude by module, in order of the forward pass, against the dtype's limit."""
    items = [item for item in bisect.get("headroom") or [] if isinstance(item, Mapping)]
    limit = number(bisect.get("limit"))
    if not items or not limit:
        return None
    against = f"{plain(limit, DIGITS)}, the largest finite {text(bisect.get('dtype') or '')}"
    largest = [number(item.get("absmax")) or 0.0 for item in items]
    if not origin and all(value < WORTH_A_TABLE * limit for value in largest):  # false where one is NaN
        peak = items[largest.index(max(largest))]
        where = cell(peak.get("module") or "the model itself")
        said = f"The largest magnitude in any layer's output is {plain(max(largest), DIGITS)}, in {where}: "
        return {"rows": [], "note": f"{said}{_share(max(largest) / limit)} of {against}."}
    place = next((i for i, item in enumerate(items) if origin and item.get("module") == origin.get("module")), None)
    around = set() if place is None else set(range(place - AROUND, place + AROUND + 1))
    known = [item for item in items if item.get("absmax") != "nan"]
    if not known:
        return None
    chosen, note = thinned(known, rows, around)
    if len(known) < len(items):
        left_out = f"{len(items) - len(known)} layers are left out, because their largest magnitude is NaN."
        note = f"{note} {left_out}" if note else left_out
    table = []
    for item in chosen:
        value = number(item.get("absmax"))
        share = DASH if value is None or value != value else _share(value / limit)
        here = " (origin)" if origin and item.get("module") == origin.get("module") else ""
        table.append([cell(item.get("module") or "the model itself") + here, shown_number(item.get("absmax")), share])
    return {"rows": table, "note": note, "against": against}


def _share(ratio: float) -> str:
    if ratio == float("inf"):
        return "beyond"
    return f"{100 * ratio:.1f} %" if ratio >= 0.001 else "below 0.1 %"


def spread(bisect: Json, rows: int) -> dict[str, Any] | None:
    items = [item for item in bisect.get("spread") or [] if isinstance(item, Mapping)]
    first = next((index for index, item in enumerate(items) if item.get("bad_tokens")), None)
    if first is None:
        return None
    items = items[max(first - 1, 0) :]
    behind = 0
    while len(items) > 2 and _whole(items[-1]) and _whole(items[-2]):
        items, behind = items[:-1], behind + 1
    chosen, note = thinned(items, min(rows, SPREAD_ROWS), set(range(SPREAD_ROWS // 2)))
    table = []
    for item in chosen:
        tokens = list(item.get("bad_tokens") or [])
        which = ", ".join(str(token) for token in tokens[:12]) + (", ..." if len(tokens) > 12 else "")
        total = item.get("tokens")
        table.append(
            [
                cell(item.get("module") or "the model itself"),
                f"{len(tokens)} of {total}" if total is not None else str(len(tokens)),
                "all" if _whole(item) and len(tokens) > 1 else which,
            ]
        )
    if behind:
        said = (
            "So it stays in the layer behind it." if behind == 1 else f"So it stays in the {behind} layers behind it."
        )
        note = f"{said} {note}" if note else said
    return {"rows": table, "note": note}


def _whole(item: Mapping[str, Any]) -> bool:
    """Whether all tokens are bad."""
    return item.get("tokens") is not None and len(item.get("bad_tokens") or []) == item["tokens"]


def ruled_out(bisect: Json, rows: int) -> list[Row]:
    items = bisect.get("ruled_out") or []
    return [
        [cell(item.get("module") or "the model itself"), cell(item.get("op")), text(item.get("why"))]
        for item in items[: min(rows, RULED_OUT_ROWS)]
    ]


def bisect_note(document: Json) -> str | None:
    """Why there is no origin although the forward pass is bad."""
    bisect, forward = document["bisect"], document["forward"]
    if document["origin"] or forward is None or forward["verdict"] != "bad":
        return None
    if bisect is None:
        return "The bisect step was not asked for."
    return text(bisect["reason"])
