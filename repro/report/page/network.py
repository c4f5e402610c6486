"""The network as a column of layers in order of execution: the largest magnitude of each, which runs through the column
as one line, the limit of the dtype beside it, and how many tokens are bad.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import mechanism
from repro.core.payloads import Bisect, Figures, Headroom, Origin, Spread
from repro.core.sentences import listed, noun_of_places, plain, visible
from repro.report.markdown import DASH, DIGITS, shown_number
from repro.report.plots.layers import chosen, names, origin_place

MOST = 32
"""How many layers are drawn."""
LEFT, RIGHT, BEYOND = 4.0, 84.0, 95.0
"""Where the smallest and the largest magnitude lie in a row that is 100 wide, and where what is beyond every number."""
TALL = 10
"""A row's height in the same units; a page stretches it as it likes."""
IN_VIEW = 1e6
"""A limit farther than so many times from every magnitude is not drawn: it would squash the rest."""
PLACES = 512
"""With more tokens than that, which of them are bad is not drawn."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A row. ``above`` and ``below`` are the halves of the line in it, as SVG paths.

    Attributes:
        name: Of the layer, or its number.
        size: Its largest magnitude.
        at: Where that is drawn; None where it is not known.
        is_bad: Whether it is NaN or Inf.
        bad_tokens: How many of how many; empty where it is not known.
        strip: Which, as an SVG path in a box that is as wide as there are tokens; empty where none is.
        tokens: How many there are.
        is_origin: Whether the bad value is born in it.
        is_output: Whether it is the model's output.
    """

    name: str
    size: str
    at: float | None
    is_bad: bool
    bad_tokens: str = ""
    strip: str = ""
    tokens: int = 0
    which: str = ""
    is_origin: bool = False
    is_output: bool = False
    above: str = ""
    below: str = ""
    turns_bad: bool = False
    """Whether the line below it leads to NaN or Inf."""


@dataclass(frozen=True, slots=True)
class Network:
    """The column. ``limit`` is where the dtype's limit is drawn; None where it is too far away or not known."""

    heading: str
    noun: str
    axis: str
    rows: Sequence[Layer]
    limit: float | None
    has_sizes: bool
    has_tokens: bool
    notes: Sequence[str]


def network(answer: Answer) -> Network | None:
    """The column; None where no layer was measured."""
    bisect = answer.bisect
    if bisect is None or not (bisect.headroom or bisect.spread):
        return None
    items, thinned_note = _chosen(bisect, answer.origin)
    said, heading = names(items)
    place = origin_place(items, answer.origin)
    noun = noun_of_places(answer.forward)
    sizes = {id(item): number(item.absmax) for item in items if isinstance(item, Headroom)}
    output = _output(answer)
    known = [abs(size) for size in (*sizes.values(), _size(output)) if size is not None]
    limit = number(bisect.limit)
    scale = _Scale.of(known, limit)
    spread = {item.module: item for item in bisect.spread}
    rows = []
    for index, (name, item) in enumerate(zip(said, items, strict=True)):
        size = sizes.get(id(item))
        row = Layer(visible(name), _words(size), scale.at(size), _is_bad(size), is_origin=index == place)
        first_call = not isinstance(item, Headroom) or not item.call_index
        rows.append(_with_tokens(row, spread.get(item.module) if first_call else None))
    if output is not None:
        size = _size(output)
        word = (answer.forward and answer.forward.output) or "output"
        rows.append(Layer(visible(word), _words(size), scale.at(size), _is_bad(size), is_output=True))
    drawn = scale.at(limit) if scale.has_limit else None
    return Network(
        heading=visible(heading),
        noun=noun,
        axis=scale.words(),
        rows=_joined(rows),
        limit=drawn,
        has_sizes=bool(known),
        has_tokens=any(row.bad_tokens for row in rows),
        notes=list(_notes(answer, noun, limit if drawn is not None else None, rows, thinned_note)),
    )


def _chosen(bisect: Bisect, origin: Origin | None) -> tuple[Sequence[Headroom | Spread], str | None]:
    """The layers that are drawn, by their magnitudes where these were measured, and a note where some are left out."""
    if bisect.headroom:
        return chosen(bisect.headroom, MOST, origin_place(bisect.headroom, origin))
    return chosen(bisect.spread, MOST, origin_place(bisect.spread, origin))


