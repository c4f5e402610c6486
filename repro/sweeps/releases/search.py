"""The search along an ordered range: where the answer changes. It knows a range and a test, nothing else.

Beside it stands ``cover``, which goes along a range with as few changes as possible.

What is said was tested: the two sides of a boundary are items that answered good and bad themselves, and the items
between them, if any, all answered skip. Nothing is concluded from items that were not tested.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repro.core.records import Outcome

Test = Callable[[int], Outcome]


@dataclass(frozen=True, slots=True)
class Reply:
    """One item of the range, by its index, and what it answered."""

    index: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Bracket:
    """The two items between which the answer changes, by their indexes.

    ``last_good`` and ``first_bad`` face each other across the change, whichever is the lower: with ``last_good`` below
    ``first_bad`` things went bad along the range, otherwise they became good. Both are None where no boundary was met,
    and ``tested`` tells why: the answers of the two ends stand first in it. ``skipped`` are the items between the two,
    in ascending order; each was tested and could not tell. ``tested`` is in the order of testing.
    """

    last_good: int | None
    first_bad: int | None
    skipped: tuple[int, ...]
    tested: tuple[Reply, ...]

    @property
    def ends(self) -> tuple[Reply, Reply]:
        """The answers of the first and the last item; the same one twice where the range has one item."""
        return self.tested[0], self.tested[min(1, len(self.tested) - 1)]


@dataclass(frozen=True, slots=True)
class Scan:
    """Every boundary of a range in ascending order, and every answer. A boundary's own ``tested`` are the answers
    from its one side to the other."""

    boundaries: tuple[Bracket, ...]
    tested: tuple[Reply, ...]


def most_tests(count: int) -> int:
    """How many items ``bisect`` tests at most, where none is skipped: never more than ceil(log2(count)) + 2."""
    return count if count < 3 else 2 + (count - 2).bit_length()


def bisect(count: int, test: Test, ahead: Callable[[int], None] = lambda left: None) -> Bracket:
    """The place where the answer changes between the two ends of a range.

    Both ends are tested first. Where they agree, or one of them is skip, there is no boundary to look for: nothing
    more is tested and the bracket has none. Then the middle of what is left is tested. Where that is skip its
    neighbours are, at distances 1, 2, 4 and so on to both sides, so that a single skip costs one test more and a
    long row of them is left soon. It ends when all that is left between the two sides was tested.

    Precondition: the answer changes once along the range, in either direction. Where it changes more than once the
    bracket is still one true change, but which of them is chance, and ends that agree hide all of them: use ``scan``.

    Args:
        count: Number of items in the range, both ends included; at least 1.
        test: Is given an index; called once at most for each.
        ahead: Is told before each test how many tests are left at most, this one included, where none is skipped.
    """
    tested: dict[int, Outcome] = {}
    for end in dict.fromkeys((0, count - 1)):
        ahead(most_tests(count) - len(tested))
        tested[end] = test(end)
    low, high = 0, count - 1
    if {tested[low], tested[high]} != {Outcome.GOOD, Outcome.BAD}:
        return _bracket(None, tested)
    skips = 0  # since the interval was narrowed last
    while left := [index for index in range(low + 1, high) if index not in tested]:
        aim = (low + high) / 2 + _step(skips)
        index = min(left, key=lambda item: abs(item - aim))
        ahead(most_tests(len(left) + 2) - 2)
        outcome = tested[index] = test(index)
        # The invariant: low and high answered good and bad, each as its own end did.
        if outcome is Outcome.SKIP:
            skips += 1
            continue
        skips = 0
        if outcome is tested[low]:
            low = index
        else:
            high = index
    return _bracket((low, high), tested)


def scan(count: int, test: Test) -> Scan:
    """Every place where the answer changes, by testing all items in order.

    Nothing is presumed of the range: a window (good, bad, good) gives two boundaries.

    Args:
        count: Number of items in the range; at least 1.
        test: Is given each index once.
    """
    tested = {index: test(index) for index in range(count)}
    decided = [index for index, outcome in tested.items() if outcome is not Outcome.SKIP]
    sides = [(low, high) for low, high in itertools.pairwise(decided) if tested[low] is not tested[high]]
    spans = ((pair, {index: tested[index] for index in range(pair[0], pair[1] + 1)}) for pair in sides)
    return Scan(tuple(_bracket(pair, span) for pair, span in spans), _answers(tested))


def cover(choices: Sequence[Sequence[int]]) -> tuple[int | None, ...]:
    """One choice for each item of a range, so that it changes as seldom as possible from one item to the next.

    Each stretch goes on for as long as one choice serves all of it, and takes the largest that does. No other way has
    fewer stretches: each of theirs ends where this one does, or before. An item without any choice has None, and the
    stretch goes on behind it.

    Args:
        choices: For each item what may be chosen, in ascending order.
    """
    stretches: list[list[int]] = []  # what serves all of the stretch so far
    place: list[int | None] = []
    for own in choices:
        if own:
            common = [choice for choice in stretches[-1] if choice in own] if stretches else []
            if common:
                stretches[-1] = common
            else:
                stretches.append(list(own))
        place.append(len(stretches) - 1 if own else None)
    return tuple(None if index is None else stretches[index][-1] for index in place)


def _step(skips: int) -> int:
    """How far from the middle the next try is: 0, then -1, 1, -2, 2, -4, 4 and so on."""
    return 0 if skips == 0 else (-1) ** skips * 2 ** ((skips - 1) // 2)


def _bracket(sides: tuple[int, int] | None, tested: dict[int, Outcome]) -> Bracket:
    """The bracket of two indexes with opposite answers, or the one without a boundary."""
    if sides is None:
        return Bracket(None, None, (), _answers(tested))
    last_good, first_bad = sides if tested[sides[0]] is Outcome.GOOD else sides[::-1]
    return Bracket(last_good, first_bad, tuple(range(min(sides) + 1, max(sides))), _answers(tested))


def _answers(tested: dict[int, Outcome]) -> tuple[Reply, ...]:
    return tuple(Reply(index, outcome) for index, outcome in tested.items())
