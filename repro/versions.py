"""In which release of a package the answer changed: the question, the search over its releases, and the answer.

Everything outside stands behind ``Laboratory``: the registry, what releases declare, and an environment in which the
question is put. Nothing here starts a process.

torch and transformers are bound to each other: what a release of transformers declares for torch says which of them go
together. So the one that is not searched for, the partner, is either held by the question's pins, or chosen here before
anything is built: one release of it for the whole range where there is one, else as few changes of it as possible.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from repro.errors import FetchError, UsageError
from repro.records import Outcome, Verdict
from repro.releases import between, excluding
from repro.search import Bracket, bisect, cover, most_tests, scan

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
class Trial:
    """One run in one environment.

    ``kind`` says what kind of fault a bad run shows. ``folder`` is where the run is recorded; None means that nothing
    ran (the environment did not come into being), so that asking again would give the same.
    """

    verdict: Verdict
    command: str
    kind: str | None
    folder: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """One release with all of its runs. Without any, the release was skipped for what is declared."""

    version: str
    pins: Mapping[str, str]
    verdict: Verdict
    kind: str | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def command(self) -> str | None:
        """The command of the run that decided: the first with this verdict, else the last; None where none ran."""
        same = [trial for trial in self.trials if trial.verdict.outcome is self.verdict.outcome]
        return (same or self.trials)[0 if same else -1].command if self.trials else None

    @property
    def votes(self) -> str:
        """How the runs voted, such as "bad in 2 of 5"."""
        counts = [(word, sum(t.verdict.outcome.value == word for t in self.trials)) for word in ("bad", "good", "skip")]
        said = ", ".join(f"{word} in {count}" for word, count in counts if count) or "bad in 0"
        return f"{said} of {len(self.trials)}"


@dataclass(frozen=True, slots=True)
class Change:
    """The two releases between which the answer changes; both were asked.

    ``direction`` is "regression" where the newer one is bad, "fix" where it is good. ``skipped`` lie between the two,
    oldest first. ``crossed`` holds, where the two differ in the partner as well, each with the partner of the other.
    ``moved`` is what the fault follows: the package, the partner, "both needed", "either alone" or "could not tell",
    with ``why`` as its reason. What a package brings along with it moves with it.
    """

    direction: str
    last_good: Probe
    first_bad: Probe
    skipped: tuple[Probe, ...]
    moved: str
    why: str
    crossed: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found.

    ``verdict`` is bad where a boundary was found, good where every release that was asked is good, and skip where it
    could not be told. The fields from ``direction`` to ``moved`` are those of the oldest boundary, None without one.
    ``probes`` are in order of asking, ``pairs`` are the releases of the range with the partner of each, and
    ``environments`` says how many different sets of pins were to be built. ``notes`` are sentences that a reader of the
    verdict should see as well.
    """

    verdict: Verdict
    package: str
    direction: str | None
    last_good: str | None
    first_bad: str | None
    skipped: tuple[str, ...]
    moved: str | None
    boundaries: tuple[Change, ...]
    probes: tuple[Probe, ...]
    pairs: tuple[tuple[str, str | None], ...]
    releases: int
    environments: int
    notes: tuple[str, ...]


class Laboratory(Protocol):
    """Everything outside."""

    def releases(self, package: str) -> tuple[str, ...]:
        """The releases for the cell's Python, oldest first. Raises FetchError."""

    def requirements(self, package: str, version: str) -> tuple[str, ...]:
        """The Requires-Dist lines of a release. Raises FetchError."""

    def probe(self, pins: Mapping[str, str], label: str) -> Trial:
        """Builds the environment of these pins and puts the question once; ``label`` names the run, fit for a folder.

        Skip where the environment does not resolve, install or import.
        """


Say = Callable[[str], None]


