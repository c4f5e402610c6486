"""The largest magnitude of each layer's output on a logarithmic axis, against the limits of the dtypes."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import LIMITS, mechanism
from repro.core.payloads import Headroom, Origin
from repro.core.sentences import listed, plain
from repro.report.markdown import DIGITS
from repro.report.plots.chart import (
    BAD,
    CROSSED,
    INK,
    LABEL_PIXELS,
    LIMIT,
    LINE,
    MUTED,
    Plot,
    Spec,
    chart,
    layer,
    ordinal,
    short,
)
from repro.report.plots.layers import chosen, names, origin_place

Value = Mapping[str, Any]
"""A value of a specification: plain data, as Vega-Lite takes it."""

WIDTH, HEIGHT, TOP = 340, 230, 30
"""Units of the plane; between 0 and ``TOP`` lies what is beyond every number."""
LAYERS = 160
"""How many layers a plane of this width can tell apart."""
LARGE = 40
"""With more layers than that, points are small."""
IN_VIEW = 1e6
"""A limit farther than so many times from every magnitude is not drawn: it would squash the rest."""
ALIKE = 1.1
"""Limits whose quotient is below that share a line: those of bfloat16 and float32 differ by 0.4 %."""
DECADES = 8
"""Powers of ten that the axis names."""
LOWEST = -323
"""The smallest power of ten that is a float64."""
KINDS = {"Inf": (BAD, "triangle-up"), "NaN": (BAD, CROSSED), "0": (MUTED, "circle")}
"""What has no place on a logarithmic axis: its colour and its shape."""


def magnitude(answer: Answer) -> Plot | None:
    """Magnitude by layer; None where no layer was measured."""
    origin = answer.origin
    every = [item for item in (answer.bisect.headroom if answer.bisect else ()) if number(item.absmax) is not None]
    if not every:
        return None
    items, thinned_note = chosen(every, LAYERS, origin_place(every, origin))
    said, title = names(items)
    place = origin_place(items, origin)
    born = None if place is None else said[place]
    values = [{"layer": name, **_value(item)} for name, item in zip(said, items, strict=True)]
    references = [] if born is None or origin is None else [{**item, "layer": born} for item in _reference(origin)]
    sizes = [item["absmax"] for item in (*values, *references) if item["absmax"]]
    limits = _limits(sizes)
    y = {"field": "absmax", "type": "quantitative", **_decades([*sizes, *(item["absmax"] for item in limits)])}
    x = ordinal("layer", said, _layer_axis(said, title))
    early = place is not None and 2 * place < len(items)
    layers = [
        *_limit_lines(limits, y, early=early),
        *_line(values, x, y),
        *_without_place(values, x),
        *(_origin(born, references, x, y) if born is not None else ()),
    ]
    notes = [*(f"Diamond: {item['says']}." for item in references), *_outside(limits)]
    return Plot(
        name="magnitude",
        title="Largest magnitude by layer, and the limit of each dtype",
        note=" ".join([*notes, *([thinned_note] if thinned_note else ())]) or None,
        spec=chart(layers, WIDTH, HEIGHT),
    )


def _value(item: Headroom) -> dict[str, Any]:
    """The magnitude where it has a place on the axis, and what it is where it has none."""
    value = number(item.absmax) or 0.0
    if math.isfinite(value):
        return {"kind": "finite", "absmax": value} if value > 0 else {"kind": "0", "absmax": None}
    return {"kind": "NaN" if math.isnan(value) else "Inf", "absmax": None}


def _reference(origin: Origin) -> list[dict[str, Any]]:
    """What other arithmetic has at the element that overflows; elsewhere it says nothing about magnitudes."""
    value = abs(number(origin.reference_value) or 0.0)
    if not mechanism(origin.mechanism).beyond_limit or not 0 < value < math.inf:
        return []
    dtype = short((origin.reference and origin.reference.dtype) or "the reference")
    return [{"absmax": value, "says": f"{dtype} has {plain(value, DIGITS)} at the origin"}]


def _limits(sizes: Sequence[float]) -> list[dict[str, Any]]:
    """The limits within view, those that are nearly the same as one."""
    found: list[dict[str, Any]] = []
    for name, limit in LIMITS.items():
        words = f"{name} {plain(limit, DIGITS if limit < 1e6 else 3)}"
        if not sizes or not min(sizes) / IN_VIEW <= limit <= IN_VIEW * max(sizes):
            continue
        if found and limit < ALIKE * found[-1]["absmax"]:
            last = found[-1]
            found[-1] = {"absmax": limit, "dtypes": [*last["dtypes"], name], "says": f"{last['says']}, {words}"}
        else:
            found.append({"absmax": limit, "dtypes": [name], "says": f"largest {words}"})
    return found


def _outside(limits: Sequence[Value]) -> list[str]:
    """A sentence on the limits that are not drawn."""
    left = [name for name in LIMITS if not any(name in item["dtypes"] for item in limits)]
    return [f"Outside this view: the largest {_said_limits(left)}."] if left else []


def _said_limits(dtypes: Sequence[str]) -> str:
    return listed([f"{name} {plain(LIMITS[name], DIGITS)}" for name in dtypes])


def _layer_axis(said: Sequence[str], title: str) -> Spec:
    flat = all(len(name) <= len("000") for name in said)
    return {"title": title, "labelOverlap": True, "labelLimit": LABEL_PIXELS, "labelAngle": 0 if flat else -60}


def _decades(sizes: Sequence[float]) -> Spec:
    """A logarithmic scale from a power of ten to a little above the largest, and its axis."""
    low = max(math.floor(math.log10(min(sizes))), LOWEST) if sizes else 0
    top = min(max(max(sizes, default=1.0) * 1.6, 10.0**low * 2), sys.float_info.max)
    high = math.floor(math.log10(top))
    every = max(1, math.ceil((high - low) / DECADES))
    ticks = [float(f"1e{power}") for power in range(low, high + 1, every)]
    axis = {
        "values": ticks,
        "format": "~g" if ticks[-1] < 1e7 else "~e",
        "title": "largest magnitude, logarithmic",
        "titlePadding": 14,  # room for a font that is wider than the one laid out with
        "grid": True,
    }
    return {"scale": {"type": "log", "domain": [ticks[0], top], "range": [HEIGHT, TOP], "nice": False}, "axis": axis}


def _limit_lines(values: Sequence[Value], y: Spec, *, early: bool) -> list[Spec]:
    """A dashed line for each limit, with its words above the end that is farther from an origin."""
    words = {"type": "text", "fill": LIMIT, "baseline": "bottom", "dy": -2}
    words |= {"align": "right", "dx": -4} if early else {"align": "left", "dx": 4}
    return [
        layer(values, {"type": "rule", "color": LIMIT, "strokeDash": [6, 3]}, y=y),
        layer(values, words, x={"value": WIDTH if early else 0}, y=y, text={"field": "says", "type": "nominal"}),
    ]


def _line(values: Sequence[Value], x: Spec, y: Spec) -> list[Spec]:
    """The magnitudes; the line is broken where one has no place on the axis."""
    point = {"type": "point", "filled": True, "color": LINE, "size": 36 if len(values) <= LARGE else 10, "opacity": 1}
    return [
        layer(values, {"type": "line", "color": LINE, "strokeWidth": 2}, x=x, y=y),
        layer([value for value in values if value["kind"] == "finite"], point, x=x, y=y),
    ]


def _without_place(values: Sequence[Value], x: Spec) -> list[Spec]:
    """Inf and NaN above every number, 0 below."""
    kinds = [kind for kind in KINDS if any(value["kind"] == kind for value in values)]
    by = {"field": "kind", "type": "nominal"}
    colour = {**by, "scale": {"domain": kinds, "range": [KINDS[kind][0] for kind in kinds]}}
    shape = {**by, "scale": {"domain": kinds, "range": [KINDS[kind][1] for kind in kinds]}}
    mark = {"type": "point", "filled": True, "size": 50 if len(values) <= LARGE else 14, "opacity": 1}
    found = []
    for here, y in ((("Inf", "NaN"), TOP // 2), (("0",), HEIGHT - 5)):
        there = [value for value in values if value["kind"] in here]
        found += [layer(there, mark, x=x, y={"value": y}, color=colour, shape=shape)] if there else []
    return found


def _origin(name: str, references: Sequence[Value], x: Spec, y: Spec) -> list[Spec]:
    """A line through the origin's layer, and what other arithmetic has there."""
    here = [{"layer": name, "says": "origin"}]
    words = {"type": "text", "fill": INK, "fontWeight": "bold", "baseline": "bottom"}
    diamond = {"type": "point", "shape": "diamond", "filled": False, "color": INK, "size": 90, "strokeWidth": 2}
    return [
        layer(here, {"type": "rule", "color": INK, "strokeDash": [2, 2]}, x=x),
        layer(here, words, x=x, y={"value": -3}, text={"field": "says", "type": "nominal"}),
        layer(references, {**diamond, "opacity": 1}, x=x, y=y),
    ]
