"""Bad tokens in each layer's output: layers x tokens."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from repro.core.answer import Answer
from repro.core.payloads import Spread
from repro.core.sentences import noun_of_places
from repro.report.plots.chart import BAD, INK, LABEL_PIXELS, Plot, Spec, chart, layer, ordinal, short
from repro.report.plots.layers import chosen, names, origin_place

WIDTH, TALL, LOW = 300, 16, 5
"""Units of the plane, and of a layer where these are few or many."""
LARGE = 40
"""With more layers than that, they are low."""
LAYERS = 96
COLUMNS = 64
"""Where tokens are more than that, neighbours share a column."""
NAMED = 16
"""Where tokens are more than that, an axis counts them."""
TOKEN = 14
"""Characters of a token's text."""


def spread(answer: Answer) -> Plot | None:
    """Bad tokens by layer; None where no layer has one, or it is not known how many tokens there are."""
    every = [item for item in (answer.bisect.spread if answer.bisect else ()) if item.tokens]
    if not any(item.bad_tokens for item in every):
        return None
    items, thinned_note = chosen(every, LAYERS, origin_place(every, answer.origin))
    said, title = names(items)
    place = origin_place(items, answer.origin)
    tokens = max(item.tokens or 0 for item in items)
    each = -(-tokens // COLUMNS)
    runs = [run for name, item in zip(said, items, strict=True) for run in _runs(name, item, each)]

    step = TALL if len(items) <= LARGE else LOW
    words = _words(answer, tokens)
    y_axis = {"title": title, "labelOverlap": True, "labelLimit": LABEL_PIXELS, "ticks": False, "grid": False}
    y_axis |= {"titleAngle": 0, "titleAlign": "left", "titleBaseline": "bottom", "titleX": 0, "titleY": -6}
    y = {**ordinal("layer", said, y_axis), "scale": {"domain": said, "type": "band", "paddingInner": 0.15}}
    noun = noun_of_places(answer.forward)
    x_axis: Spec = {"title": f"{noun}, from 0", "format": "d", "tickMinStep": 1, "grid": False}
    if words:
        x_axis = {"title": None, "labels": False, "ticks": False, "grid": True, "values": list(range(1, tokens))}
    x = {"field": "start", "type": "quantitative", "scale": {"domain": [0, tokens], "nice": False}, "axis": x_axis}
    layers = [
        layer(runs, {"type": "rect", "color": BAD}, x=x, x2={"field": "end"}, y=y),
        *_named(words, step * len(items)),
    ]
    if place is not None:
        layers += _origin(said[place], y)
    return Plot(
        name="spread",
        title=f"Bad {noun}s in each layer's output",
        note=" ".join(_notes(each, tokens, noun, thinned_note)),
        spec=chart(layers, WIDTH, step * len(items)),
    )


def _runs(name: str, item: Spread, each: int) -> list[dict[str, Any]]:
    """Bad tokens side by side as one bar, from the start of the first column to the end of the last."""
    columns = sorted({token // each for token in item.bad_tokens})
    found = []
    for _, group in groupby(enumerate(columns), key=lambda pair: pair[1] - pair[0]):
        run = [column for _, column in group]
        found.append({"layer": name, "start": run[0] * each, "end": min((run[-1] + 1) * each, item.tokens or 0)})
    return found


def _words(answer: Answer, tokens: int) -> list[str]:
    """The tokens where they are few: by number, and by name where that is known."""
    if tokens > NAMED:
        return []
    inputs, asked = answer.forward.prompts if answer.forward else (), answer.bisect.prompt if answer.bisect else None
    known = inputs[asked].tokens or () if asked is not None and 0 <= asked < len(inputs) else ()
    texts = [short(token, TOKEN) for token in known] if len(known) == tokens else [""] * tokens
    return [f"{index} {text}".strip() for index, text in enumerate(texts)]


def _named(words: Sequence[str], height: int) -> list[Spec]:
    """The tokens below the plane, slanted where they have names."""
    values = [{"at": index + 0.5, "says": name} for index, name in enumerate(words)]
    slanted = {"angle": 300, "align": "right", "baseline": "middle"}
    mark = {"type": "text", **({"baseline": "top"} if all(map(str.isdecimal, words)) else slanted)}
    at = {"field": "at", "type": "quantitative"}
    return (
        [layer(values, mark, x=at, y={"value": height + 8}, text={"field": "says", "type": "nominal"})] if words else []
    )


def _origin(name: str, y: Spec) -> list[Spec]:
    """A word at the right end of the origin's layer."""
    mark = {"type": "text", "fill": INK, "fontWeight": "bold", "align": "left", "baseline": "middle", "dx": 5}
    middle = {**y, "bandPosition": 0.5}
    says = {"field": "says", "type": "nominal"}
    return [layer([{"layer": name, "says": "origin"}], mark, x={"value": WIDTH}, y=middle, text=says)]


def _notes(each: int, tokens: int, noun: str, thinned_note: str | None) -> list[str]:
    said = [f"Filled: NaN or Inf at this {noun}; empty: finite."]
    if each > 1:
        said.append(f"Each column stands for {each} of the {tokens:,} {noun}s; it is filled if one of them is bad.")
    return said + ([thinned_note] if thinned_note else [])
