"""The answer in short: what, where, why, what to do. Each only as far as the run has the evidence for it."""

import posixpath
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import mechanism
from repro.core.payloads import Finding, Origin, Section, Tensor
from repro.core.records import Kind, Outcome
from repro.core.sentences import (
    element_words,
    first_bad_in,
    listed,
    many,
    named_mechanism,
    named_module,
    origin_dtype,
    plain,
    sentence,
    visible,
)
from repro.core.sweep_answers import CellRow
from repro.report.cells import cells_of, statements
from repro.report.markdown import DIGITS
from repro.report.opening import full_stop, headline

TO_DO = "What to do"
NAMED = 4
"""How many cells, tensors or places are named; the sections below have all."""
FORMS = {"pytorch": "PyTorch", "transformers": "Transformers"}
"""Owners that have a form which ``repro report`` fills."""


@dataclass(frozen=True, slots=True)
class Said:
    """A line: words, code, words. Several pieces of code are a list."""

    before: str = ""
    code: str | Sequence[str] = ""
    after: str = ""

    @property
    def codes(self) -> Sequence[str]:
        """The pieces of code."""
        return tuple(filter(None, [self.code] if isinstance(self.code, str) else self.code))

    def plain(self) -> str:
        """The line as text."""
        return " ".join(filter(None, (self.before, listed(self.codes), self.after)))


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the lines that answer it."""

    asked: str
    lines: Sequence[Said]

    @property
    def is_to_do(self) -> bool:
        """Whether it asks what to do."""
        return self.asked == TO_DO


def glance(answer: Answer, folder: str = "") -> list[Question]:
    """The four questions, those without an answer left out.

    Args:
        answer: Redacted where the lines are handed on.
        folder: Of the run, as the reader's shell takes it from where the reader is; empty for who has the files alone.
    """
    found = {
        "What": _what(answer),
        "Where": _where(answer),
        "Why": _why(answer),
        TO_DO: _to_do(answer, folder),
    }
    asked = [(question, [line for line in map(_shown, lines) if line.plain()]) for question, lines in found.items()]
    return [Question(question, lines) for question, lines in asked if lines]


def _shown(line: Said) -> Said:
    return Said(_clean(line.before), tuple(map(_clean, line.codes)), _clean(line.after))


def _line(text: str) -> Said:
    """A sentence; what stands between back-quotes in it is code."""
    before, *others = full_stop(sentence(text)).split("`")
    return Said(before, others[0], others[1]) if len(others) == 2 else Said("`".join([before, *others]))


def _clean(text: str) -> str:
    return " ".join(visible(text.replace("\n", " ")).split())


# --- what ------------------------------------------------------------------------------------------------------------


def _what(answer: Answer) -> Iterator[Said]:
    origin, forward = answer.origin, answer.forward
    if origin is None or not _is_the_origins(answer):
        yield Said(sentence(headline(answer)))
        return
    what = named_mechanism(origin, answer.bisect)
    what = sentence(what) if what == mechanism(origin.mechanism).words else what  # a dtype has its own spelling
    yield Said(full_stop(f"{what}{_numbers(answer)}"))
    if forward is not None and forward.verdict is Outcome.BAD:
        yield Said(full_stop(sentence(forward.reason)))
    elif answer.script is not None:
        yield Said("The script:", "", full_stop(answer.script.reason))


def _is_the_origins(answer: Answer) -> bool:
    """Whether the fault of the whole answer is the one that was born at the origin."""
    nonfinite = answer.kind is Kind.NONFINITE or answer.script is not None
    return answer.verdict is Outcome.BAD and nonfinite and not _is_of_many(answer)


def _numbers(answer: Answer) -> str:
    """The value, what other arithmetic has in its place, and the limit where that is what was passed."""
    origin = answer.origin
    assert origin is not None  # the caller has seen to it
    value, reference, limit = map(number, (origin.value, origin.reference_value, origin.limit))
    found = [] if value is None else [f"the value is {_named_number(value)}"]
    if reference is not None:
        dtype = ((origin.reference and origin.reference.dtype) or "other arithmetic").removeprefix("torch.")
        found.append(f"{dtype} has {_named_number(reference)}")
    if limit is not None and mechanism(origin.mechanism).beyond_limit:
        found.append(f"the largest {origin_dtype(origin, answer.bisect) or 'number'} is {plain(limit, DIGITS)}")
    return f": {', '.join(found)}" if found else ""


def _named_number(value: float) -> str:
    return plain(value, DIGITS).replace("nan", "NaN").replace("inf", "Inf")


def _is_of_many(answer: Answer) -> bool:
    """Whether the answer is of many runs, of which the origin is one's."""
    return bool(cells_of(answer) or answer.versions or answer.comparison or answer.prompts)