def investigate(question: Question, laboratory: Laboratory, say: Say = print) -> Answer:
    """The answer to the question. Both ends are asked first.

    Where nothing is skipped, ceil(log2(n)) + 2 of n releases are asked at most (``walk_all`` asks all of them); where
    the two sides of the boundary differ in both packages, two crossed pairs come on top. What releases declare is read
    when it is needed. So a release in between may turn out to exclude the partner that both ends take: then all are
    read, and the search begins again with partners that go with each.

    Args:
        question: What is asked.
        laboratory: Everything outside.
        say: Is given each line that a person should see while it goes on.

    Raises:
        UsageError: the question cannot be put so: an end is no release, a pin is no exact version.
        FetchError: the releases could not be listed.
    """
    _check(question)
    versions = between(laboratory.releases(question.package), question.good, question.bad)
    pairs = _Pairs(question, laboratory, say, versions)
    inquiry = _Inquiry(question, laboratory, say, pairs)
    notes = []
    pairs.choose()
    try:
        brackets = inquiry.search()
    except _Excluded as error:
        notes.append(f"{error}: the search began again, with partners that go with every release.")
        say(notes[0])
        pairs.choose_for_each()
        brackets = inquiry.search()
    changes = tuple(inquiry.change(bracket) for bracket in brackets)
    first = changes[0] if changes else None
    probes = tuple(inquiry.probes.values())
    asked = inquiry.asked(pairs.pairs if question.walk_all else (pairs.pairs[0], pairs.pairs[-1]))
    return Answer(
        verdict=_found(question, changes) if changes else _nothing_found(question, asked),
        package=question.package,
        direction=first.direction if first else None,
        last_good=first.last_good.version if first else None,
        first_bad=first.first_bad.version if first else None,
        skipped=tuple(probe.version for probe in first.skipped) if first else (),
        moved=first.moved if first else None,
        boundaries=changes,
        probes=probes,
        pairs=pairs.pairs,
        releases=len(versions),
        environments=sum(1 for probe in probes if probe.trials),
        notes=(*notes, *_swapped(question, asked), *_different_kinds(probes)),
    )


def _check(question: Question) -> None:
    """Refuses a question that has no answer."""
    if not 1 <= question.bad_from <= question.runs:
        raise UsageError(
            f"{question.bad_from} of {question.runs} runs cannot decide: the number of bad runs that make a "
            "release bad is at least 1 and at most the number of runs."
        )
    for name, version in question.pins:
        if canonicalize_name(name) == question.package:
            raise UsageError(f"{name}=={version} is held, but {question.package} is what is searched: leave it out.")
        try:
            Version(version)
        except InvalidVersion:
            raise UsageError(f"{name}: {version!r} is no exact version, such as 2.4.1.") from None


class _Excluded(Exception):
    """A release in between excludes the partner that was chosen by the two ends."""


