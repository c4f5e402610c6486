"""The way of the bad value in steps: what went in, the operator that made it, the layers behind it, the output."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.payloads import Bisect, Origin, Spread
from repro.core.records import Outcome
from repro.core.sentences import element_words, named_mechanism, named_module, noun_of_places, plain, visible
from repro.report.markdown import DIGITS
from repro.report.plots.layers import origin_place

WAS_THERE = ("bad_weights", "bad_input")
"""Mechanisms of a value that was there before the operator ran."""
MOST = 5
"""How many groups of layers are told."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the way: a name as code, and what is said of it."""

    name: str
    said: Sequence[str]
    is_origin: bool = False
    is_bad: bool = True


def way(answer: Answer) -> list[Step]:
    """The steps; none where no origin is known."""
    if answer.origin is None or answer.verdict is not Outcome.BAD:
        return []
    steps = [*_inputs(answer.origin), *_origin(answer), *_layers(answer), *_end(answer)]
    return steps if len(steps) > 1 else []


def _inputs(origin: Origin) -> Iterator[Step]:
    """What the operator was given."""
    operands = [plain(found, DIGITS) for found in map(number, origin.operands) if found is not None]
    if origin.forward_op:
        where = f"at {origin.forward_source}" if origin.forward_source else "in the forward pass"
        yield Step(visible(origin.forward_op), [visible(where), "its backward pass follows"], is_bad=False)
    if operands and len(operands) == len(origin.operands):
        yield Step(", ".join(operands), ["what goes in at the element"], is_bad=False)
    elif origin.inputs and not origin.tensor:
        ends = [(number(one.min), number(one.max)) for one in origin.inputs]
        said = [
            f"{plain(low, DIGITS)} to {plain(high, DIGITS)}"
            for low, high in ends
            if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        ]
        if len(said) == len(ends):  # what is not finite has no range
            yield Step("; ".join(said), ["what goes in, as a whole"], is_bad=False)


def _origin(answer: Answer) -> Iterator[Step]:
    origin = answer.origin
    assert origin is not None  # the caller has seen to it
    was_there = bool(origin.tensor) and origin.mechanism in WAS_THERE
    if origin.tensor:
        index = f" at {list(origin.tensor_index)}" if origin.tensor_index else ""
        yield Step(visible(origin.tensor), [f"holds it{index}"], is_origin=was_there)
    if not origin.op:
        return
    value = number(origin.value)
    what = named_mechanism(origin, answer.bisect or Bisect()).partition(" (")[0]
    result = "" if value is None else f": {plain(value, DIGITS).replace('nan', 'NaN').replace('inf', 'Inf')}"
    made = "reads it first" if was_there else f"{what}{result}"
    said = [made, f"in {named_module(origin)}", element_words(origin), origin.source or ""]
    yield Step(visible(origin.op), [visible(line) for line in said if line], is_origin=not was_there)


def _layers(answer: Answer) -> Iterator[Step]:
    """Layers side by side whose bad tokens are the same, from the origin's on."""
    items = answer.bisect.spread if answer.bisect else ()
    first = origin_place(items, answer.origin) or 0
    noun = noun_of_places(answer.forward)
    bad = [item for item in items[first:] if item.bad_tokens]
    groups = [list(group) for _, group in groupby(bad, key=lambda item: (item.bad_tokens, item.tokens))]
    for group in groups[:MOST]:
        yield Step(_named(group), [_counted(group[0], noun)])
    if len(groups) > MOST:
        yield Step("...", [f"{sum(map(len, groups[MOST:]))} layers more"])


def _named(group: Sequence[Spread]) -> str:
    names = [visible(item.module or "the model itself") for item in group]
    if len(names) == 1:
        return names[0]
    (head, _, first), (other, _, last) = names[0].rpartition("."), names[-1].rpartition(".")
    if head == other and first.isdecimal() and last.isdecimal():
        return f"{head}.{first} to {last}"
    return f"{names[0]} to {names[-1]}"


def _counted(item: Spread, noun: str) -> str:
    count = len(item.bad_tokens)
    if item.tokens is not None and count == item.tokens:
        return f"all {count:,} {noun}s bad" if count > 1 else f"its one {noun} bad"
    which = f" ({', '.join(map(str, item.bad_tokens[:4]))}{', ...' if count > 4 else ''})"
    return f"{count:,}{'' if item.tokens is None else f' of {item.tokens:,}'} {noun}s bad{which}"


def _end(answer: Answer) -> Iterator[Step]:
    """Where it is seen."""
    origin, forward = answer.origin, answer.forward
    if origin is not None and origin.gradient:
        yield Step(visible(origin.gradient), ["the first bad gradient"])
    if forward is not None and forward.verdict is Outcome.BAD:
        name, _, said = forward.reason.partition(": ")
        yield Step(visible(name), [visible(said)]) if said else Step("output", [visible(name)])
    elif answer.script is not None:
        status = answer.script.exit_status
        end = "" if status is None else f"exit status {status}"
        yield Step("the script", [line for line in (visible(answer.script.reason), end) if line])