@dataclass(frozen=True, slots=True)
class _Scale:
    """A logarithmic scale between two powers of ten."""

    low: float
    high: float
    has_limit: bool

    @classmethod
    def of(cls, sizes: Sequence[float], limit: float | None) -> "_Scale":
        finite = [size for size in sizes if math.isfinite(size) and size > 0]
        near = bool(limit and finite and min(finite) / IN_VIEW <= limit <= IN_VIEW * max(finite))
        ends = [*finite, *([limit] if near and limit else [])]
        if not ends:
            return cls(0, 1, False)
        low, high = math.floor(math.log10(min(ends))), math.log10(max(ends))
        return cls(low, max(high, low + 1), near)

    def at(self, size: float | None) -> float | None:
        if size is None:
            return None
        if _is_bad(size):
            return BEYOND
        if size <= 0:
            return LEFT / 2
        return round(LEFT + (RIGHT - LEFT) * (math.log10(size) - self.low) / (self.high - self.low), 1)

    def words(self) -> str:
        return f"from {plain(10.0**self.low, 1)} to {plain(10.0**self.high, DIGITS)}, logarithmic"


def _output(answer: Answer) -> Figures | None:
    """Figures of the output of the pass in which the origin lies."""
    forward, bisect = answer.forward, answer.bisect
    if forward is None or bisect is None:
        return None
    asked = bisect.prompt
    if asked is not None and 0 <= asked < len(forward.prompts):
        return forward.prompts[asked].logits or forward.logits
    return forward.logits if len(forward.prompts) <= 1 else None  # of several, it may be another one's


def _size(figures: Figures | None) -> float | None:
    """The largest magnitude of a tensor, or what is no number in it."""
    if figures is None:
        return None
    if figures.nan:
        return math.nan
    if figures.posinf or figures.neginf:
        return math.inf
    ends = [abs(end) for end in (number(figures.min), number(figures.max)) if end is not None]
    return max(ends, default=None)


def _is_bad(size: float | None) -> bool:
    return size is not None and not math.isfinite(size)


def _words(size: float | None) -> str:
    if size is None:
        return DASH
    return shown_number(size) if math.isfinite(size) else "NaN" if math.isnan(size) else "Inf"


def _with_tokens(row: Layer, found: Spread | None) -> Layer:
    """A row with its bad tokens."""
    if found is None or not found.tokens:
        return row
    bad = sorted(token for token in set(found.bad_tokens) if 0 <= token < found.tokens)
    runs = [[token for _, token in group] for _, group in groupby(enumerate(bad), key=lambda pair: pair[1] - pair[0])]
    drawn = found.tokens <= PLACES
    return replace(
        row,
        bad_tokens=f"{len(bad):,} of {found.tokens:,}",
        strip="".join(f"M{run[0]} 0h{len(run)}v1h-{len(run)}z" for run in runs) if drawn else "",
        tokens=found.tokens if drawn else 0,
        which=listed([str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:MOST]]),
    )


def _joined(rows: Sequence[Layer]) -> list[Layer]:
    """The rows with the line through all of them whose place is known. Behind a bad layer it goes on only to another:
    a finite one is of another branch.
    """
    made = []
    for index, row in enumerate(rows):
        before = rows[index - 1] if index else None
        behind = rows[index + 1] if index + 1 < len(rows) else None
        above = _half(row.at, before.at, 0) if before and not (before.is_bad and not row.is_bad) else ""
        below = _half(row.at, behind.at, TALL) if behind and not (row.is_bad and not behind.is_bad) else ""
        made.append(replace(row, above=above, below=below, turns_bad=bool(behind and behind.is_bad)))
    return made


def _half(here: float | None, there: float | None, end: int) -> str:
    """From the middle of a row to its border, half of the way to the neighbour."""
    if here is None or there is None:
        return ""
    return f"M{here:g} {TALL // 2}L{(here + there) / 2:.4g} {end}"


def _notes(
    answer: Answer, noun: str, limit: float | None, rows: Sequence[Layer], thinned_note: str | None
) -> list[str]:
    found = []
    if limit is not None:
        dtype = ((answer.bisect and answer.bisect.dtype) or "number of the dtype").removeprefix("torch.")
        found.append(f"Dashed: {plain(limit, DIGITS)}, the largest {visible(dtype)}.")
    if any(row.is_bad for row in rows):
        found.append("At the right edge: Inf and NaN, which are beyond every number.")
    found += [_reference(answer.origin)] if answer.origin else []
    if any(row.strip for row in rows):
        found.append(f"Filled: this {noun} is bad.")
    return [note for note in (*found, thinned_note or "") if note]


def _reference(origin: Origin) -> str:
    """What other arithmetic has at the element that overflows."""
    value = number(origin.reference_value)
    if value is None or not mechanism(origin.mechanism).beyond_limit or not math.isfinite(value):
        return ""
    dtype = (origin.reference and origin.reference.dtype) or "the reference"
    return f"At the origin {visible(dtype).removeprefix('torch.')} has {plain(value, DIGITS)}."
