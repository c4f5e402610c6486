"""Which known faults a run looks like, what the further test of each says, and what the model's makers rule out."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.sentences import listed
from repro.diagnosis.known.entries import CELL_KEYS, Documented, Fault, FurtherTest, documented, faults
from repro.diagnosis.known.fingerprint import RANGES, Conditions, facts, holds, matches

WIDE = frozenset({"dtype=float32", "dtype=bfloat16"})
"""Changes to a dtype of float32's range."""
AGREES, DISAGREES, NOT_RUN = "agrees", "disagrees", "not run"


@dataclass(frozen=True, slots=True)
class Match:
    """A known fault whose fingerprint fits a run, and what the further test says.

    ``result`` is "agrees", "disagrees" or "not run"; ``excluded``: it disagrees, so this fault is not the one.
    ``command`` gives the test's answer; it is a sentence where only a person can.
    """

    id: str
    issue: str
    also: tuple[str, ...]
    url: str
    title: str
    what: str
    outcome: str
    question: str
    neighbours: tuple[str, ...]
    result: str
    seen: str | None
    command: str | None
    excluded: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A dtype that the model's own documentation rules out; ``says`` is the documentation's word, in ours."""

    id: str
    dtype: str
    source: str
    says: str
    instead: str


def looks_like(document: Mapping[str, Any], known: tuple[Fault, ...] | None = None) -> tuple[Match, ...]:
    """The known faults that a run looks like: first those that the further test agrees with, last those ruled out.

    Args:
        document: The content of verdict.json.
        known: The catalogue, by default the shipped one.
    """
    catalogue = faults() if known is None else known
    seen = facts(document)
    by_id = {fault.id: fault for fault in catalogue}
    found = [_match(fault, document, by_id) for fault in catalogue if holds(fault.fingerprint, seen)]
    order = {AGREES: 0, NOT_RUN: 1, DISAGREES: 2}
    return tuple(sorted(found, key=lambda match: (order[match.result], -len(by_id[match.id].fingerprint))))


def excluded(document: Mapping[str, Any], known: tuple[Documented, ...] | None = None) -> Exclusion | None:
    """What the model's own documentation says against this dtype, where the dtype is the cause of the NaN or Inf.

    It is where a wider dtype is good, or, with none tried, where a number went beyond the dtype's limit.

    Args:
        document: The content of verdict.json.
        known: What is documented, by default the shipped entries.
    """
    if document.get("verdict") != "bad" or document.get("kind") != "nonfinite":
        return None
    wide = [
        ablation["verdict"]
        for ablation in document.get("ablations") or ()
        if ablation["name"] in WIDE and ablation["verdict"] != "skip"
    ]
    overflow = (document.get("origin") or {}).get("mechanism") == "overflow"
    if "good" not in wide and (wide or not overflow):
        return None
    seen = facts(document)
    for one in documented() if known is None else known:
        dtype = next((dtype for dtype in one.dtype if dtype in seen["dtype"]), None)
        # A local copy is known by the last part of its path, as it is on the Hub.
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


def _match(fault: Fault, document: Mapping[str, Any], by_id: Mapping[str, Fault]) -> Match:
    test = fault.test
    result, seen = _ask(test, document)
    issue, *also = fault.issues
    title = fault.title or fault.what
    neighbours = tuple(by_id[name].issues[0] for name in test.neighbours if name in by_id)
    known_as = "Looks like" if fault.outcome == "bug" else "Known, and not a bug"
    known_as = "Ruled out" if result == DISAGREES else known_as
    answer = "not run" if result == NOT_RUN else f"{result} ({seen})"
    told = f"{known_as}: {issue}, {title.rstrip('.')}. What tells it from {listed(neighbours)}: {test.question}"
    command = None if test.command is None else test.command.replace("MODEL", shlex.quote(str(document["model"]["id"])))
    owner, _, number = issue.partition("#")
    return Match(
        id=fault.id, issue=issue, also=tuple(also), url=f"https://github.com/{owner}/issues/{number}", title=title,
        what=fault.what, outcome=fault.outcome, question=test.question, neighbours=neighbours, result=result, seen=seen,
        command=command if test.how != "by_hand" else str(test.what), excluded=result == DISAGREES,
        sentence=f"{told}: {answer}.",
    )  # fmt: skip


def _ask(test: FurtherTest, document: Mapping[str, Any]) -> tuple[str, str | None]:
    """What the run itself says to the test, and what was seen; "not run" where it does not say."""
    if test.how == "by_hand":
        return NOT_RUN, None
    if test.how == "key":
        return _ask_key(test, document)
    answers = dict(_ablations(test, document) if test.how == "ablation" else _cells(test, document))
    told = {name: verdict for name, verdict in answers.items() if verdict in ("good", "bad")}
    if not told:
        return NOT_RUN, None
    seen = ", ".join(f"{name} is {verdict}" for name, verdict in told.items())
    return (AGREES if set(told.values()) == {test.wanted} else DISAGREES), seen


def _ask_key(test: FurtherTest, document: Mapping[str, Any]) -> tuple[str, str | None]:
    value: Any = document
    for part in str(test.what).split("."):
        if not isinstance(value, Mapping) or part not in value:
            return NOT_RUN, None
        value = value[part]
    items = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    agrees = not items if test.wanted == "empty" else any(matches(test.wanted, str(item)) for item in items)
    return (AGREES if agrees else DISAGREES), f"{test.what} is {', '.join(map(str, items[:3])) or 'empty'}"


def _ablations(test: FurtherTest, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for ablation in document.get("ablations") or ():
        if ablation["name"] == test.what:
            yield ablation["name"], ablation["verdict"]


def _cells(test: FurtherTest, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of a matrix and releases of a search that the test's environment includes."""
    assert isinstance(test.what, Mapping)
    conditions: Conditions = {key: value if key in RANGES else (value,) for key, value in test.what.items()}
    probes = (document.get("versions") or {}).get("probes") or ()
    rows = [(row.get("label") or row["id"], row, row["verdict"]) for row in document.get("cells") or ()]
    rows += [(" ".join(f"{k} {v}" for k, v in item["pins"].items()), item["pins"], item["verdict"]) for item in probes]
    for name, row, verdict in rows:
        known = {key: (str(row[key]),) for key in CELL_KEYS if row.get(key) is not None}
        if holds({"verdict": ("*",), **conditions}, {"verdict": (verdict,), **known}):
            yield str(name), str(verdict)
