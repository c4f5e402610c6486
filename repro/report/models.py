"""A comparison of models for people: the table, what follows, and what the configurations do differently. The same
rows serve a terminal and the report.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from repro.core.sentences import plain, visible
from repro.report.markdown import cell, text
from repro.report.tables import DASH, Json, Row, first_of

HEAD = ("model", "parameters", "layers", "hidden size", "dtype", "verdict", "bad prompts", "born in", "largest output")
LIMITED = ("float16", "bfloat16", "float32")
DIGITS = 4
WIDEST = 40
"""Characters of a setting's value that are shown; verdict.json has the whole."""
ORDERS = {"rises": "rises with size", "falls": "falls with size", "not in order": "not in order of size"}


def size(parameters: int) -> str:
    """``268M``, ``12.2B``; below a million the whole number."""
    for unit, word in ((10**9, "B"), (10**6, "M")):
        if parameters >= 0.9995 * unit:  # 999,885,952 rounds to 1B, and not to 1e+03M
            return f"{parameters / unit:.3g}{word}"
    return f"{parameters:,}"


def section(document: Json, rows: int) -> dict[str, Any] | None:
    """The section "Models"; None where the run compared none. Every string is Markdown.

    Args:
        document: The content of verdict.json, redacted.
        rows: The most rows that a table may have.
    """
    found = document.get("comparison")
    if not found:
        return None
    models, note = first_of(found["models"], rows, "models")
    names = [one["name"] for one in found["models"]]
    settings, settings_note = first_of(found["settings"], rows, "settings")
    return {
        "head": [*HEAD, *(f"headroom {dtype}" for dtype in LIMITED)],
        "rows": [_markdown(_row(one)) for one in models],
        "note": note,
        "sentences": [text(line) for line in found["threshold"]["sentences"]],
        "settings_head": ["setting", *map(cell, names), "with size", "bad from good"],
        "settings": [[cell(one["path"]), *_markdown(_values(one)[1:])] for one in settings],
        "settings_note": settings_note,
        "same": found["same_settings"],
        "shown": cell(found["shown_model"]) if found["shown_model"] else None,
    }


def lines(document: Json) -> Iterator[str]:
    """The same for a terminal: plain text in columns."""
    found = document["comparison"]
    head = [*HEAD, *(f"/{dtype}" for dtype in LIMITED)]
    yield from _columns([head, *map(_row, found["models"])])
    yield f"largest output: of any layer, as far as it was measured; {', '.join(head[-3:])}: the dtype's limit by it"
    names = [one["name"] for one in found["models"]]
    if found["settings"]:
        yield ""
        rows = [["setting", *names, "with size", "bad from good"], *map(_values, found["settings"])]
        yield from _columns(rows)
    count = len(found["settings"])
    yield f"{count:,} setting{'s differ' if count != 1 else ' differs'}, {found['same_settings']:,} are alike"
    yield ""
    yield from map(visible, found["threshold"]["sentences"])


def _row(one: Json) -> Row:
    peak = one["peak"]
    largest = DASH if peak is None else f"{plain(peak['value'], DIGITS)} in {peak['dtype']}"
    return [
        str(one["name"]),
        DASH if one["parameters"] is None else size(one["parameters"]),
        *(DASH if one[key] is None else str(one[key]) for key in ("layers", "hidden_size", "dtype")),
        str(one["verdict"]),
        DASH if one["share"] is None else f"{one['failed']} of {one['asked']} ({100 * one['share']:.3g} %)",
        _place(one["born"]),
        largest if peak is None or peak["measured"] else f"at least {largest}",
        *(_ratio(one, dtype) for dtype in LIMITED),
    ]


def _markdown(row: Row) -> Row:
    return [value if value == DASH else text(value) for value in row]


def _ratio(one: Json, dtype: str) -> str:
    """The headroom; where the magnitude is known only from below, the headroom is known only from above."""
    ratio = one["headroom"].get(dtype)
    if ratio is None:
        return DASH
    return plain(ratio, DIGITS) if one["peak"]["measured"] else f"at most {plain(ratio, DIGITS)}"


def _place(born: Json | None) -> str:
    """``model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416), token 0 '<bos>'``."""
    if not born:
        return DASH
    details = ", ".join(str(born[key]) for key in ("op", "source") if born[key])
    where = str(born["module"] or "the model itself") + (f" ({details})" if details else "")
    number = "" if born["token_index"] is None else f" {born['token_index']}"
    token = "" if born["token"] is None else f" {born['token']!r}"
    return f"{where}, token{number}{token}" if number or token else where


def _values(one: Json) -> Row:
    shown = [DASH if absent else _short(value) for value, absent in zip(one["values"], one["absent"], strict=True)]
    return [one["path"], *shown, ORDERS.get(one["order"], DASH), "yes" if one["separates"] else DASH]


def _short(value: object) -> str:
    if isinstance(value, float):
        return plain(value)
    shown = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    clean = [[visible(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
