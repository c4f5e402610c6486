"""Questions put to the failing and to the passing prompts: counts, test, correction, effect size, and the sentence.

Numbers are rounded in the sentence, and nowhere before.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from repro.core.encoding import Number, number, replace
from repro.core.sentences import plain
from repro.core.sweep_answers import Group, PromptFinding
from repro.jobs.chances import LEVEL, holm, shown
from repro.sweeps.prompts.reasons import significance
from repro.sweeps.prompts.reasons.questions import Question, is_consequence, is_number

DIGITS = 4


def tested(
    stats: Any, asked: Sequence[Question], bad: Sequence[bool], ruled_out: Mapping[str, str]
) -> list[PromptFinding]:
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
    corrected = holm([result.p for result in results])
    found = [
        replace(
            finding,
            p=result.p,
            test=result.test,
            effect=result.effect,
            effect_name=result.effect_name,
            corrected=value,
            significant=value <= LEVEL,
            ruled_out=ruled_out.get(finding.topic.family),
        )
        for (_, finding), result, value in zip(pairs, results, corrected, strict=True)
    ]
    return [with_sentence(_with_odds(stats, finding)) for finding in sorted(found, key=_weight)]


def _test(stats: Any, question: Question, finding: PromptFinding, bad: Sequence[bool]) -> significance.Result:
    if is_number(finding.topic):
        return significance.mann_whitney(stats, *_split(question, bad))
    return significance.Result("Fisher's exact test", significance.fisher(stats, _table(finding)))


def _with_odds(stats: Any, finding: PromptFinding) -> PromptFinding:
    """A yes or no with its odds ratio, which takes longer than the test: of those about tokens only the significant."""
    if is_number(finding.topic) or (finding.topic.family == "token" and not finding.significant):
        return finding
    effect, interval = significance.odds_ratio(stats, _table(finding))
    return replace(finding, effect=effect, effect_name="odds ratio", interval=interval)


def _table(finding: PromptFinding) -> tuple[int, int, int, int]:
    fail, ok = finding.failing.yes or 0, finding.passing.yes or 0
    return fail, finding.failing.of - fail, ok, finding.passing.of - ok


def _split(question: Question, bad: Sequence[bool]) -> tuple[list[float], list[float]]:
    """The answers of the failing and of the passing."""
    pairs = [(value, fails) for value, fails in zip(question.values, bad, strict=True) if value is not None]
    return [value for value, fails in pairs if fails], [value for value, fails in pairs if not fails]


def counted(question: Question, bad: Sequence[bool]) -> PromptFinding:
    """The plain figures of a question, without a test."""
    failing, passing = _split(question, bad)
    separates = bool(failing and passing) and (max(failing) < min(passing) or min(failing) > max(passing))
    return PromptFinding(
        topic=question.topic,
        failing=_group(question, failing),
        passing=_group(question, passing),
        separates=separates,
    )


def _group(question: Question, values: Sequence[float]) -> Group:
    if not is_number(question.topic):
        return Group(of=len(values), yes=sum(1 for value in values if value))
    if not values:
        return Group(of=0)
    return Group(of=len(values), median=median(values), least=min(values), greatest=max(values))


def _weight(finding: PromptFinding) -> tuple[bool, bool, bool, bool, float, float]:
    """What comes first: significant, about the prompt itself, not ruled out, complete, least probable by chance."""
    return (
        not finding.significant,
        is_consequence(finding.topic),
        finding.ruled_out is not None,
        not finding.separates,
        finding.corrected if finding.corrected is not None else 1.0,
        finding.p if finding.p is not None else 1.0,
    )


def with_sentence(found: PromptFinding) -> PromptFinding:
    """The finding with what was found in words.

    ``18 of 18 failing prompts have padding, and 2 of 42 passing ones (...)``
    """
    topic, failing, passing = found.topic, found.failing, found.passing
    if not is_number(topic):
        said = f"{failing.yes} of {failing.of} failing prompts {topic.verb} {topic.words}"
        said += f", and {passing.yes} of {passing.of} passing ones"
    elif failing.median is None or passing.median is None:
        return replace(found, sentence=f"{topic.words}: only one of the two groups has any number for it.")
    else:
        effect = number(found.effect)
        rises = failing.median >= passing.median if effect is None else effect > 0
        said = f"the failing prompts {topic.more if rises else topic.less}"
        said += f": {_range(failing)} against {_range(passing)}"
    complete = ", which separates them completely" if found.separates else ""
    return replace(found, sentence=f"{said}{complete}{_figures(found)}.")


def _range(group: Group) -> str:
    """``median 5 (3 to 9)``."""
    values = [plain(value, DIGITS) for value in (group.median, group.least, group.greatest) if value is not None]
    return "median {} ({} to {})".format(*values)


def _figures(found: PromptFinding) -> str:
    """The test in brackets."""
    if found.p is None or found.corrected is None:
        return ""
    parts = [f"{found.test}, p = {shown(found.p)}, corrected for all questions {shown(found.corrected)}"]
    if found.effect is not None:
        low, high = found.interval or (None, None)
        ends = "" if low is None else f", 95 % interval {_short(low)} to {_short(high)}"
        parts.append(f"{found.effect_name} {_short(found.effect)}{ends}")
    return f" ({'; '.join(parts)})"


def _short(value: Number | None) -> str:
    return f"{number(value):.3g}"
