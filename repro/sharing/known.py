"""The catalogue of known faults for a person: searched, shown, and added to from a run.

An entry of the user's own is written from a run's answer, masked as everything that is handed on: it may become a part
of the catalogue that all others get.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.core.answer import Answer
from repro.core.encoding import to_json
from repro.core.errors import RecordError, UsageError
from repro.core.mechanisms import mechanism
from repro.core.records import Outcome
from repro.diagnosis.known import catalogue, looks_like
from repro.diagnosis.known.entries import ISSUE, Catalogue, Fault, one, own_folder
from repro.diagnosis.known.fingerprint import facts, holds, in_range, matches, typical
from repro.report.privacy.machine import private_words
from repro.report.privacy.mask import Mask
from repro.sharing.forms.folder import Run

__all__ = [
    "Catalogue", "Checked", "Fault", "Wanted", "as_json", "catalogue", "check", "destination", "find", "made_from",
    "name_for", "own_folder", "search",
]  # fmt: skip
TAKEN = (
    "kind", "mechanism", "op", "module_class", "model_class", "model_type", "dtype", "attn", "phase", "forward_op",
    "layer", "library", "decided_by", "tensor",
)  # fmt: skip
"""Conditions that a new entry takes from its run, in this order."""
ORDINARY = {"phase": "forward"}
"""What is said of so many runs that it is no condition."""
NOTHING = "unknown"
"""The mechanism that no condition can be made of."""
TO_FILL = "FILL IN"
"""What stands where only a person can say it."""
FILL = "say here what a person has to run, and what comes of it if the fault is this one"
LONGEST = 60
"""Characters of the name of a new entry."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched: all of the words, and conditions that an entry must name."""

    words: tuple[str, ...] = ()
    package: str | None = None
    device: str | None = None
    mechanism: str | None = None


def search(known: Catalogue, wanted: Wanted) -> tuple[Fault, ...]:
    """The entries that have every word, and name what is asked of them."""
    return tuple(fault for fault in known.faults if _is_wanted(fault, wanted))


def _is_wanted(fault: Fault, wanted: Wanted) -> bool:
    text = json.dumps(to_json(fault), ensure_ascii=False).lower()
    return (
        all(word.lower() in text for word in wanted.words)
        and (wanted.package is None or fault.project.lower() == wanted.package.lower())
        and _names(fault.fingerprint.device, wanted.device)
        and _names(fault.fingerprint.mechanism, wanted.mechanism)
    )


def _names(patterns: Sequence[str] | None, value: str | None) -> bool:
    return value is None or any(matches(pattern, value) for pattern in patterns or ())


def find(known: Catalogue, name: str) -> Fault:
    """The entry of this name, or of this issue ("pytorch/pytorch#103749", "pytorch#103749").

    Raises:
        UsageError: there is none; the message names those that are spelt alike.
    """
    for fault in known.faults:
        if name == fault.id or any(name in (issue, issue.partition("/")[2]) for issue in fault.issues):
            return fault
    close = difflib.get_close_matches(name, known.by_id, n=3, cutoff=0.7)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise UsageError(f"no known fault is called {name!r}.{hint} List them with: repro known")


def name_for(run: Run, issue: str | None) -> str:
    """The name of a new entry: of the issue's project and number, else of the model's class, mechanism and operator."""
    if issue is not None:
        repository, _, number = issue.partition("#")
        return f"{repository.partition('/')[2]}-{number}"
    origin = run.answer.origin
    parts = [run.answer.model.class_, origin and origin.mechanism, origin and (origin.op or "").split(".")[1:2]]
    words = [word for part in parts for word in (part if isinstance(part, list) else [part]) if word]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:LONGEST] or "own"


def made_from(run: Run, issue: str | None, known: Catalogue) -> str:
    """The text of a new entry: what the run has of it, and comments that say what a person has to fill in.

    Raises:
        UsageError: the run has no fault, or no place where it begins; or the issue is none.
    """
    answer = run.answer
    if answer.verdict is not Outcome.BAD:
        raise UsageError(f"{run.folder} is {answer.verdict.value}, so it shows no fault: {answer.reason}")
    if answer.origin is None:
        raise UsageError(
            f"{run.folder} names no origin, and a fault is recognised by that. Find it first: repro bisect MODEL"
        )
    if issue is not None and not ISSUE.fullmatch(issue):
        raise UsageError(f"--issue must be OWNER/NAME#NUMBER, such as pytorch/pytorch#103749, got {issue!r}.")
    mask = Mask.of(answer, private_words())
    neighbours = [match.id for match in looks_like(answer, known.faults)]
    lines = [
        "# Written from a run. Read every line, and take out what belongs to this run alone and not to the fault.",
        f"issues = {_toml([issue] if issue else [])}",
        *(() if issue else ("# issues: the threads about it, such as \"pytorch/pytorch#103749\".",)),
        "# title: the thread's own title, where there is one.",
        f"what = {_toml(_what(answer))}",
        "",
        "[fingerprint]",
        *(f"{key} = {_toml(value)}" for key, value in _conditions(answer).items()),
        "# The versions are those of this run: widen them to what you have seen, such as \">=2.3,<2.5\".",
        *(f"{key} = {_toml(value)}" for key, value in _versions(answer).items()),
        "",
        "[test]",
        "# What tells this fault from its neighbours, which are the entries that the run looks like too.",
        f"neighbours = {_toml(neighbours)}",
        *_test(answer),
    ]  # fmt: skip
    return mask.text("\n".join(lines)) + "\n"


