"""A comparison of models in rows, for a terminal and for the report's section."""

import json
from collections.abc import Iterator, Sequence

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.sentences import plain, visible
from repro.core.sweep_answers import Born, Setting, SiblingModel
from repro.report.markdown import DASH, Row

HEAD = ("model", "parameters", "layers", "hidden size", "dtype", "verdict", "bad prompts", "origin", "largest output")
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


def lines(answer: Answer) -> Iterator[str]:
    """The comparison for a terminal: plain text in columns; nothing without one."""
    found = answer.comparison
    if found is None:
        return
    head = [*HEAD, *(f"/{dtype}" for dtype in LIMITED)]
    yield from _columns([head, *map(model_row, found.models)])
    yield f"largest output: of any layer, as far as it was measured; {', '.join(head[-3:])}: the dtype's limit by it"
    if found.settings:
        yield ""
        names = [one.name for one in found.models]
        yield from _columns(
            [["setting", *names, "by size", "separates bad from good"], *map(setting_row, found.settings)]
        )
    count = len(found.settings)
    yield f"{count:,} setting{'s differ' if count != 1 else ' differs'}, {found.same_settings:,} are the same"
    yield ""
    yield from map(visible, found.threshold.sentences)


def model_row(one: SiblingModel) -> Row:
    peak = one.peak
    largest = DASH if peak is None else f"{_number(peak.value)} in {peak.dtype}"
    return [
        one.name,
        DASH if one.parameters is None else size(one.parameters),
        *(DASH if value is None else str(value) for value in (one.layers, one.hidden_size, one.dtype)),
        one.verdict.value,
        DASH if one.share is None else f"{one.failed} of {one.asked} ({100 * one.share:.3g} %)",
        _place(one.born),
        largest if peak is None or peak.measured else f"at least {largest}",
        *(_headroom(one, dtype) for dtype in LIMITED),
    ]


def _number(value: object) -> str:
    found = number(value)
    return DASH if found is None else plain(found, DIGITS)


def _headroom(one: SiblingModel, dtype: str) -> str:
    """The headroom; where the magnitude is known only from below, the headroom is known only from above."""
    known = _number(one.headroom.get(dtype))
    return known if known == DASH or one.peak is None or one.peak.measured else f"at most {known}"


def _place(born: Born | None) -> str:
    """``model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416), token 0 '<bos>'``."""
    if born is None:
        return DASH
    details = ", ".join(filter(None, (born.op, born.source)))
    where = (born.module or "the model itself") + (f" ({details})" if details else "")
    index = "" if born.token_index is None else f" {born.token_index}"
    token = "" if born.token is None else f" {born.token!r}"
    return f"{where}, token{index}{token}" if index or token else where


def setting_row(one: Setting) -> Row:
    shown = [DASH if absent else _short(value) for value, absent in zip(one.values, one.absent, strict=True)]
    return [one.path, *shown, ORDERS.get(one.order or "", DASH), "yes" if one.separates else DASH]


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