class _Pairs:
    """The partner of each release of the range, by what is declared. ``pairs`` holds them, oldest release first."""

    def __init__(self, question: Question, laboratory: Laboratory, say: Say, versions: tuple[str, ...]) -> None:
        self._question, self._laboratory, self._say, self._versions = question, laboratory, say, versions
        self._declared: dict[str, tuple[str, ...] | FetchError] = {}
        self._choices: tuple[str, ...] = ()
        self._by_ends = False
        held = question.held.get(PARTNERS.get(question.package, ""))
        self.pairs: tuple[tuple[str, str | None], ...] = tuple((version, held) for version in versions)

    def choose(self) -> None:
        """One partner for the whole range, where there is one; nothing to do where a pin holds it.

        Where the releases of the range declare what they need, the two ends alone are read, and ``check`` does the rest
        when a release's turn comes.

        Raises:
            FetchError: the releases of the partner could not be listed.
        """
        if self._question.partner is None:
            return
        self._choices = self._laboratory.releases(self._question.partner)
        self._by_ends = self._question.package == DECLARES and not self._question.walk_all
        judged = (self._versions[0], self._versions[-1]) if self._by_ends else self._versions
        one = self._newest_that_fits(judged)
        if one is None:
            self.choose_for_each()
        else:
            self._take([one] * len(self._versions))

    def choose_for_each(self) -> None:
        """A partner for every release, with as few changes along the range as possible; reads all that it needs."""
        self._by_ends = False
        self._say(f"Reading what the releases of {DECLARES} declare.")
        fits = [[i for i, choice in enumerate(self._choices) if self._fits(v, choice)] for v in self._versions]
        self._take([None if index is None else self._choices[index] for index in cover(fits)])

    def check(self, version: str, partner: str | None) -> None:
        """Finds out whether a release goes with the partner that the two ends chose for it.

        Raises:
            _Excluded: it does not, and this was not known when the partner was chosen.
        """
        if self._by_ends and partner is not None:
            try:
                reason = self._exclusion(version, partner)
            except FetchError:
                return  # no reason to choose another partner: the release will be skipped for it
            if reason is not None:
                raise _Excluded(reason)

    def against(self, version: str, partner: str | None) -> str | None:
        """What speaks against building these two together, as a sentence; None where nothing does."""
        chosen = self._question.partner
        try:
            if partner is not None:
                return self._exclusion(version, partner)
            if chosen is not None:
                newest = self._exclusion(version, self._choices[-1])
                return f"no release of {chosen} for this Python goes with it: {newest}"
        except FetchError as error:
            return str(error)
        return None

    def _newest_that_fits(self, versions: Sequence[str]) -> str | None:
        """The newest partner that goes with all of these releases.

        Where each partner would have to be read for it, it is looked for by halving, because what transformers asks of
        torch rises from release to release; one by one only where that finds none.
        """
        choices = self._choices
        fits = [Outcome.BAD, Outcome.GOOD]

        def test(index: int) -> Outcome:
            return fits[all(self._fits(version, choices[index]) for version in versions)]

        if self._question.package != DECLARES and test(len(choices) - 1) is Outcome.BAD:
            found = bisect(len(choices), test)
            if found.last_good is not None:
                return choices[found.last_good]
        return next((choices[index] for index in reversed(range(len(choices))) if test(index) is Outcome.GOOD), None)

    def _fits(self, version: str, partner: str) -> bool:
        try:
            return self._exclusion(version, partner) is None
        except FetchError:
            return False

    def _exclusion(self, version: str, partner: str) -> str | None:
        """The declaration by which these two exclude each other, as a sentence; None where there is none.

        Raises:
            FetchError: it could not be read. It is not tried again.
        """
        dependent, other = (version, partner) if self._question.package == DECLARES else (partner, version)
        if dependent not in self._declared:
            try:
                self._declared[dependent] = self._laboratory.requirements(DECLARES, dependent)
            except FetchError as error:
                self._declared[dependent] = error
        lines = self._declared[dependent]
        if isinstance(lines, FetchError):
            raise lines
        line = excluding(lines, PARTNERS[DECLARES], other, self._question.python)
        return line and f"{DECLARES} {dependent} requires {line}, which excludes {PARTNERS[DECLARES]} {other}"

    def _take(self, partners: Sequence[str | None]) -> None:
        """Makes these the partners, and tells them stretch by stretch."""
        self.pairs = tuple(zip(self._versions, partners, strict=True))
        package, partner = self._question.package, self._question.partner
        for chosen, group in itertools.groupby(self.pairs, lambda pair: pair[1]):
            members = [version for version, _ in group]
            span = members[0] if len(members) == 1 else f"{members[0]} to {members[-1]}"
            self._say(
                f"{package} {span} with {partner} {chosen}." if chosen else f"{package} {span}: no {partner} fits."
            )