def _what(answer: Answer) -> str:
    """The place in words, without names of the user's own."""
    origin = answer.origin
    assert origin is not None
    where = f" of {origin.module_class}" if origin.module_class else ""
    behind = f", in the backward of {origin.forward_op}" if origin.forward_op else ""
    words = mechanism(origin.mechanism).words
    return f"{words[:1].upper()}{words[1:]} in {origin.op or 'the first operator'}{where}{behind}."


def _conditions(answer: Answer) -> dict[str, list[str]]:
    seen = facts(answer)
    made = {key: list(seen[key]) for key in TAKEN if any(seen[key]) and ORDINARY.get(key) not in seen[key]}
    if made.get("mechanism") == [NOTHING]:
        del made["mechanism"]
    made |= {"device": [f"{device.partition(':')[0]}*" for device in seen["device"]]} if seen["device"] else {}
    return made


def _versions(answer: Answer) -> dict[str, str]:
    """The release of each package that took part; a script need not import Transformers."""
    packages = ("torch",) if answer.script is not None else ("torch", "transformers")
    named = {package: getattr(answer.cell, package) for package in packages}
    made = {package: f"=={version.partition('+')[0]}" for package, version in named.items() if version}
    return {package: range_ for package, range_ in made.items() if in_range(range_, named[package])}


def _test(answer: Answer) -> Iterator[str]:
    if not answer.workarounds:
        yield f"question = {_toml(f'{TO_FILL}: what is seen if the fault is this one, and not if it is a neighbour')}"
        yield f"by_hand = {_toml(FILL)}"
        return
    yield f"question = {_toml(f'with {answer.workarounds[0]} it is good')}"
    yield f"ablation = {_toml(answer.workarounds[0])}"
    yield f"verdict = {_toml('good')}"
    yield f"command = {_toml('repro run MODEL')}"


def _toml(value: str | Sequence[str]) -> str:
    """A string or a list of them; JSON writes both as TOML reads them, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def destination(out: Path | None, name: str) -> Path:
    """Where a new entry is written: a file that is named, or one in the folder of the user's own."""
    return own_folder() / f"{name}.toml" if out is None else out


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """Whether a file is an entry, whether it fits its run, which entries' runs it would be taken for as well, and which
    entries the run looks like besides.
    """

    fits: bool
    too_wide_for: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing is left to do."""
        return self.fits and not self.too_wide_for and self.problem is None


def check(path: Path, answer: Answer, known: Catalogue) -> Checked:
    """Hold the entry in a file against the run that it was made from, and against every other entry.

    An entry is too wide for another one if a run that says just what that one asks would be taken for it.
    """
    try:
        fault = one(path)
    except RecordError as error:
        return Checked(fits=False, problem=str(error))
    others = [other for other in known.faults if other.id != fault.id]
    conditions = fault.fingerprint.conditions
    return Checked(
        fits=holds(conditions, facts(answer)),
        too_wide_for=tuple(
            other.id
            for other in others
            if other.id not in fault.test.neighbours and holds(conditions, typical(other.fingerprint.conditions))
        ),
        also=tuple(match.id for match in looks_like(answer, tuple(others)) if match.id not in fault.test.neighbours),
        problem=_unfinished(path, fault, known),
    )


def _unfinished(path: Path, fault: Fault, known: Catalogue) -> str | None:
    """What is left to fill in or to mend."""
    if TO_FILL in fault.test.question or fault.test.by_hand == FILL:
        return f"{path}: [test] is not filled in yet: say what tells this fault from others."
    unknown = [name for name in fault.test.neighbours if name not in known.by_id]
    return f"{path}: 'test.neighbours' names {unknown[0]!r}, and there is no such entry." if unknown else None


def as_json(fault: Fault, known: Catalogue) -> dict[str, Any]:
    """An entry as data, with what its file does not say: its name, its links, and whether it is the user's own."""
    said: Mapping[str, Any] = to_json(fault)
    conditions = {key: value for key, value in said["fingerprint"].items() if value is not None}
    test = {key: value for key, value in said["test"].items() if value is not None}
    return {
        **said, "fingerprint": conditions, "test": test, "links": list(fault.links), "own": fault.id in known.own,
    }  # fmt: skip
