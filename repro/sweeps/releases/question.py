"""What is asked, and what comes out with its sentences; and the one interface to everything outside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name
from packaging.version import Version

from repro.core.records import Kind, Outcome, Verdict
from repro.core.sweep_answers import Release, ReleaseRun

PARTNERS = {"torch": "transformers", "transformers": "torch"}
"""The package whose releases must go together with those of another."""
DECLARES = "transformers"
"""The one of the two that says which releases of the other it takes: torch declares nothing on transformers."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        package: The package whose releases are searched.
        good: A release that is said to be good; may be newer than ``bad``.
        bad: A release that is said to be bad.
        python: The cell's Python, such as "3.11"; requirements are read for it.
        pins: Other packages held at exact versions. Where the partner is not among them, it is chosen.
        runs: How many times each release is asked at most.
        bad_from: How many bad runs make a release bad.
        walk_all: Whether every release of the range is asked, for a fault that comes and goes.
        alone: Whether the partner is not wanted at all, as for a script that does not import it.
        divergent: Whether the numbers of each release are held against those of ``good``.
    """

    package: str
    good: str
    bad: str
    python: str
    pins: tuple[tuple[str, str], ...] = ()
    runs: int = 1
    bad_from: int = 1
    walk_all: bool = False
    alone: bool = False
    divergent: bool = False

    @property
    def held(self) -> dict[str, str]:
        """The pins, by normalized name."""
        return {canonicalize_name(name): version for name, version in self.pins}

    @property
    def partner(self) -> str | None:
        """The package that must go together with the one searched and that no pin holds; None where there is none."""
        partner = PARTNERS.get(self.package)
        return None if self.alone or partner in self.held else partner


@dataclass(frozen=True, slots=True)
class Change:
    """The two releases between which the answer changes, both asked; ``core.sweep_answers.Boundary`` has the fields."""

    direction: str
    last_good: Release
    first_bad: Release
    skipped: tuple[Release, ...]
    moved: str
    why: str
    crossed: tuple[Release, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    ``verdict`` is bad where a boundary was found, good where every release that was asked is good, and skip where it
    could not be told. ``probes`` are in order of asking, ``pairs`` are the releases of the range with the partner of
    each, and ``environments`` says how many different sets of pins were to be built. ``notes`` are sentences that a
    reader of the verdict should see as well.
    """

    verdict: Verdict
    changes: tuple[Change, ...]
    probes: tuple[Release, ...]
    pairs: tuple[tuple[str, str | None], ...]
    environments: int
    notes: tuple[str, ...]


class World(Protocol):
    """Everything outside."""

    def releases(self, package: str) -> tuple[str, ...]:
        """The releases for the cell's Python, oldest first. Raises FetchError."""

    def requirements(self, package: str, version: str) -> tuple[str, ...]:
        """The Requires-Dist lines of a release. Raises FetchError."""

    def probe(self, pins: Mapping[str, str], label: str) -> ReleaseRun:
        """Builds the environment of these pins and puts the question once; ``label`` names the run, fit for a folder.

        Skip where the environment does not resolve, install or import.
        """

    def hold(self, pins: Mapping[str, str]) -> None:
        """From now on every probe is held against the environment of these pins: bad is what gives other numbers."""


Say = Callable[[str], None]


def moved(package: str, partner: str, other_partner: Release, other_package: Release) -> tuple[str, str]:
    """Which of the two packages the fault follows, with the reason.

    Args:
        package: The package searched.
        partner: The package that moved along with it.
        other_partner: The good release with the partner of the bad one: only the partner has moved.
        other_package: The bad release with the partner of the good one: only the package has moved.
    """
    outcomes = other_partner.verdict, other_package.verdict
    alone = f"{partner} {other_partner.pins[partner]} with {package} {other_partner.version}"
    other = f"{partner} {other_package.pins[partner]} with {package} {other_package.version}"
    said = (
        f"{alone}: {outcomes[0].value} ({_reason(other_partner)}); "
        f"{other}: {outcomes[1].value} ({_reason(other_package)})"
    )
    moved = {
        (Outcome.GOOD, Outcome.GOOD): "both needed",
        (Outcome.BAD, Outcome.BAD): "either alone",
        (Outcome.GOOD, Outcome.BAD): package,
        (Outcome.SKIP, Outcome.BAD): package,
        (Outcome.BAD, Outcome.GOOD): partner,
        (Outcome.BAD, Outcome.SKIP): partner,
    }.get(outcomes, "could not tell")
    return moved, said