def shown_run(answer: Answer) -> str | None:
    """Of many runs, the one that the origin and the layers are of."""
    return answer.comparison.shown_model if answer.comparison is not None else answer.shown_cell


# --- where -----------------------------------------------------------------------------------------------------------


def _where(answer: Answer) -> Iterator[Said]:
    if answer.verdict is Outcome.GOOD:
        return
    if answer.verdict is Outcome.SKIP:
        silent = next((step for step in answer.steps if step.verdict is Outcome.SKIP), None)
        if silent is not None:
            yield Said("No verdict from step", silent.step)
        return
    if _is_of_many(answer):
        yield from _among(answer)
    if not _is_of_many(answer) and (answer.origin is None or not _is_the_origins(answer)):
        yield from _of_files(answer)
    if answer.origin is not None:
        yield Said("In the run of", shown_run(answer) or "") if shown_run(answer) else Said()
        yield from _place(answer.origin)


def _among(answer: Answer) -> Iterator[Said]:
    """Which of many runs are bad."""
    cells = cells_of(answer)
    bad = [cell.label or cell.id for cell in cells if cell.verdict is Outcome.BAD]
    yield _few(f"Bad in {len(bad)} of {many(len(cells), 'cell')}:", bad)
    versions = answer.versions
    if versions is not None and versions.last_good and versions.first_bad:
        yield Said(f"{versions.package}: good at {versions.last_good}, bad at {versions.first_bad}")
    if answer.comparison is not None:
        yield _few("Bad:", [one.name for one in answer.comparison.models if one.verdict is Outcome.BAD])
    for place in (answer.prompts.places if answer.prompts else ())[:NAMED]:
        token = "" if place.token is None else f" at token {place.token!r}"
        yield Said("First bad in", first_bad_in(place), f"{token.strip()} ({many(place.examples, 'example')})")


def _place(origin: Origin) -> Iterator[Said]:
    outside = not origin.module
    class_ = f"({origin.module_class})" if origin.module_class else ""
    yield Said(sentence(named_module(origin))) if outside else Said("", named_module(origin), class_)
    if origin.forward_op:
        yield Said("the backward of", origin.forward_op, f"at {origin.forward_source}" if origin.forward_source else "")
    elif origin.op:
        yield Said("", origin.op, f"at {origin.source}" if origin.source else "")
    if origin.cause_source:
        yield Said("made so at", origin.cause_source)
    if origin.tensor:
        index = f"at {list(origin.tensor_index)}" if origin.tensor_index else ""
        yield Said("tensor", origin.tensor, index)
    if element_words(origin):
        yield Said(element_words(origin))
    if origin.gradient:
        yield Said("the first bad gradient is that of", origin.gradient)


def _of_files(answer: Answer) -> Iterator[Said]:
    """What the files, the weights or the loading show, where no pass of the model told more."""
    tensors = answer.weights.findings if answer.weights else ()
    for tensor in tensors[:NAMED]:
        yield Said("", tensor.tensor, _counts(tensor))
    if len(tensors) > NAMED:
        yield Said(f"and {many(len(tensors) - NAMED, 'more tensor')}")
    if tensors:
        return
    found = [item for part in (answer.files, answer.load) if part is not None for item in part.findings]
    bad = [item for item in found if item.severity == "bad"]
    yield from (_finding(item) for item in bad[:NAMED])
    if not bad and any(one.verdict is Outcome.BAD for one in _passes(answer)):
        yield Said(f"Not known. {full_stop(sentence(answer.bisect.reason))}" if answer.bisect else "Not looked for.")