class _Inquiry:
    """One search under way: the releases that were asked, each with its partner, in order."""

    def __init__(self, question: Question, laboratory: Laboratory, say: Say, pairs: _Pairs) -> None:
        self._question, self._laboratory, self._say, self._pairs = question, laboratory, say, pairs
        self.probes: dict[tuple[str, str | None], Probe] = {}

    def search(self) -> tuple[Bracket, ...]:
        """The boundaries of the range, with the partners as they are now.

        Raises:
            _Excluded: they must be chosen again.
        """
        pairs = self._pairs.pairs
        most = len(pairs) if self._question.walk_all else most_tests(len(pairs))
        self._say(
            f"{self._question.package}: {len(pairs)} releases from {pairs[0][0]} to {pairs[-1][0]}; "
            f"at most {most} to ask, where none is skipped."
        )
        if self._question.walk_all:
            return scan(len(pairs), self._outcome).boundaries
        found = bisect(
            len(pairs), self._outcome, lambda left: self._say(f"At most {left} left, where none is skipped.")
        )
        return () if found.last_good is None else (found,)

    def asked(self, pairs: Sequence[tuple[str, str | None]]) -> tuple[Probe, ...]:
        """These releases, each with its partner, as they answered."""
        return tuple(self._ask(version, partner) for version, partner in pairs)

    def _outcome(self, index: int) -> Outcome:
        version, partner = self._pairs.pairs[index]
        self._pairs.check(version, partner)
        return self._ask(version, partner).verdict.outcome

    def _ask(self, version: str, partner: str | None) -> Probe:
        """One release with one partner; each pair once."""
        key = version, partner
        if key not in self.probes:
            probe = self.probes[key] = self._probe(version, partner)
            votes = f" ({probe.votes})" if len(probe.trials) > 1 else ""
            self._say(f"{_named(self._question, probe)}: {probe.verdict.outcome.value}{votes}. {probe.verdict.reason}")
        return self.probes[key]

    def _probe(self, version: str, partner: str | None) -> Probe:
        question = self._question
        pins, label = {question.package: version}, f"{question.package}-{version}"
        if partner is not None and question.partner is not None:
            pins[question.partner] = partner
            label += f"-{question.partner}-{partner}"
        pins |= question.held
        against = self._pairs.against(version, partner)
        if against is not None:
            return Probe(version, pins, Verdict(Outcome.SKIP, against))
        trials: list[Trial] = []
        while not _decided(trials, question):
            run = f"{label}-run{len(trials) + 1}" if question.runs > 1 else label
            trials.append(self._laboratory.probe(pins, run))
        return _counted(version, pins, tuple(trials), question)

    def change(self, bracket: Bracket) -> Change:
        """A boundary as its two releases, and which of the two packages the fault follows."""
        assert bracket.last_good is not None and bracket.first_bad is not None
        pairs = self._pairs.pairs
        good, bad = self.asked((pairs[bracket.last_good], pairs[bracket.first_bad]))
        skipped = self.asked([pairs[index] for index in bracket.skipped])
        direction = "regression" if bracket.last_good < bracket.first_bad else "fix"
        package, partner = self._question.package, self._question.partner
        old, new = pairs[bracket.last_good][1], pairs[bracket.first_bad][1]
        if partner is None or old == new:
            why = f"the two environments were asked for with a different {package} and nothing else"
            return Change(direction, good, bad, skipped, package, why)
        self._say(f"The two sides differ in {partner} as well: each {package} with the {partner} of the other.")
        crossed = self._ask(good.version, new), self._ask(bad.version, old)
        return Change(direction, good, bad, skipped, *_moved(package, partner, *crossed), crossed)


def _decided(trials: Sequence[Trial], question: Question) -> bool:
    """Whether another run of this release could not change its verdict, or would find nothing to run."""
    outcomes = [trial.verdict.outcome for trial in trials]
    bad, left = outcomes.count(Outcome.BAD), question.runs - len(outcomes)
    undecided = Outcome.SKIP in outcomes
    nothing_ran = bool(trials) and undecided and trials[-1].folder is None
    return bad >= question.bad_from or left == 0 or nothing_ran or (undecided and bad + left < question.bad_from)


def _counted(version: str, pins: Mapping[str, str], trials: tuple[Trial, ...], question: Question) -> Probe:
    """The verdict of the votes: bad from as many bad runs as were asked for, good only if every run decided."""
    of = {outcome: [trial for trial in trials if trial.verdict.outcome is outcome] for outcome in Outcome}
    bad = len(of[Outcome.BAD])
    if bad >= question.bad_from:
        outcome = Outcome.BAD
    elif of[Outcome.SKIP]:
        outcome = Outcome.SKIP
    else:
        outcome = Outcome.GOOD
    speaker = (of[outcome] or trials)[0]
    reason = speaker.verdict.reason
    if outcome is Outcome.GOOD and bad:
        reason = f"bad in {bad} of {len(trials)} runs, where {question.bad_from} make a release bad"
    return Probe(version, pins, Verdict(outcome, reason), speaker.kind, trials)


