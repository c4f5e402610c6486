"""Sets of prompts compared: what they share, what only one has, and whether the overlap could be chance. Pure."""

import itertools
import re
import unicodedata
from collections.abc import Mapping, Set
from dataclasses import dataclass
from fractions import Fraction

from repro.core.errors import UsageError
from repro.core.sentences import listed
from repro.jobs.chances import LEVEL, at_least, holm, shown
from repro.jobs.content import many

Unclear = Mapping[tuple[str, str], Mapping[str, int]]
NONE_UNCLEAR: Unclear = {}
NORMALISED = "Unicode NFC; line ends (also written as \\n) and runs of white space count as one space, none at the ends"
"""How two texts are held to be the same prompt. Case and punctuation count: they change the tokens."""
ALL_COMBINATIONS = 6
"""Up to so many sets the table has a row for every combination, 63 at most; beyond, for those that have members."""
LEAST_CONTAINED = 12
"""Characters of a text that is looked for inside other texts; a shorter one occurs in many of them anyway."""
MOST_LOOKED_AT = 1_000_000
"""Pairs of texts in which one is looked for inside the other: about a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets. ``chance`` is that of at least so many in common, where the population is known.

    ``first_in_second`` and ``second_in_first`` are the containments, shares of the set named first; None for an empty
    one, as ``jaccard`` is where both are empty. ``corrected`` takes into account how many pairs were looked at.
    ``expected`` is what two sets of these sizes have in common on average. ``unclear_first`` are the members of the
    first of which it is not known whether they are in the second, each with how many there fit; then ``both`` is the
    least, and no share is given.
    """

    first: str
    second: str
    both: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    jaccard: float | None
    first_in_second: float | None
    second_in_first: float | None
    expected: float | None
    chance: float | None
    corrected: float | None
    sentence: str
    unclear_first: Mapping[str, int]
    unclear_second: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Region:
    """One row of the Venn table: the prompts that are in all of ``sets`` (``inside``), and in no other (``alone``)."""

    sets: tuple[str, ...]
    inside: int
    alone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What sets have in common.

    ``sizes`` counts every member; ``counted`` only those that are in the population, which the chances are about.
    ``in_all`` and ``in_all_chance`` are for all sets at once; the chance is None for fewer than three.
    """

    sizes: Mapping[str, int]
    counted: Mapping[str, int]
    population: int | None
    union: int
    in_all: int
    in_all_chance: float | None
    pairs: tuple[Pair, ...]
    regions: tuple[Region, ...]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in words: pair by pair, then all together, then what limits it."""
        return (*(pair.sentence for pair in self.pairs), *self.notes)


