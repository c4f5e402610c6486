"""Where the first bad value is born, and how that is known; or why it is not known."""

from repro.core.answer import Answer
from repro.core.encoding import Number, number
from repro.core.mechanisms import mechanism
from repro.core.payloads import Bisect, CameIn, Figures, Held, InputPlace, Origin
from repro.core.records import Outcome
from repro.core.sentences import many, named_mechanism, named_module, origin_dtype, place_words
from repro.report.markdown import Row, cell, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ facts(rows) }}

{{ "The origin is not known. " ~ why_not if why_not }}
"""
CONFIRMED = {
    "repeated": "on at least eight of ten inputs that are moved by some roundings, it departs as well",
    "repaired": "with only this operator's bad values replaced by 0, the model's whole output is finite",
    "changed": "with only this operator's bad values replaced by 0, fewer or other values of the output are bad",
    "suffices": "with every later operator that makes its own bad values repaired, this one alone makes the output bad",
    "corrected": "with only this operator's result replaced by float64's, rounded to its dtype, the script is good",
    "layers": "the same program is good with a backend of torch.compile that does not compile",
    "widened": "on wider numbers the output is another one, and with this overflow alone put in it is the run's own",
    "walked": "the walk back from the model's output, operator by operator, ends here",
}
"""What was seen when the operator was put to the test."""
IN_SCRIPT = {
    **CONFIRMED,
    "repaired": "with only this operator's bad values replaced by 0, the script is good",
    "suffices": "with every later operator that makes its own bad values repaired, this one alone makes the script bad",
    "together": "the script is good without it, and bad with it and those before it, all others repaired",
}
"""The same in a script, which has no output but its exit status."""
SCOPES = {"model": "whole model", "operator": "this operator alone"}


def fill(shown: Shown) -> Variables | None:
    origin, bisect, why_not = shown.answer.origin, shown.answer.bisect, _why_not(shown.answer)
    if origin is None and why_not is None:
        return None
    run = _run(shown.answer)
    return {"rows": _rows(origin, bisect or Bisect(), run) if origin else [], "why_not": why_not}


def _run(answer: Answer) -> str | None:
    """What was run again to confirm the origin, where that was no forward pass."""
    if answer.script is not None:
        return "script"
    if answer.forward is not None and answer.forward.verdict is Outcome.BAD:
        return None
    return "generation" if answer.generate is not None else None if answer.train is None else "training"


def _confirmed(by: str | None, run: str | None) -> str | None:
    words = (CONFIRMED if run is None else IN_SCRIPT).get(by or "")
    return words if words is None or run is None else words.replace("the script", f"the {run}")


def _rows(origin: Origin, bisect: Bisect, run: str | None = None) -> list[Row]:
    there = [shown_number(value) for value in origin.operands if value is not None]
    limit = number(bisect.limit if origin.limit is None else origin.limit)
    token = "" if origin.token is None else f" {cell(origin.token)}"
    named = {
        "module": cell(named_module(origin)) + (f" ({text(origin.module_class)})" if origin.module_class else ""),
        "module call (from 0)": cell(origin.call_index) if (origin.call_index or 0) > 0 else None,
        "operator": _code(origin.op),
        "source": _code(origin.source),
        "made so at": _code(origin.cause_source),
        "phase": cell(origin.phase) if origin.phase not in (None, "forward") else None,
        "forward operator": _code(origin.forward_op),
        "forward source": _code(origin.forward_source),
        "first bad gradient": _code(origin.gradient),
        "tokens generated before": None if origin.generate_step is None else str(origin.generate_step),
        "step of the training (from 0)": None if origin.train_step is None else str(origin.train_step),
        "micro batch of the step (from 0)": None if origin.micro_batch is None else str(origin.micro_batch),
        "layer": cell(origin.layer) if origin.layer else None,
        "mechanism": cell(_mechanism(origin)),
        "dtype": _code(origin_dtype(origin, bisect)),
        "tensor": _code(origin.tensor),
        "decided by": _held(origin.held) if origin.held else None,
        "tensor in the file": _code(origin.stored_as),
        "tensor index": _code(origin.tensor_index and list(origin.tensor_index)),
        "came in": _came_in(origin.came_in) if origin.came_in else None,
        "place": _place(origin.place) if origin.place else None,
        "token": None if origin.token_index is None or _is_place(origin) else f"{origin.token_index}{token}",
        "head": None if origin.head_index is None else str(origin.head_index),
        "channel": None if origin.channel_index is None else str(origin.channel_index),
        "reference value": _reference(origin),
        "value": shown_number(origin.value) if origin.ratio is not None else None,
        "of what rounding allows": _times(origin.ratio) if origin.ratio is not None else None,
        "output element": text(list(origin.element)) if origin.element else None,
        "dtype limit": shown_number(limit) if limit is not None and mechanism(origin.mechanism).beyond_limit else None,
        **{f"input {index}": _figures(one) for index, one in enumerate(origin.inputs)},
        "inputs at that element": ", ".join(there) if len(there) == len(origin.operands) else None,
        "output": _figures(origin.output) if origin.output else None,
        "confirmed by": _confirmed(origin.confirmed_by, run),
        "note": text(origin.note) if origin.note else None,
    }
    return [[name, value] for name, value in named.items() if value]


def _mechanism(origin: Origin) -> str:
    """Without a dtype, which has a row of its own."""
    words = mechanism(origin.mechanism).words
    return words if origin.mechanism != "unknown" else named_mechanism(origin, None)


def _times(ratio: Number) -> str:
    """How far beyond rounding a finite number is."""
    far = number(ratio)
    return (
        "a number and NaN cannot be told apart by rounding" if far == float("inf") else f"{shown_number(ratio)} times"
    )


def _is_place(origin: Origin) -> bool:
    """Whether the number of the token is a place in an input that is no text."""
    return origin.place is not None and not origin.place.kind.endswith("token")


def _held(held: Held) -> str:
    where, value, instead = _code(held.tensor), shown_number(held.value), shown_number(held.instead)
    return f"{where} at {text(list(held.index))}, which holds {value}; finite with {instead} in its place"


def _place(place: InputPlace) -> str:
    """The place, of how many, in which input."""
    size = " x ".join(map(str, place.shape))
    return f"{text(place_words(place))}, of {size} in {cell(place.of)}" if place.of else text(place_words(place))


def _came_in(came: CameIn) -> str:
    """How much of a tensor was bad before anything ran, and where."""
    parts = [f"{came.bad:,} of {many(came.total, 'value')} of the {came.kind} are NaN or Inf"]
    parts += [f"rows {', '.join(map(str, came.examples))}"] if came.examples and came.bad < came.total else []
    parts += [f"last dimension {', '.join(map(str, came.features))}"] if came.features and came.bad < came.total else []
    return text("; ".join(parts))


def _code(value: object) -> str | None:
    return None if value is None else cell(value)


def _reference(origin: Origin) -> str | None:
    """What other arithmetic has there, and of what."""
    if number(origin.reference_value) is None:
        return None
    reference = origin.reference
    by = [part for part in (reference.dtype, SCOPES.get(reference.scope or "")) if part] if reference else []
    return shown_number(origin.reference_value) + (f" ({text(', '.join(by))})" if by else "")


def _figures(one: Figures) -> str:
    """Figures of a tensor in one cell."""
    head = [str(part) for part in (one.dtype, one.shape and list(one.shape)) if part is not None]
    parts = [text(" ".join(head))] if head else []
    counts = {"NaN": one.nan or None, "+Inf": one.posinf or None, "-Inf": one.neginf or None}
    numbers = {"min": one.min, "max": one.max, **counts}
    return ", ".join(parts + [f"{name} {shown_number(value)}" for name, value in numbers.items() if value is not None])


def _why_not(answer: Answer) -> str | None:
    """Why there is no origin although a pass of the model is bad."""
    passes = (answer.forward, answer.generate, answer.train)
    if answer.origin or not any(one is not None and one.verdict is Outcome.BAD for one in passes):
        return None
    return text(answer.bisect.reason) if answer.bisect else "The bisect step was not run."


SECTION = Section("Origin", fill, TEMPLATE, rank=1)