def _moved(package: str, partner: str, other_partner: Probe, other_package: Probe) -> tuple[str, str]:
    """Which of the two packages the fault follows, with the reason.

    Args:
        package: The package searched.
        partner: The package that moved along with it.
        other_partner: The good release with the partner of the bad one: only the partner has moved.
        other_package: The bad release with the partner of the good one: only the package has moved.
    """
    outcomes = other_partner.verdict.outcome, other_package.verdict.outcome
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


def _found(question: Question, changes: Sequence[Change]) -> Verdict:
    """The boundaries in a sentence."""
    return Verdict(Outcome.BAD, f"{question.package}: " + "; then ".join(_boundary(question, c) for c in changes))


def _boundary(question: Question, change: Change) -> str:
    good, bad = _named(question, change.last_good), _named(question, change.first_bad)
    if change.direction == "regression":
        sentence = f"{good} is the last good release and {bad} the first bad one"
    else:
        sentence = f"{bad} is the last bad release and {good} the first good one"
    if change.skipped:
        sentence += f", with {_unknown(change.skipped)} between them"
    if change.crossed:
        sentence += f"; they differ in both packages, and the fault follows: {change.moved} ({change.why})"
    return sentence


def _nothing_found(question: Question, asked: Sequence[Probe]) -> Verdict:
    """Why there is no boundary. No more is said than what was asked."""
    unknown = [probe for probe in asked if probe.verdict.outcome is Outcome.SKIP]
    good = [probe for probe in asked if probe.verdict.outcome is Outcome.GOOD]
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
        what = f"{_named(question, said_bad)} was said to be bad and is good, as {_named(question, said_good)} is"
        return Verdict(Outcome.GOOD, f"{question.package} {what}: no boundary lies between two good ends; {more}")
    what = f"{_named(question, said_good)} was said to be good and is bad, as {_named(question, said_bad)} is"
    more = "choose another --good, or let --all walk the whole range"
    return Verdict(Outcome.SKIP, f"{question.package} {what}: no boundary lies between two bad ends; {more}")


def _ends(question: Question, asked: Sequence[Probe]) -> tuple[Probe, Probe]:
    """The end that was said to be good and the one that was said to be bad; ``asked`` goes from the oldest on."""
    good_is_older = Version(question.good) < Version(question.bad)
    return (asked[0], asked[-1]) if good_is_older else (asked[-1], asked[0])


def _named(question: Question, probe: Probe) -> str:
    """A release, with its partner where that was chosen here."""
    partner = question.partner
    if partner is None or partner not in probe.pins:
        return probe.version
    return f"{probe.version} (with {partner} {probe.pins[partner]})"


def _unknown(probes: Sequence[Probe]) -> str:
    """Releases that could not tell, with the first one's reason; the others' are in their records."""
    return f"{', '.join(probe.version for probe in probes)} skipped ({_reason(probes[0])})"


def _reason(probe: Probe) -> str:
    """The reason as a part of another sentence."""
    return probe.verdict.reason.rstrip(".")


def _swapped(question: Question, asked: Sequence[Probe]) -> list[str]:
    """A note where the ends answered the other way round than was said."""
    said_good, said_bad = _ends(question, asked)
    if (said_good.verdict.outcome, said_bad.verdict.outcome) != (Outcome.BAD, Outcome.GOOD):
        return []
    return [f"{said_good.version} was said to be good and is bad; {said_bad.version} was said to be bad and is good."]


def _different_kinds(probes: Sequence[Probe]) -> list[str]:
    """A note where the bad releases do not all show the same kind of fault."""
    kinds: dict[str, list[str]] = {}
    for probe in probes:
        if probe.verdict.outcome is Outcome.BAD and probe.kind is not None:
            kinds.setdefault(probe.kind, []).append(probe.version)
    if len(kinds) < 2:
        return []
    said = "; ".join(f"{kind} in {', '.join(dict.fromkeys(versions))}" for kind, versions in kinds.items())
    return [f"The bad releases do not show the same kind of fault: {said}. The boundary may be that of another fault."]
