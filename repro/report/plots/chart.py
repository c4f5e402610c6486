"""What a plot is, the pieces of Vega-Lite that all of them share, and their drawing as PNG.

Vega-Lite is a specification as plain data. ``vl_convert`` draws it in one wheel that depends on nothing: to install
repro must never change numpy or anything else of the environment that is under examination, and no browser is needed.
Nothing is fetched: every specification carries its data, and all addresses are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.sentences import visible

Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
SCALE = 2
"""Pixels of a PNG for each unit of the chart."""
FONT = 13
LABEL = 24
"""Characters of a name in a chart; the middle of a longer one is left out. The table has it whole."""
LABEL_PIXELS = 185

INK, MUTED, GRID, PAGE = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
GOOD, BAD, SKIP, LINE, LIMIT = "#1a7f37", "#cf222e", "#9a6700", "#0969da", "#8250df"
VERDICTS = {"good": GOOD, "skip": SKIP, "bad": BAD}
CROSSED = "M-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0L-1,-.7Z"
SHAPES = {"good": "circle", "skip": "triangle-up", "bad": CROSSED}
"""A shape for each verdict, so that colour is never the only sign."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart before it is drawn.

    Attributes:
        name: Of its file, without an ending.
        title: One line.
        note: What was left out or lies beyond the view; None where nothing did.
        spec: The Vega-Lite specification, complete.
    """

    name: str
    title: str
    note: str | None
    spec: Spec


def chart(layers: Sequence[Spec], width: int, height: int) -> Spec:
    """Layers on one plane of ``width`` x ``height`` units; labels come on top of that."""
    axis = {"labelColor": INK, "titleColor": MUTED, "domainColor": GRID, "tickColor": GRID, "gridColor": GRID}
    sizes = {"labelFontSize": FONT, "titleFontSize": FONT, "titleFontWeight": "normal"}
    legend = {"labelColor": INK, "labelFontSize": FONT, "orient": "bottom", "title": None}
    return {
        "$schema": SCHEMA,
        "background": PAGE,
        "padding": 8,
        "width": width,
        "height": height,
        "layer": list(layers),
        "config": {
            "aria": False,  # the figure as a whole has its words; one label for each mark would drown them
            "font": "sans-serif",
            "axis": {**axis, **sizes},
            "legend": legend,
            "text": {"fontSize": FONT, "fill": INK},
            "view": {"stroke": GRID},
        },
    }


def layer(values: Values, mark: Spec, **encoding: Spec) -> Spec:
    return {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}


def verdicts(values: Values, rows: Sequence[str], columns: Sequence[str], step: int, *, upright: bool) -> list[Spec]:
    """A mark for each value {"row", "column", "verdict"}, with a legend where the columns do not name the verdicts.

    Args:
        rows: The names on the left, from the top.
        columns: The names above, from the left.
        step: Units between two columns; they are ``ROW`` between two rows.
        upright: Whether the names above are too long to lie side by side, and so stand.
    """
    above: Spec = {"orient": "top", "title": None, "labelAngle": -90 if upright else 0, "ticks": False}
    above |= (
        {"labelAlign": "left", "labelBaseline": "middle", "labelLimit": LABEL_PIXELS}
        if upright
        else {"labelAlign": "center"}
    )
    left = {"title": None, "grid": True, "ticks": False, "labelLimit": LABEL_PIXELS, "labelPadding": 8}
    words = [word for word in VERDICTS if any(value["verdict"] == word for value in values)]
    legend = {"symbolSize": 90} if upright else None
    by = {"field": "verdict", "type": "nominal", "legend": legend}
    return [
        layer(
            values,
            {"type": "point", "filled": True, "size": 90, "opacity": 1},
            x=ordinal("column", columns, above, step=step),
            y=ordinal("row", rows, left, step=ROW),
            color={**by, "scale": {"domain": words, "range": [VERDICTS[word] for word in words]}},
            shape={**by, "scale": {"domain": words, "range": [SHAPES[word] for word in words]}},
        )
    ]


ROW = 22


def ordinal(field: str, domain: Sequence[str], axis: Spec | None, *, step: int | None = None) -> Spec:
    """Names in their own order, each in the middle of its place."""
    scale: Spec = {"domain": list(domain), "type": "point", "padding": 0.5}
    if step is not None:
        scale["range"] = [0, step * len(domain)]
    return {"field": field, "type": "ordinal", "sort": None, "scale": scale, "axis": axis}


def short(value: object, characters: int = LABEL) -> str:
    """A name on one line that fits beside a chart."""
    line = visible(" ".join(str(value).split(" ")))
    ahead = (characters - 1) // 2
    return line if len(line) <= characters else f"{line[:ahead]}…{line[len(line) - (characters - 1 - ahead) :]}"


def distinct(labels: Iterable[str]) -> list[str]:
    """The labels, with a number behind those that came before: two rows with one name would be drawn as one."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found


def png(plot: Plot) -> bytes:
    """The chart as a picture of its own, on white, with its title.

    Raises:
        ImportError: vl_convert is not there, or cannot be loaded on this platform.
    """
    import vl_convert

    title = {"text": plot.title, "anchor": "start", "color": INK, "fontSize": FONT + 2, "offset": 12}
    drawn: bytes = vl_convert.vegalite_to_png({**plot.spec, "title": title}, scale=SCALE, allowed_base_urls=[])
    return drawn
