"""Verdicts as a row of marks: of the ablations, and of releases from the oldest to the newest."""

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from repro.core.answer import Answer
from repro.core.records import Ending, Outcome
from repro.core.sentences import many, visible
from repro.core.sweep_answers import Release
from repro.report.markdown import thinned

SIGNS = {Outcome.GOOD: "✔", Outcome.BAD: "✖", Outcome.SKIP: "?"}
ASKED = "as asked"
MOST = 60


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict with its name. ``behind_border``: the verdict changes between the mark before it and this one."""

    name: str
    verdict: Outcome
    behind_border: bool = False

    @property
    def sign(self) -> str:
        """So that colour is never the only sign."""
        return SIGNS[self.verdict]


@dataclass(frozen=True, slots=True)
class Row:
    """Marks side by side."""

    title: str
    marks: Sequence[Mark]
    note: str = ""


def ablations(answer: Answer) -> Row | None:
    """The case as asked, then the ablations: good ones, bad ones, and those that crashed or timed out."""
    ran = [item for item in answer.ablations if item.ending is not Ending.NOT_RUN]
    told = [item for item in ran if item.verdict is not Outcome.SKIP or item.ending is not Ending.ENDED]
    if not ran:
        return None
    order = (Outcome.GOOD, Outcome.BAD, Outcome.SKIP)
    asked = answer.forward.verdict if answer.forward else answer.verdict
    found = sorted(told, key=lambda item: order.index(item.verdict))
    silent = len(ran) - len(told)
    note = f"{many(silent, 'other')} {'does' if silent == 1 else 'do'} not apply to this case." if silent else ""
    marks = [Mark(ASKED, asked), *(Mark(visible(item.name), item.verdict) for item in found[:MOST])]
    return Row("The same case with one thing changed", marks, note)


def versions(answer: Answer) -> Row | None:
    """The releases that were asked, with a border where the verdict changes; None where no search was made."""
    found = answer.versions
    if found is None or not found.probes:
        return None
    probes = sorted(found.probes, key=lambda probe: _version(probe.pins.get(found.package)))
    ends = [(item.last_good, item.first_bad) for item in found.boundaries or (found,)]
    places = [probe.pins.get(found.package) for probe in probes]
    near = {place for place, version in enumerate(places) if any(version in pair for pair in ends)}
    few, note = thinned(probes, MOST, near)
    marks: list[Mark] = []
    for place, probe in enumerate(few):
        before = few[place - 1] if place else None
        border = before is not None and before.verdict is not probe.verdict and _at(before, probe, found.package, ends)
        marks.append(Mark(_name(probe, found.package, few), probe.verdict, border))
    title = f"Releases of {visible(found.package)}, from the oldest to the newest"
    return Row(title, marks, f"{len(few)} of {len(probes)} releases are shown; verdict.json has all." if note else "")


def _at(one: Release, two: Release, package: str, ends: Sequence[tuple[str | None, str | None]]) -> bool:
    """Whether one of a boundary's two releases is here, on its side."""
    pins = {one.pins.get(package), two.pins.get(package)}
    return any(None not in pair and pins & set(pair) for pair in ends)


def _name(probe: Release, package: str, probes: Sequence[Release]) -> str:
    """The release, and what else was pinned where that was not the same for all."""
    others = [name for name in probe.pins if name != package and len({one.pins.get(name) for one in probes}) > 1]
    return visible(", ".join([str(probe.pins.get(package)), *(f"{name} {probe.pins[name]}" for name in others)]))


def _version(text: object) -> Version:
    """A version to order by; one that is none comes first."""
    try:
        return Version(str(text))
    except InvalidVersion:
        return Version("0")
