"""The search over the releases: both ends first, each release with its votes, then what the boundary follows."""

from collections.abc import Mapping, Sequence

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from repro.core.errors import UsageError
from repro.core.records import Outcome
from repro.core.sweep_answers import Release, ReleaseRun
from repro.environments.registry import between
from repro.sweeps.releases.pairs import Excluded, Pairs
from repro.sweeps.releases.question import (
    Change,
    Found,
    Question,
    Say,
    World,
    boundaries_found,
    different_kinds,
    moved,
    named,
    nothing_found,
    swapped,
)
from repro.sweeps.releases.search import Bracket, bisect, most_tests, scan


def investigate(question: Question, world: World, say: Say = print) -> Found:
    """The answer to the question. Both ends are asked first.

    Where nothing is skipped, ceil(log2(n)) + 2 of n releases are asked at most (``walk_all`` asks all of them); where
    the two sides of the boundary differ in both packages, two crossed pairs come on top. What releases declare is read
    when it is needed. So a release in between may turn out to exclude the partner that both ends take: then all are
    read, and the search begins again with partners that go with each.

    Args:
        question: What is asked.
        world: Everything outside.
        say: Is given each line that a person should see meanwhile.

    Raises:
        UsageError: the question cannot be put so: an end is no release, a pin is no exact version.
        FetchError: the releases could not be listed.
    """
    _check(question)
    versions = between(world.releases(question.package), question.good, question.bad)
    pairs = Pairs(question, world, say, versions)
    inquiry = _Inquiry(question, world, say, pairs)
    notes: list[str] = []
    pairs.choose()
    notes += inquiry.hold()
    try:
        brackets = inquiry.search()
    except Excluded as error:
        notes.append(f"{error}: the search began again, with partners that go with every release.")
        say(notes[-1])
        pairs.choose_for_each()
        brackets = inquiry.search()
    changes = tuple(inquiry.change(bracket) for bracket in brackets)
    probes = tuple(inquiry.probes.values())
    asked = inquiry.asked(pairs.pairs if question.walk_all else (pairs.pairs[0], pairs.pairs[-1]))
    return Found(
        verdict=boundaries_found(question, changes) if changes else nothing_found(question, asked),
        changes=changes,
        probes=probes,
        pairs=pairs.pairs,
        environments=sum(1 for probe in probes if probe.runs),
        notes=(*notes, *swapped(question, asked), *different_kinds(probes)),
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


class _Inquiry:
    """One search under way: the releases that were asked, each with its partner, in order."""

    def __init__(self, question: Question, world: World, say: Say, pairs: Pairs) -> None:
        self._question, self._world, self._say, self._pairs = question, world, say, pairs
        self.probes: dict[tuple[str, str | None], Release] = {}

    def hold(self) -> list[str]:
        """Has every release held against the one said to be good, where that is the question; notes that say so."""
        question = self._question
        if not question.divergent:
            return []
        ends = self._pairs.pairs[0], self._pairs.pairs[-1]
        good = ends[0] if Version(ends[0][0]) == Version(question.good) else ends[1]
        pins = self._pins(*good)
        self._world.hold(pins)
        words = ", ".join(f"{name} {version}" for name, version in pins.items())
        return [f"Every release, the good end included, was held against {words}: bad is what differs beyond rounding."]

    def search(self) -> tuple[Bracket, ...]:
        """The boundaries of the range, with the partners as they are now.

        Raises:
            Excluded: they must be chosen again.
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

    def asked(self, pairs: Sequence[tuple[str, str | None]]) -> tuple[Release, ...]:
        """These releases, each with its partner, as they answered."""
        return tuple(self._ask(version, partner) for version, partner in pairs)

    def _outcome(self, index: int) -> Outcome:
        version, partner = self._pairs.pairs[index]
        self._pairs.check(version, partner)
        return self._ask(version, partner).verdict

    def _ask(self, version: str, partner: str | None) -> Release:
        """One release with one partner; each pair once."""
        key = version, partner
        if key not in self.probes:
            probe = self.probes[key] = self._probe(version, partner)
            votes = f" ({probe.votes})" if probe.votes else ""
            self._say(f"{named(self._question, probe)}: {probe.verdict.value}{votes}. {probe.reason}")
        return self.probes[key]

    def _probe(self, version: str, partner: str | None) -> Release:
        question = self._question
        label = f"{question.package}-{version}"
        if partner is not None and question.partner is not None:
            label += f"-{question.partner}-{partner}"
        pins = self._pins(version, partner)
        against = self._pairs.against(version, partner)
        if against is not None:
            return Release(version=version, pins=pins, verdict=Outcome.SKIP, reason=against)
        runs: list[ReleaseRun] = []
        while not _decided(runs, question):
            name = f"{label}-run{len(runs) + 1}" if question.runs > 1 else label
            runs.append(self._world.probe(pins, name))
        return _counted(version, pins, tuple(runs), question)

    def _pins(self, version: str, partner: str | None) -> dict[str, str]:
        """The environment of a release."""
        pins, chosen = {self._question.package: version}, self._question.partner
        if partner is not None and chosen is not None:
            pins[chosen] = partner
        return pins | self._question.held

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
            why = f"The two environments were asked for with a different {package} and nothing else"
            return Change(direction, good, bad, skipped, package, why)
        self._say(f"The two sides differ in {partner} as well: each {package} with the {partner} of the other.")
        crossed = self._ask(good.version, new), self._ask(bad.version, old)
        return Change(direction, good, bad, skipped, *moved(package, partner, *crossed), crossed)


def _decided(runs: Sequence[ReleaseRun], question: Question) -> bool:
    """Whether another run of this release could not change its verdict, or would find nothing to run."""
    outcomes = [run.verdict for run in runs]
    bad, left = outcomes.count(Outcome.BAD), question.runs - len(outcomes)
    undecided = Outcome.SKIP in outcomes
    nothing_ran = bool(runs) and undecided and runs[-1].folder is None
    return bad >= question.bad_from or left == 0 or nothing_ran or (undecided and bad + left < question.bad_from)


def _counted(version: str, pins: dict[str, str], runs: tuple[ReleaseRun, ...], question: Question) -> Release:
    """A release by its votes: bad from as many bad runs as were asked for, good only if every run decided."""
    of = {outcome: [run for run in runs if run.verdict is outcome] for outcome in Outcome}
    bad = len(of[Outcome.BAD])
    if bad >= question.bad_from:
        outcome = Outcome.BAD
    elif of[Outcome.SKIP]:
        outcome = Outcome.SKIP
    else:
        outcome = Outcome.GOOD
    speaker = (of[outcome] or runs)[0]
    reason = speaker.reason
    if outcome is Outcome.GOOD and bad:
        reason = f"bad in {bad} of {len(runs)} runs, where {question.bad_from} make a release bad"
    return Release(
        version=version,
        pins=pins,
        verdict=outcome,
        reason=reason,
        kind=speaker.kind,
        votes=_votes(of, len(runs)) if len(runs) > 1 else None,
        command=(of[outcome][0] if of[outcome] else runs[-1]).command,
        runs=runs,
    )


def _votes(of: Mapping[Outcome, Sequence[ReleaseRun]], total: int) -> str:
    """How the runs voted, such as "bad in 2 of 5"."""
    counts = [(one.value, len(of[one])) for one in (Outcome.BAD, Outcome.GOOD, Outcome.SKIP)]
    return f"{', '.join(f'{word} in {count}' for word, count in counts if count)} of {total}"
