"""Questions put to the failing and to the passing prompts: counts, test, correction, effect size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from repro.core.chances import LEVEL, holm
from repro.sweeps.prompts.reasons import significance
from repro.sweeps.prompts.reasons.findings import Finding, Group
from repro.sweeps.prompts.reasons.questions import Question


def tested(stats: Any, asked: Sequence[Question], bad: Sequence[bool], ruled_out: Mapping[str, str]) -> list[Finding]:
    """Every question that both groups answer, with its test and the correction, the weightiest first.

    Args:
        stats: ``scipy.stats``.
        asked: The questions.
        bad: Whether each prompt fails.
        ruled_out: Families that cannot be the reason by themselves, and why.
    """
    pairs = [(question, counted(question, bad)) for question in asked]
    pairs = [(question, finding) for question, finding in pairs if finding.failing.of and finding.passing.of]
    results = [_test(stats, question, finding, bad) for question, finding in pairs]
    corrected = holm([result["p"] for result in results])
    found = [
        replace(
            finding,
            **result,
            corrected=value,
            significant=value <= LEVEL,
            ruled_out=ruled_out.get(finding.topic.family),
        )
        for (_, finding), result, value in zip(pairs, results, corrected, strict=True)
    ]
    return [_with_odds(stats, finding) for finding in sorted(found, key=_weight)]


def _test(stats: Any, question: Question, finding: Finding, bad: Sequence[bool]) -> dict[str, Any]:
    if finding.topic.is_number:
        result = significance.mann_whitney(stats, *_split(question, bad))
        return {"p": result.p, "test": result.test, "effect": result.effect, "effect_name": result.effect_name}
    return {"p": significance.fisher(stats, _table(finding)), "test": "Fisher's exact test"}


def _with_odds(stats: Any, finding: Finding) -> Finding:
    """A yes or no with its odds ratio, which takes longer than the test: of those about tokens only the significant."""
    if finding.topic.is_number or (finding.topic.family == "token" and not finding.significant):
        return finding
    effect, interval = significance.odds_ratio(stats, _table(finding))
    return replace(finding, effect=effect, effect_name="odds ratio", interval=interval)


def _table(finding: Finding) -> tuple[int, int, int, int]:
    fail, ok = finding.failing.yes or 0, finding.passing.yes or 0
    return fail, finding.failing.of - fail, ok, finding.passing.of - ok


def _split(question: Question, bad: Sequence[bool]) -> tuple[list[float], list[float]]:
    """The answers of the failing and of the passing."""
    pairs = [(value, fails) for value, fails in zip(question.values, bad, strict=True) if value is not None]
    return [value for value, fails in pairs if fails], [value for value, fails in pairs if not fails]


def counted(question: Question, bad: Sequence[bool]) -> Finding:
    """The plain figures of a question, without a test."""
    failing, passing = _split(question, bad)
    separates = bool(failing and passing) and (max(failing) < min(passing) or min(failing) > max(passing))
    return Finding(question.topic, _group(question, failing), _group(question, passing), separates)


def _group(question: Question, values: Sequence[float]) -> Group:
    if not question.topic.is_number:
        return Group(len(values), yes=sum(1 for value in values if value))
    if not values:
        return Group(0)
    return Group(len(values), median=median(values), least=min(values), greatest=max(values))


def _weight(finding: Finding) -> tuple[bool, bool, bool, bool, float, float]:
    """What comes first: significant, about the prompt itself, not ruled out, complete, least probable by chance."""
    return (
        not finding.significant,
        finding.topic.is_consequence,
        finding.ruled_out is not None,
        not finding.separates,
        finding.corrected if finding.corrected is not None else 1.0,
        finding.p if finding.p is not None else 1.0,
    )
