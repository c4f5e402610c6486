"""Which release of the one package goes with which of the other, chosen before anything is built."""

import itertools
from collections.abc import Sequence

from repro.core.errors import FetchError
from repro.core.records import Outcome
from repro.environments.registry import excluding
from repro.sweeps.releases.question import DECLARES, PARTNERS, Question, Say, World
from repro.sweeps.releases.search import bisect, cover


class Excluded(Exception):
    """A release in between excludes the partner that was chosen by the two ends."""


class Pairs:
    """The partner of each release of the range, by what is declared. ``pairs`` holds them, oldest release first."""

    def __init__(self, question: Question, world: World, say: Say, versions: tuple[str, ...]) -> None:
        self._question, self._world, self._say, self._versions = question, world, say, versions
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
        self._choices = self._world.releases(self._question.partner)
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
            Excluded: it does not, and this was not known when the partner was chosen.
        """
        if self._by_ends and partner is not None:
            try:
                reason = self._exclusion(version, partner)
            except FetchError:
                return  # no reason to choose another partner: the release will be skipped for it
            if reason is not None:
                raise Excluded(reason)

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
                self._declared[dependent] = self._world.requirements(DECLARES, dependent)
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
