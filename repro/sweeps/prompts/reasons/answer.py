"""The failing prompts against the passing ones, question by question, and the answer in words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from repro.core.chances import LEVEL
from repro.sweeps.prompts.reasons import significance, words
from repro.sweeps.prompts.reasons.comparison import counted, tested
from repro.sweeps.prompts.reasons.findings import Finding, Outcome, Reasons
from repro.sweeps.prompts.reasons.questions import Question, Record, questions

TOKENS_SHOWN = 5
"""How many of the token questions are kept besides those that tell the prompts apart."""
SAME_THING = 0.5
"""Two questions go together where the square of their rank correlation is at least this: the one then accounts for
half of the other's variation."""


def reasons(records: Sequence[Record], *, special_ids: Sequence[int] = ()) -> Reasons:
    """Compare the failing prompts with the passing ones.

    Args:
        records: The examples of ``prompts.jsonl``; those that are neither good nor bad are left out and counted.
        special_ids: The tokenizer's special tokens, where they are known.
    """
    judged = [record for record in records if record.get("verdict") in ("good", "bad")]
    bad = [record["verdict"] == "bad" for record in judged]
    failing, passing, skipped = sum(bad), len(judged) - sum(bad), len(records) - len(judged)
    shared = words.shared([record for record in judged if record["verdict"] == "bad"])
    plain = Reasons(Outcome.NOTHING_TO_COMPARE, "", failing, passing, skipped, 0, LEVEL, shared=shared)
    if not failing or not passing:
        return replace(plain, sentence=words.nothing_to_compare(plain))
    every = questions(judged, special_ids)
    stats = significance.library()
    if stats is None:
        plain_counts = _kept([counted(question, bad) for question in every])
        plain = replace(plain, outcome=Outcome.NOT_TESTED, asked=len(every), findings=plain_counts)
        return replace(plain, sentence=words.not_tested(plain))
    asked = _worth_asking(every, bad)
    findings = tested(stats, asked, bad, words.alone(judged))
    notes = (*words.dependent(judged), *_confounded(stats, findings, asked))
    plain = replace(plain, asked=len(findings), findings=_kept(findings), notes=notes)
    return replace(plain, **_outcome(plain))


def _outcome(found: Reasons) -> dict[str, Any]:
    """Outcome and sentence."""
    if any(finding.significant for finding in found.findings):
        return {"outcome": Outcome.PATTERN, "sentence": words.pattern(found)}
    if not significance.could_tell(found.failing, found.passing, found.asked):
        return {"outcome": Outcome.TOO_FEW, "sentence": words.too_few(found)}
    return {"outcome": Outcome.NO_PATTERN, "sentence": words.no_pattern(found)}


def _worth_asking(every: Sequence[Question], bad: Sequence[bool]) -> list[Question]:
    """All questions about numbers, and those of yes or no that could come out significant."""
    plain = [question for question in every if not question.topic.is_number]
    marked = [sum(1 for value in question.values if value) for question in plain]
    others = len(every) - len(plain)
    worth = significance.worth_asking(sum(bad), len(bad) - sum(bad), marked, others)
    left_out = {question.topic.name for question, asked in zip(plain, worth, strict=True) if not asked}
    return [question for question in every if question.topic.name not in left_out]


def _kept(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """All findings but most of those about tokens: the significant stay, and those that come nearest to it."""
    tokens = [finding for finding in findings if finding.topic.family == "token" and not finding.significant]
    if any(finding.p is None for finding in tokens):
        tokens.sort(key=_difference)
    dropped = {finding.topic.name for finding in tokens[TOKENS_SHOWN:]}
    return tuple(finding for finding in findings if finding.topic.name not in dropped)


def _difference(finding: Finding) -> float:
    """Minus the difference between the two shares of a yes-or-no question."""
    shares = [(group.yes or 0) / group.of if group.of else 0.0 for group in (finding.failing, finding.passing)]
    return -abs(shares[0] - shares[1])


def _confounded(stats: Any, findings: Sequence[Finding], asked: Sequence[Question]) -> tuple[str, ...]:
    """A note on everything that goes together with the first finding, so that these prompts cannot tell them apart."""
    told = [finding for finding in findings if finding.significant and not finding.topic.is_consequence]
    if not told:
        return ()
    values = {question.topic.name: question.values for question in asked}
    first, said = told[0], []
    families = {first.topic.family}
    for other in told[1:]:
        if other.topic.family in families and other.topic.family != "token":
            continue
        families.add(other.topic.family)
        rho = significance.together(stats, values[first.topic.name], values[other.topic.name])
        if rho * rho >= SAME_THING:
            said.append(words.go_together(first, other, rho))
    return tuple(said[:TOKENS_SHOWN])
