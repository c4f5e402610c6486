"""Which known faults a run looks like, what the further test of each says, and dtypes that models' makers rule out."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from repro.core.answer import Answer, KnownFault
from repro.core.encoding import to_json
from repro.core.mechanisms import mechanism
from repro.core.payloads import Section
from repro.core.records import Kind, Outcome
from repro.core.sentences import listed
from repro.diagnosis.known.entries import Documented, Fault, FurtherTest, OtherCell, catalogue, documented
from repro.diagnosis.known.fingerprint import facts, holds, matches

WIDE = frozenset({"dtype=float32", "dtype=bfloat16"})
"""Ablations with a dtype of float32's range."""
AGREES, DISAGREES, NOT_RUN = "agrees", "disagrees", "not run"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A dtype that the model's own documentation rules out; ``says`` is what it says, in our words."""

    id: str
    dtype: str
    source: str
    says: str
    instead: str


def looks_like(answer: Answer, known: tuple[Fault, ...] | None = None) -> tuple[KnownFault, ...]:
    """The known faults that a run looks like: first those whose further test agrees, last those that it rules out.

    Args:
        answer: Of the run.
        known: The catalogue, by default the shipped one with the user's own.
    """
    every = catalogue().faults if known is None else known
    seen = facts(answer)
    by_id = {fault.id: fault for fault in every}
    found = [_match(fault, answer, by_id) for fault in every if holds(fault.fingerprint.conditions, seen)]
    order = {AGREES: 0, NOT_RUN: 1, DISAGREES: 2}
    return tuple(sorted(found, key=lambda match: (order[match.result], -len(by_id[match.id].fingerprint.conditions))))


def excluded(answer: Answer, known: tuple[Documented, ...] | None = None) -> Exclusion | None:
    """What the model's own documentation says against this dtype, where the dtype is the cause of the NaN or Inf.

    The dtype is the cause where a wider one is good, or, with none tried, where a number is beyond the dtype's limit.

    Args:
        answer: Of the run.
        known: What is documented, by default the shipped entries.
    """
    if answer.verdict is not Outcome.BAD or answer.kind is not Kind.NONFINITE:
        return None
    wide = [one.verdict for one in answer.ablations if one.name in WIDE and one.verdict is not Outcome.SKIP]
    too_large = answer.origin is not None and mechanism(answer.origin.mechanism).beyond_limit
    if Outcome.GOOD not in wide and (wide or not too_large):
        return None
    seen = facts(answer)
    for one in documented() if known is None else known:
        dtype = next((dtype for dtype in one.dtype if dtype in seen["dtype"]), None)
        # A local copy is recognised by the last part of its path, as it is on the Hub.
        name = any(matches(pattern, value) for pattern in one.model for value in _spellings(seen["model"]))
        kind = any(matches(pattern, value) for pattern in one.model_type for value in seen["model_type"])
        if dtype is not None and (name or kind):
            return Exclusion(one.id, dtype, one.source, one.says, one.instead)
    return None


def _spellings(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        parts = Path(name).parts
        yield name
        yield "/".join(parts[-2:])


def _match(fault: Fault, answer: Answer, by_id: Mapping[str, Fault]) -> KnownFault:
    test = fault.test
    result, seen = _ask(test, answer)
    title = fault.title or fault.what
    neighbours = tuple(_named(by_id[name]) for name in test.neighbours if name in by_id)
    known_as = "Looks like" if fault.outcome == "bug" else "Known, and not a bug"
    known_as = "Ruled out" if result == DISAGREES else known_as
    said = "not run" if result == NOT_RUN else f"{result} ({seen})"
    tells = f"What tells it from {listed(neighbours)}" if neighbours else "What tells that it is this one"
    told = f"{known_as}: {_named(fault)}, {title.rstrip('.')}. {tells}: {test.question}"
    command = None if test.command is None else test.command.replace("MODEL", shlex.quote(answer.model.id))
    return KnownFault(
        id=fault.id, issue=_named(fault), also=fault.issues[1:], url=next(iter(fault.links), ""), title=title,
        what=fault.what, outcome=fault.outcome, question=test.question, neighbours=neighbours, result=result, seen=seen,
        command=test.by_hand or command, excluded=result == DISAGREES,
        sentence=f"{told}: {said}.",
    )  # fmt: skip


def _named(fault: Fault) -> str:
    """A fault by its thread; an entry of the user's own may have none."""
    return fault.issues[0] if fault.issues else fault.id


def _ask(test: FurtherTest, answer: Answer) -> tuple[str, str | None]:
    """What the run itself says to the test, and what was seen; "not run" where it does not say."""
    if test.key is not None:
        return _ask_key(test.key, test.is_ or "", answer)
    answers = {one.name: one.verdict for one in answer.ablations if one.name == test.ablation}
    if test.cell is not None:
        answers = dict(_cells(test.cell, answer))
    told = {name: verdict.value for name, verdict in answers.items() if verdict is not Outcome.SKIP}
    if not told:
        return NOT_RUN, None
    seen = ", ".join(f"{name} is {verdict}" for name, verdict in told.items())
    return (AGREES if set(told.values()) == {test.verdict} else DISAGREES), seen


def _ask_key(key: str, wanted: str, answer: Answer) -> tuple[str, str | None]:
    """A value of verdict.json; a step that could not tell has left its values empty, and they say nothing."""
    step, *path = key.split(".")
    section = getattr(answer, step, None)
    if not isinstance(section, Section) or section.verdict is Outcome.SKIP:
        return NOT_RUN, None
    value = to_json(section)
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return NOT_RUN, None
        value = value[part]
    items = list(value) if isinstance(value, list) else [] if value is None else [value]
    agrees = not items if wanted == "empty" else any(matches(wanted, str(item)) for item in items)
    return (AGREES if agrees else DISAGREES), f"{key} is {', '.join(map(str, items[:3])) or 'empty'}"


def _cells(other: OtherCell, answer: Answer) -> Iterator[tuple[str, Outcome]]:
    """Cells of a table and releases of a search that the test's environment includes."""
    keys = OtherCell.__struct_fields__
    cells, probes = answer.cells or (), () if answer.versions is None else answer.versions.probes
    rows = [(row.label or row.id, {key: getattr(row, key) for key in keys}, row.verdict) for row in cells]
    rows += [(" ".join(f"{k} {v}" for k, v in one.pins.items()), dict(one.pins), one.verdict) for one in probes]
    for name, row, verdict in rows:
        known = {key: (row[key],) for key in keys if row.get(key) is not None}
        if holds(other.conditions, known):
            yield name, verdict