def normalised(text: str) -> str:
    """The text as it is compared with others: see ``NORMALISED``."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).replace("\\n", "\n")).strip()


def overlap(
    sets: Mapping[str, Set[str]], population: int | Set[str] | None = None, unclear: Unclear = NONE_UNCLEAR
) -> Overlap:
    """The whole comparison.

    Args:
        sets: Each set's name and members, at least two; texts that are ``normalised``.
        population: What all of them were drawn from: the texts, or only how many there are. None where it is not
            known; then no chance is claimed.
        unclear: For a set and another one, the members of the first of which it is not known whether they are in the
            other, each with how many prompts fit.

    Raises:
        UsageError: there are fewer than two sets, or more prompts than the population has.
    """
    if len(sets) < 2:
        raise UsageError(f"{many(len(sets), 'set')} given. Give two or more to compare.")
    union = frozenset().union(*sets.values())
    drawn, notes = _drawn(sets, population, frozenset().union(*unclear.values()))
    total = population if population is None or isinstance(population, int) else len(population)
    if isinstance(population, int):
        check_population(population, sets, unclear)
    couples = list(itertools.combinations(sets, 2))
    chances = [None if total is None else _chance(total, [drawn[name] for name in couple]) for couple in couples]
    corrected = holm([float(chance) for chance in chances if chance is not None]) or (None,) * len(couples)
    pairs = tuple(
        _pair(sets, couple, drawn, total, chance, value, unclear)
        for couple, chance, value in zip(couples, chances, corrected, strict=True)
    )
    together = None if total is None or len(sets) < 3 else float(_chance(total, list(drawn.values())))
    in_all = len(frozenset.intersection(*map(frozenset, sets.values())))
    if len(sets) > 2:
        notes.append(f"{'At least ' if unclear else ''}{_all_at_once(sets, in_all, together)}")
    if len(pairs) > 1 and total is not None:
        notes.append(f"{len(pairs)} pairs were tested: corrected probabilities are by Holm's method.")
    if total is None:
        looked_up = " In a FILE of all prompts, truncated texts are looked up too." if unclear else ""
        notes.append(
            f"No probability: how many prompts were run is not known. Set it with --population N|FILE.{looked_up}"
        )
    notes += [said for first, second in couples if (said := _templates(sets, first, second))]
    return Overlap(
        sizes={name: len(members) for name, members in sets.items()},
        counted={name: len(members) for name, members in drawn.items()},
        population=total,
        union=len(union),
        in_all=in_all,
        in_all_chance=together,
        pairs=pairs,
        regions=_regions(sets, unclear),
        notes=tuple(notes),
    )


def check_population(size: int, sets: Mapping[str, Set[str]], unclear: Unclear = NONE_UNCLEAR) -> None:
    """Refuse a population that has fewer prompts than are known to have failed.

    Raises:
        UsageError: it has.
    """
    not_told = {text for those in unclear.values() for text in those}
    failed = len(frozenset[str]().union(*sets.values()) - not_told)
    least = max(failed, *(len(members) for members in sets.values()))
    if size < least:
        raise UsageError(
            f"--population is {many(size, 'prompt')}, fewer than the {least:,} distinct ones of the sets. "
            "Give all prompts that were run, or their number."
        )


def _drawn(
    sets: Mapping[str, Set[str]], population: int | Set[str] | None, not_told: Set[str]
) -> tuple[dict[str, Set[str]], list[str]]:
    """The members that are in the population, and a note on each set that has others. A truncated text that fits
    several prompts is one of them.
    """
    if population is None or isinstance(population, int):
        return dict(sets), []
    drawn = {name: members & (population | not_told) for name, members in sets.items()}
    notes = [
        f"{len(sets[name]) - len(members)} of {len(sets[name])} in {name} are not found in the population; "
        "probabilities leave them out."
        for name, members in drawn.items()
        if len(members) < len(sets[name])
    ]
    return drawn, notes


def _chance(total: int, members: list[Set[str]]) -> Fraction:
    both = frozenset.intersection(*map(frozenset, members))
    return at_least(total, [len(item) for item in members], len(both))


def _pair(
    sets: Mapping[str, Set[str]],
    names: tuple[str, str],
    drawn: Mapping[str, Set[str]],
    total: int | None,
    chance: Fraction | None,
    corrected: float | None,
    unclear: Unclear,
) -> Pair:
    first, second = (sets[name] for name in names)
    both, either = len(first & second), len(first | second)
    not_told = [unclear.get(pair, {}) for pair in (names, names[::-1])]
    told = not any(not_told)
    return Pair(
        first=names[0],
        second=names[1],
        both=both,
        only_first=tuple(sorted(first - second - not_told[0].keys())),
        only_second=tuple(sorted(second - first - not_told[1].keys())),
        jaccard=both / either if either and told else None,
        first_in_second=both / len(first) if first and told else None,
        second_in_first=both / len(second) if second and told else None,
        expected=len(drawn[names[0]]) * len(drawn[names[1]]) / total if total else None,
        chance=None if chance is None else float(chance),
        corrected=corrected,
        sentence=_sentence(sets, names, drawn, total, chance, corrected, unclear),
        unclear_first=not_told[0],
        unclear_second=not_told[1],
    )


def _sentence(
    sets: Mapping[str, Set[str]],
    names: tuple[str, str],
    drawn: Mapping[str, Set[str]],
    total: int | None,
    chance: Fraction | None,
    corrected: float | None,
    unclear: Unclear,
) -> str:
    """The smaller set against the larger one: how much of it lies in there, and what chance would do."""
    small, large = sorted(names, key=lambda name: len(sets[name]))
    both = len(sets[small] & sets[large])
    share = "All" if both == len(sets[small]) else "None of the" if both == 0 else f"{both} of the"
    if not sets[small]:
        return f"{small} is empty."
    found = f"{share} {len(sets[small])} in {small} are among the {len(sets[large])} in {large}"
    not_told = unclear.get((small, large), {})
    if not_told:
        found = _in_part(sets, small, large, both, not_told)
    if total is None or chance is None or corrected is None:
        return f"{found}."
    expected = len(drawn[small]) * len(drawn[large]) / total
    if max(len(drawn[small]), len(drawn[large])) == total:
        return f"{found}, as they must be: one of the two is the whole population."
    by_chance = f"{expected:.3g} would be expected by chance, and this many or more has probability {shown(chance)}"
    more = f" ({shown(corrected)} corrected)" if len(sets) > 2 and (both or not not_told) else ""
    if not_told and not both:
        by_chance = f"{expected:.3g} would be expected by chance"
    elif not_told:
        by_chance = f"{expected:.3g} would be expected by chance, and {both} or more have probability {shown(chance)}"
    may_be = corrected > LEVEL and not not_told  # with more in common it would be less probable
    return f"{found}; {by_chance}{more}{', so this may be chance' if may_be else ''}."


def _in_part(sets: Mapping[str, Set[str]], small: str, large: str, both: int, not_told: Mapping[str, int]) -> str:
    """What is known where texts are truncated: never that they are, or are not, among the others."""
    several = sorted({count for count in not_told.values() if count > 1})
    may_be = sum(count == 1 for count in not_told.values())
    said = [f"{both} of the {len(sets[small])} in {small} are among the {len(sets[large])} in {large}"]
    if left := len(sets[small]) - both - len(not_told):
        said[0] += f", and {left} {'is' if left == 1 else 'are'} not"
    if may_be:
        said.append(f"{may_be} may be, as a truncated text fits")
    if several:
        fitting = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
        said.append(
            f"could not tell for {len(not_told) - may_be}, as a truncated text fits several ({fitting} candidates)"
        )
    return "; ".join(said)


def _templates(sets: Mapping[str, Set[str]], first: str, second: str) -> str | None:
    """A note where two sets share no text, but texts of one occur inside texts of the other."""
    small, large = sorted((first, second), key=lambda name: sum(map(len, sets[name])))
    if sets[small] & sets[large] or len(sets[small]) * len(sets[large]) > MOST_LOOKED_AT:
        return None
    inner = [text for text in sets[small] if len(text) >= LEAST_CONTAINED]
    count = sum(1 for text in inner if any(text in other for other in sets[large]))
    if not count:
        return None
    return (
        f"{small} and {large} share no text, but {many(count, 'text')} of {small} occur inside texts of {large}, "
        "probably in a prompt template. Give both with the template, or both without."
    )


def _all_at_once(sets: Mapping[str, Set[str]], in_all: int, chance: float | None) -> str:
    said = f"{in_all} in all {len(sets)} sets ({listed(tuple(sets))})"
    return f"{said}." if chance is None else f"{said}; this many or more has probability {shown(chance)} by chance."


def _regions(sets: Mapping[str, Set[str]], unclear: Unclear) -> tuple[Region, ...]:
    """The Venn table: from single sets to all at once. What may be in a further set too is not called alone."""
    not_told = {text for those in unclear.values() for text in those}
    members: dict[tuple[str, ...], list[str]] = {}
    for text in sorted(frozenset().union(*sets.values())):
        members.setdefault(tuple(name for name in sets if text in sets[name]), []).append(text)
    if len(sets) <= ALL_COMBINATIONS:
        wanted = [row for size in range(1, len(sets) + 1) for row in itertools.combinations(sets, size)]
    else:
        wanted = sorted(members, key=lambda row: (len(row), [*sets].index(row[0])))
    return tuple(
        Region(
            sets=row,
            inside=sum(len(texts) for owners, texts in members.items() if set(row) <= set(owners)),
            alone=tuple(text for text in members.get(row, ()) if text not in not_told),
        )
        for row in wanted
    )