def _passes(answer: Answer) -> Sequence[Section]:
    every: Sequence[Section | None] = (answer.forward, answer.generate, answer.train, answer.script)
    return [one for one in every if one is not None]


def _counts(tensor: Tensor) -> str:
    counts = {"NaN": tensor.nan, "+Inf": tensor.posinf, "-Inf": tensor.neginf}
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    first = f", first at {list(tensor.first_index)}" if tensor.first_index else ""
    return f"{said}{first}{f', in {tensor.file}' if tensor.file else ''}"


def _finding(item: Finding) -> Said:
    return Said("", item.file or "", full_stop(item.problem))


def _few(before: str, names: Sequence[str]) -> Said:
    """The first few of the names; nothing without any."""
    more = f"... and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return Said(before, names[:NAMED], more) if names else Said()


# --- why -------------------------------------------------------------------------------------------------------------


def _why(answer: Answer) -> Iterator[Said]:
    if answer.verdict is not Outcome.BAD:
        return
    if cells_of(answer):
        yield from (_line(line) for line in statements(answer)[:NAMED])
    versions = answer.versions
    if versions is not None:
        said = (versions.changes and versions.changes.sentence) or versions.attribution
        yield _line(said) if said else Said()
    if answer.prompts is not None and answer.prompts.why is not None:
        yield _line(answer.prompts.why.sentence)
    if answer.comparison is not None:
        yield from (_line(line) for line in answer.comparison.threshold.sentences[:NAMED])
    origin = answer.origin
    operands = [number(value) for value in origin.operands] if origin else []
    if operands and None not in operands:
        yield Said(f"Its inputs there: {listed([_named_number(value) for value in operands if value is not None])}.")
    if answer.owner is not None:
        yield _line(answer.owner.reason)


# --- what to do ------------------------------------------------------------------------------------------------------


def _good_in_all(cells: Sequence[CellRow]) -> list[str]:
    """The ablations that are good in each of the cells."""
    good = [[item.name for item in cell.ablations if item.verdict is Outcome.GOOD] for cell in cells]
    return [name for name in good[0] if all(name in names for names in good)] if good else []


def _to_do(answer: Answer, folder: str) -> Iterator[Said]:
    if answer.verdict is Outcome.SKIP:
        yield Said("When that is mended, run again:", answer.command)
    if answer.verdict is not Outcome.BAD:
        return
    rows = [cell for cell in cells_of(answer) if cell.verdict is Outcome.BAD]
    yield _few("Good in each bad cell with", _good_in_all(rows))
    if answer.workarounds and not rows and answer.comparison is None:
        was = "this was run" if len(answer.workarounds) == 1 else "each was run"
        yield Said("Good with", answer.workarounds, f"({was}).")
    for keep in (answer.keep, answer.keep_bfloat16):
        if keep is not None and keep.words:
            yield Said(f"Sound with these modules in {keep.kept_in}:", keep.words, "(this was run).")
    if answer.owner is not None and answer.owner.advice:
        yield _line(answer.owner.advice)
    first = answer.reproducer
    if first is not None and first.path is not None:
        how = f"verified {many(first.runs, 'time')}" if first.verified else "not verified"
        path = shlex.quote(posixpath.join(folder, first.path))
        yield Said("Run it:", f"python {path}", f"(needs {listed(first.needs) or 'only Python'}; {how}).")
    for known in answer.looks_like[:1]:
        yield _line(known.sentence)
    project = FORMS.get((answer.owner and answer.owner.project) or "")
    if project is not None:
        yield Said(f"Report it to {project}:", f"repro report {shlex.quote(folder) if folder else 'RUN'}")
