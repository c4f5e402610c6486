"""Which tokens are bad in each layer, from the last sound layer on."""

from repro.core.payloads import Spread
from repro.core.sentences import noun_of_places
from repro.report.markdown import Row, cell, thinned
from repro.report.plots.spread import spread
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ table(["layer (execution order)", "bad " ~ noun ~ "s", "which"], rows) }}

{{ note }}
"""
ROWS = 12
TOKENS = 12
"""How many tokens are named."""


def fill(shown: Shown) -> Variables | None:
    items = shown.answer.bisect.spread if shown.answer.bisect else ()
    first = next((index for index, item in enumerate(items) if item.bad_tokens), None)
    if first is None:
        return None
    items, behind = items[max(first - 1, 0) :], 0
    while len(items) > 2 and _whole(items[-1]) and _whole(items[-2]):
        items, behind = items[:-1], behind + 1
    chosen, thinned_note = thinned(items, min(shown.rows, ROWS), set(range(ROWS // 2)))
    noun = noun_of_places(shown.answer.forward)
    said = f"All {noun}s stay bad in the next {'layer' if behind == 1 else f'{behind} layers'}." if behind else None
    note = " ".join(filter(None, (said, thinned_note)))
    return {"rows": [_row(item) for item in chosen], "noun": noun, "note": note}


def _row(item: Spread) -> Row:
    tokens = item.bad_tokens
    which = ", ".join(map(str, tokens[:TOKENS])) + (", ..." if len(tokens) > TOKENS else "")
    of = "" if item.tokens is None else f" of {item.tokens}"
    return [
        cell(item.module or "the model itself"),
        f"{len(tokens)}{of}",
        "all" if _whole(item) and len(tokens) > 1 else which,
    ]


def _whole(item: Spread) -> bool:
    """Whether all tokens are bad."""
    return item.tokens is not None and len(item.bad_tokens) == item.tokens


SECTION = Section("How it spreads through the layers", fill, TEMPLATE, plot=spread, rank=12)