def boundaries_found(question: Question, changes: Sequence[Change]) -> Verdict:
    """The boundaries in a sentence."""
    return Verdict(Outcome.BAD, f"{question.package}: " + "; then ".join(_boundary(question, c) for c in changes))


def _boundary(question: Question, change: Change) -> str:
    good, bad = named(question, change.last_good), named(question, change.first_bad)
    if change.direction == "regression":
        sentence = f"{good} is the last good release and {bad} the first bad one"
    else:
        sentence = f"{bad} is the last bad release and {good} the first good one"
    if change.skipped:
        sentence += f", with {_unknown(change.skipped)} between them"
    if question.divergent:
        sentence += f"; {change.first_bad.version}: {_reason(change.first_bad)}"
    if change.crossed:
        sentence += f"; they differ in both packages, and the fault follows: {change.moved} ({change.why})"
    return sentence


def nothing_found(question: Question, asked: Sequence[Release]) -> Verdict:
    """Why there is no boundary. No more is said than what was asked."""
    unknown = [probe for probe in asked if probe.verdict is Outcome.SKIP]
    good = [probe for probe in asked if probe.verdict is Outcome.GOOD]
    hint = "; --with holds another" if question.partner else ""
    if question.walk_all:
        if len(good) == len(asked):
            return Verdict(Outcome.GOOD, f"all {len(asked)} releases of {question.package} are good")
        rest = f"; {_unknown(unknown)}{hint}" if unknown else ""
        word = "good" if good else "bad"
        decided = len(asked) - len(unknown)
        return Verdict(Outcome.SKIP, f"{decided} of {len(asked)} releases of {question.package} are {word}{rest}")
    if unknown:
        return Verdict(Outcome.SKIP, f"the search needs both ends, with {_unknown(unknown)}{hint}; choose another end")
    said_good, said_bad = _ends(question, asked)
    if good:
        more = "--all walks the whole range, for a fault that is bad only in a window"
        what = f"{named(question, said_bad)} was said to be bad and is good, as {named(question, said_good)} is"
        return Verdict(Outcome.GOOD, f"{question.package} {what}: no boundary lies between two good ends; {more}")
    what = f"{named(question, said_good)} was said to be good and is bad, as {named(question, said_bad)} is"
    more = "choose another --good, or let --all walk the whole range"
    return Verdict(Outcome.SKIP, f"{question.package} {what}: no boundary lies between two bad ends; {more}")


def _ends(question: Question, asked: Sequence[Release]) -> tuple[Release, Release]:
    """The end that was said to be good and the one that was said to be bad; ``asked`` goes from the oldest on."""
    good_is_older = Version(question.good) < Version(question.bad)
    return (asked[0], asked[-1]) if good_is_older else (asked[-1], asked[0])


def named(question: Question, probe: Release) -> str:
    """A release, with its partner where that was chosen here."""
    partner = question.partner
    if partner is None or partner not in probe.pins:
        return probe.version
    return f"{probe.version} (with {partner} {probe.pins[partner]})"


def _unknown(probes: Sequence[Release]) -> str:
    """Releases that could not tell, with the first one's reason; the others' are in their records."""
    return f"{', '.join(probe.version for probe in probes)} skipped ({_reason(probes[0])})"


def _reason(probe: Release) -> str:
    """The reason as a part of another sentence."""
    return probe.reason.rstrip(".")


def swapped(question: Question, asked: Sequence[Release]) -> list[str]:
    """A note where the ends answered the other way round than was said."""
    said_good, said_bad = _ends(question, asked)
    if (said_good.verdict, said_bad.verdict) != (Outcome.BAD, Outcome.GOOD):
        return []
    return [f"{said_good.version} was said to be good and is bad; {said_bad.version} was said to be bad and is good."]


def different_kinds(probes: Sequence[Release]) -> list[str]:
    """A note where the bad releases do not all show the same kind of fault."""
    kinds: dict[Kind, list[str]] = {}
    for probe in probes:
        if probe.verdict is Outcome.BAD and probe.kind is not None:
            kinds.setdefault(probe.kind, []).append(probe.version)
    if len(kinds) < 2:
        return []
    said = "; ".join(f"{kind.value} in {', '.join(dict.fromkeys(versions))}" for kind, versions in kinds.items())
    return [f"The bad releases do not show the same kind of fault: {said}. The boundary may be that of another fault."]
