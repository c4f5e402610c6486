"""The sentences of a script's docstring: what it shows, whether the operator is correct, and where it was found."""

from dataclasses import dataclass

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import BY_DEFINITION, NEVER, is_in_range, mechanism
from repro.core.payloads import Expected
from repro.core.sentences import element_words, plain
from repro.reproducer.frame import model_name


@dataclass(frozen=True, slots=True)
class Shown:
    """What a script shows.

    Args:
        what: The operator as it is called in the script.
        mechanism: In the words of verdict.json.
        seen: "nan", "inf" or "-inf".
        dtype: Of the bad value.
        expected: What wider arithmetic has there; None where it is not known.
        wide: The dtype of that.
        limit: The largest finite number of ``dtype``; None where it is not known.
        attention: Whether the operator is a whole attention, which takes the mask and so has to handle a masked row.
        sum_of: Two numbers and a sign, where the operator does nothing else: "55008 + 13376".
        swallows: Whether an overflow inside ends as a finite number, by operators that are right each.
    """

    what: str
    mechanism: str
    seen: str
    dtype: str
    expected: float | None = None
    wide: str = "float64"
    limit: float | None = None
    attention: bool = False
    sum_of: str | None = None
    swallows: bool = False


def happened(shown: Shown) -> str:
    """The first sentence of a script: what can be seen in it."""
    row = mechanism(shown.mechanism)
    gives = f"{shown.what[0].upper()}{shown.what[1:]}" if shown.swallows else shown.what
    gives += f" gives {shown.seen}"
    if shown.swallows and shown.expected is not None and shown.limit is not None:
        return (
            f"{gives} in {shown.dtype} where {shown.wide} gives {plain(shown.expected, 12)} from the same inputs: a "
            f"number inside exceeds {plain(shown.limit, 12)}, the largest {shown.dtype} number, and what is made of it "
            "is finite."
        )
    if row.beyond_limit and shown.limit is not None:
        return _exceeded(shown, gives, shown.limit)
    if row.correct == BY_DEFINITION and shown.attention:
        return f"{gives} for a query whose keys are all masked out."
    if shown.mechanism == "swallowed_nan":
        return f"{gives} where {shown.wide} gives nan from the same inputs, of which one is nan."
    if row.correct == NEVER and row.script and shown.expected is not None:
        return f"{gives} where {shown.wide} gives {plain(shown.expected, 12)} from the same finite inputs."
    return f"{gives}: {row.script}." if row.script else f"{gives} from finite inputs."


def _exceeded(shown: Shown, gives: str, limit: float) -> str:
    largest = f"{plain(limit, 12)}, the largest {shown.dtype} number"
    value = None if shown.expected is None else plain(shown.expected, 12)
    if shown.expected is not None and is_in_range(shown.expected, limit):
        same = f"{gives} in {shown.dtype} where {shown.wide} gives {value} from the same inputs"
        return f"{same}: an intermediate result exceeds {largest}."
    if shown.sum_of is not None:
        return f"{shown.sum_of} exceeds {largest}, so {gives}."
    result = "the result" if value is None else f"the result, {value} in {shown.wide},"
    return f"{gives}: {result} exceeds {largest}."


def is_correct(shown: Shown) -> bool:
    """Whether the operator has no other answer to its inputs: then its makers are not to blame."""
    row = mechanism(shown.mechanism)
    if row.correct == BY_DEFINITION and shown.attention:
        return False
    return row.operator_is_correct(shown.expected, shown.limit)


def correctness(shown: Shown) -> str:
    """That the operator is correct, where it is; empty where it is not, or where that is not known."""
    if shown.swallows:
        return "This is not a PyTorch bug. Each operator is correct for what it is given."
    if not is_correct(shown):
        return ""
    cause = mechanism(shown.mechanism).cause.format(dtype=shown.dtype)
    return f"This is not a PyTorch bug. The operator is correct for these inputs: {cause}."


def found_in(answer: Answer, with_origin: bool = True) -> str:
    """Model, module, source line and element, as far as they are known."""
    model, origin = answer.model, answer.origin if with_origin else None
    names = [model.class_, model_name(answer)] if model.class_ else [model_name(answer)]
    weights = f" with random weights (seed {model.seed})" if model.weights == "random" else ""
    where = f"{names[0]} ({names[1]})" if len(names) > 1 else names[0]
    if origin is None:
        return f"Found in {where}{weights}."
    if answer.script is not None and not origin.module and (origin.source or "").startswith(f"{where}:"):
        return f"Found in {origin.source}."  # a line of the script itself
    parts = [part for part in (origin.module, origin.source) if part]
    parts += filter(None, [element_words(origin)])
    return f"Found in {where}{weights}{': ' if parts else ''}{', '.join(parts)}."


def generated(answer: Answer) -> str:
    """What wrote the script."""
    return f"Generated by repro-kit {answer.tool}."


def value_of(expected: Expected | None) -> tuple[float | None, str]:
    """A reference value of a reduction and its dtype."""
    return (None, "float64") if expected is None else (number(expected.value), expected.dtype)


def seen_and_right(shown: Shown, reference: bool | None) -> tuple[str, str]:
    """What a script prints, and why its assertion fails; for f-strings in which ``seen`` and ``expected`` are values.

    Args:
        shown: What it shows.
        reference: Whether ``expected`` is a finite number; None where the script has no reference.
    """
    seen = f"seen {{seen}} in {shown.dtype}"
    if reference is None:
        return f"{seen}, right is a finite number: the inputs are finite", f"{shown.what} gives {{seen}}"
    if not reference:
        why = mechanism(shown.mechanism).script or "the inputs leave no other result"
        return f"{seen} and {{expected}} in {shown.wide}: {why}", f"{shown.what} has no finite result for these inputs"
    message = f"{shown.what} gives {{seen}}, {shown.wide} gives {{expected}}"
    return f"{seen}, right is {{expected}} ({shown.wide} of the same inputs)", message
