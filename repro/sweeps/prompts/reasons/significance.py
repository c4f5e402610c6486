"""The tests of significance, done by scipy where it is installed; effect sizes; which questions are worth asking."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from repro.jobs.chances import LEVEL, least_possible

INSTALL = 'pip install "repro-kit[stats]"'
CONFIDENCE = 0.95
FEW = 8
"""From scipy's own manual of ``mannwhitneyu``: its exact distribution is for up to 8 in one group, and without ties."""
RULE_OF_FIVE = 5
"""An approximation needs at least so many expected (W. G. Cochran, Biometrics 10 (1954) 417-451)."""
RESAMPLES = 9_999
"""Random labellings for a permutation test, or all where there are fewer; scipy's own default."""
BATCH_VALUES = 1_000_000
"""Numbers held at once by a permutation test: 8 MB."""


@dataclass(frozen=True, slots=True)
class Result:
    """One test: its name, its p-value, and the effect size with its name where the test itself gives one."""

    test: str
    p: float
    effect: float | None = None
    effect_name: str | None = None


def library() -> Any | None:
    """``scipy.stats``, or None where it is not installed."""
    try:
        import scipy.stats
    except ImportError:
        return None
    return scipy.stats


def fisher(stats: Any, table: tuple[int, int, int, int]) -> float:
    """The two-sided p-value of Fisher's exact test: failing with and without, passing with and without."""
    return float(stats.fisher_exact((table[:2], table[2:])).pvalue)


def odds_ratio(stats: Any, table: tuple[int, int, int, int]) -> tuple[float, tuple[float, float]]:
    """The odds ratio of a table with its exact interval; both may be infinite.

    It is the conditional maximum likelihood estimate, which goes with Fisher's test, and not the ratio of products.
    """
    found = stats.contingency.odds_ratio((table[:2], table[2:]))
    interval = found.confidence_interval(confidence_level=CONFIDENCE)
    return float(found.statistic), (float(interval.low), float(interval.high))


def mann_whitney(stats: Any, failing: Sequence[float], passing: Sequence[float]) -> Result:
    """Whether the numbers of the failing are greater or smaller. The effect is the rank-biserial correlation.

    That is the share of pairs (failing, passing) in which the failing one's number is greater, less the share in which
    it is smaller: 1 and -1 for complete separation, 0 for none. Where ties make the normal approximation unsound, the
    labels are permuted; the seed is fixed.
    """
    found = stats.mannwhitneyu(failing, passing, alternative="two-sided")
    if not _is_unsound(failing, passing):
        p = float(found.pvalue)
    elif min(len(failing), len(passing)) == 1:
        p = _of_one(failing, passing)
    else:
        p = _permuted(stats, failing, passing)
    effect = 2 * float(found.statistic) / (len(failing) * len(passing)) - 1
    return Result("Mann-Whitney", min(1.0, p), effect, "rank-biserial correlation")


def _permuted(stats: Any, failing: Sequence[float], passing: Sequence[float]) -> float:
    """The p-value of the sum of ranks among labellings: all of them where they are few, else some drawn at random."""
    ranks, count = stats.rankdata([*failing, *passing]), len(failing)
    found = stats.permutation_test(
        (ranks[:count], ranks[count:]),
        lambda first, _, axis: first.sum(axis=axis),
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_VALUES // len(ranks)),
        rng=0,
    )
    return float(found.pvalue)


def _of_one(failing: Sequence[float], passing: Sequence[float]) -> float:
    """The exact p-value for a group of one, which scipy does not permute: how many are as far out, on both sides."""
    every = [*failing, *passing]
    one = failing[0] if len(failing) == 1 else passing[0]
    return 2 * min(sum(1 for value in every if value >= one), sum(1 for value in every if value <= one)) / len(every)


def _is_unsound(failing: Sequence[float], passing: Sequence[float]) -> bool:
    """Ties, and few prompts in one group, or so few numbers that differ from the usual one."""
    total = len(failing) + len(passing)
    few, usual = min(len(failing), len(passing)), max(Counter([*failing, *passing]).values())
    return usual > 1 and (few <= FEW or few * (total - usual) < RULE_OF_FIVE * total)


def together(stats: Any, first: Sequence[float | None], second: Sequence[float | None]) -> float:
    """Spearman's rank correlation of two questions, over the prompts that answer both; 0 where one does not vary."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if any(len({pair[side] for pair in both}) < 2 for side in (0, 1)):
        return 0.0
    return float(stats.spearmanr([a for a, _ in both], [b for _, b in both]).statistic)


def worth_asking(failing: int, passing: int, marked: Sequence[int], others: int) -> tuple[bool, ...]:
    """Which yes-or-no questions could come out significant at all, whatever the labels are.

    A token of one prompt in a hundred tells nothing, and asking it would only make the correction stricter for the
    rest. What is left out depends on how often the answer is yes, never on which prompts fail, so nothing is chosen
    by the result. Source: R. E. Tarone, A Modified Bonferroni Method for Discrete Data, Biometrics 46 (1990) 515-522.

    Args:
        failing: How many prompts fail.
        passing: How many pass.
        marked: For each question the number of prompts with yes.
        others: How many more questions are asked in any case.
    """
    total = failing + passing
    least = {count: float(least_possible(total, failing, count)) for count in set(marked)}
    # How many questions can go as low as this, which with the others are as many as would have to be corrected for.
    ranks = {p: rank for rank, p in enumerate(sorted(least[count] for count in marked), 1)}
    limit = max((p for p, rank in ranks.items() if p * (others + rank) <= LEVEL), default=0.0)
    return tuple(least[count] <= limit for count in marked)


def could_tell(failing: int, passing: int, asked: int) -> bool:
    """Whether complete separation by a number would come out significant, among so many questions."""
    return 2 * max(1, asked) / comb(failing + passing, failing) <= LEVEL
