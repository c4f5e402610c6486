"""How probable it is that things fall together by chance. Whole numbers and fractions throughout; pure."""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, prod

LEVEL = 0.05
"""The usual level of significance (R. A. Fisher, Statistical Methods for Research Workers, 1925)."""
LEAST_SHOWN = 1e-300
"""A little above the smallest normal float64, 2.2e-308."""


def at_least(population: int, sizes: Sequence[int], both: int) -> Fraction:
    """The chance that sets drawn at random, each by itself, have at least ``both`` members in common; exact.

    For two sets this is the upper tail of the hypergeometric distribution, that is the one-sided test of Fisher.

    By inclusion and exclusion: with S(m) the expected number of m-element subsets that all the sets share,
    P(at least x) is the sum over m from x on of (-1)^(m-x) C(m-1, x-1) S(m).
    Source: W. Feller, An Introduction to Probability Theory and Its Applications, volume 1, chapter IV, section 5.

    Args:
        population: How many there are to draw from.
        sizes: How many each set draws; at least one set, none larger than the population.
        both: What they have in common; from 0 to the smallest size.
    """
    if both == 0:
        return Fraction(1)
    most = min(sizes)
    draws = prod(comb(population, size) for size in sizes)
    # shared = S(m) * draws, and ways = C(m-1, x-1), each from the one before: all of these divisions are exact.
    shared = comb(population, both) * prod(comb(population - both, size - both) for size in sizes)
    ways, total = 1, 0
    for m in range(both, most + 1):
        total += (-1) ** (m - both) * ways * shared
        if m < most:
            rest = population - m
            shared = shared * rest * prod(size - m for size in sizes) // ((m + 1) * rest ** len(sizes))
            ways = ways * m // (m - both + 1)
    return Fraction(total, draws)


def least_possible(population: int, failing: int, marked: int) -> Fraction:
    """The smallest value that Fisher's exact test, two-sided, can give for these sums of rows and columns.

    Args:
        population: How many were compared.
        failing: How many of them fail.
        marked: How many of them have what is asked about.
    """
    fewest, most = max(0, failing + marked - population), min(failing, marked)
    ends = [comb(marked, hits) * comb(population - marked, failing - hits) for hits in {fewest, most}]
    least = min(ends)
    return Fraction(sum(end for end in ends if end == least), comb(population, failing))


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for there being many questions, in the order given.

    The chance of even one false answer among all of them then stays below the level, whatever the questions have to do
    with each other. Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
    Statistics 6 (1979) 65-70.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return tuple(corrected)


def shown(chance: float | Fraction) -> str:
    """A chance with three digits: ``2.67e-10``, ``0.0312``. One that no float can hold is given as a bound."""
    return f"{float(chance):.3g}" if chance > LEAST_SHOWN else f"less than {LEAST_SHOWN:.3g}"
