"""The failing prompts against the passing ones, question by question, and the answer in words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from repro.core.encoding import replace
from repro.core.sweep_answers import PromptFinding, Why, WhyOutcome
from repro.jobs.chances import LEVEL, shown
from repro.sweeps.prompts.reasons import significance
from repro.sweeps.prompts.reasons.comparison import counted, tested, with_sentence
from repro.sweeps.prompts.reasons.questions import Question, Record, is_consequence, is_number, questions
from repro.sweeps.prompts.reasons.shared import shared

TOKENS_SHOWN = 5
"""How many of the token questions are kept besides those that tell the prompts apart."""
SAME_THING = 0.5
"""Two questions go together where the square of their rank correlation is at least this: the one then accounts for
half of the other's variation."""


def reasons(records: Sequence[Record], *, special_ids: Sequence[int] = ()) -> Why:
    """Compare the failing prompts with the passing ones.

    Args:
        records: The examples of ``prompts.jsonl``; those that are neither good nor bad are left out and counted.
        special_ids: The tokenizer's special tokens, where they are known.
    """
    judged = [record for record in records if record.get("verdict") in ("good", "bad")]
    why = _compared(judged, len(records) - len(judged), special_ids)
    return replace(why, sentences=(why.sentence, *why.shared, *why.notes))


def _compared(judged: Sequence[Record], skipped: int, special_ids: Sequence[int]) -> Why:
    bad = [record["verdict"] == "bad" for record in judged]
    failing, passing = sum(bad), len(judged) - sum(bad)
    why = Why(
        outcome=WhyOutcome.NOTHING_TO_COMPARE,
        sentence=_nothing_to_compare(failing, passing),
        failing=failing,
        passing=passing,
        skipped=skipped,
        asked=0,
        level=LEVEL,
        shared=shared([record for record in judged if record["verdict"] == "bad"]),
    )
    if not failing or not passing:
        return why
    every = questions(judged, special_ids)
    stats = significance.library()
    if stats is None:
        plain = _kept([with_sentence(counted(question, bad)) for question in every])
        return replace(
            why,
            outcome=WhyOutcome.NOT_TESTED,
            sentence=f"{failing} prompts fail and {passing} pass. What they have is counted, but not tested: that "
            f"needs scipy ({significance.INSTALL}).",
            asked=len(every),
            findings=plain,
            notes=_counts(plain),
        )
    asked = _worth_asking(every, bad)
    findings = tested(stats, asked, bad, _ruled_out_alone(judged))
    notes = (*_dependent(judged), *_confounded(stats, findings, asked))
    why = replace(why, asked=len(findings), findings=_kept(findings), notes=notes)
    outcome, sentence = _outcome(why)
    return replace(why, outcome=outcome, sentence=sentence)


def _nothing_to_compare(failing: int, passing: int) -> str:
    if not failing and not passing:
        return "no prompt was judged, so nothing can be compared."
    if failing:
        return f"all {failing} prompts fail: there is no passing one to compare them with."
    return f"all {passing} prompts pass: there is no failing one to explain."


def _outcome(why: Why) -> tuple[WhyOutcome, str]:
    """Outcome and sentence."""
    if any(finding.significant for finding in why.findings):
        return WhyOutcome.PATTERN, _pattern(why.findings[0])
    if not significance.could_tell(why.failing, why.passing, why.asked):
        return WhyOutcome.TOO_FEW, (
            f"too few to tell: with {why.failing} failing and {why.passing} passing prompts, even a property that all "
            "failing prompts and no passing one have could be chance."
        )
    if not why.asked:
        nothing = "no pattern: nothing was recorded that differs among the prompts, and that both kinds have."
        return WhyOutcome.NO_PATTERN, nothing
    least = min(finding.corrected for finding in why.findings if finding.corrected is not None)
    return WhyOutcome.NO_PATTERN, (
        f"no pattern: none of {why.asked} questions tells the {why.failing} failing prompts from the {why.passing} "
        f"passing ones (the least corrected p is {shown(least)}, the level {why.level:g})."
    )


def _pattern(first: PromptFinding) -> str:
    """The weightiest finding about the prompts themselves; one about what the model made of them only by itself."""
    said = first.sentence
    if is_consequence(first.topic):
        return f"nothing about the prompts themselves tells them apart, but {said}"
    if first.ruled_out:
        said += f" But {first.ruled_out}, so it is not {first.topic.words} by itself."
    return said[:1].upper() + said[1:] if said[:1].isalpha() else said


def _worth_asking(every: Sequence[Question], bad: Sequence[bool]) -> list[Question]:
    """All questions about numbers, and those of yes or no that could come out significant."""
    plain = [question for question in every if not is_number(question.topic)]
    marked = [sum(1 for value in question.values if value) for question in plain]
    others = len(every) - len(plain)
    worth = significance.worth_asking(sum(bad), len(bad) - sum(bad), marked, others)
    left_out = {question.topic.name for question, asked in zip(plain, worth, strict=True) if not asked}
    return [question for question in every if question.topic.name not in left_out]


def _kept(findings: Sequence[PromptFinding]) -> tuple[PromptFinding, ...]:
    """All findings but most of those about tokens: the significant stay, and those that come nearest to it."""
    tokens = [finding for finding in findings if finding.topic.family == "token" and not finding.significant]
    if any(finding.p is None for finding in tokens):
        tokens.sort(key=_difference)
    dropped = {finding.topic.name for finding in tokens[TOKENS_SHOWN:]}
    return tuple(finding for finding in findings if finding.topic.name not in dropped)


def _counts(findings: Sequence[PromptFinding]) -> tuple[str, ...]:
    """The counts to print where nothing is tested: tokens that more of the failing prompts have, and what separates the
    two groups completely.
    """
    tokens = [finding for finding in findings if finding.topic.family == "token" and _is_common(finding)]
    complete = [finding for finding in findings if finding.topic.family != "token" and finding.separates]
    return tuple(finding.sentence for finding in (*sorted(tokens, key=_difference)[:TOKENS_SHOWN], *complete))


def _is_common(finding: PromptFinding) -> bool:
    """Whether more of the failing prompts have it than of the passing ones."""
    failing, passing = finding.failing, finding.passing
    return (failing.yes or 0) * passing.of > (passing.yes or 0) * failing.of


def _difference(finding: PromptFinding) -> float:
    """Minus the difference between the two shares of a yes-or-no question."""
    shares = [(group.yes or 0) / group.of if group.of else 0.0 for group in (finding.failing, finding.passing)]
    return -abs(shares[0] - shares[1])


def _confounded(stats: Any, findings: Sequence[PromptFinding], asked: Sequence[Question]) -> tuple[str, ...]:
    """A note on everything that goes together with the first finding, so that these prompts cannot tell them apart."""
    told = [finding for finding in findings if finding.significant and not is_consequence(finding.topic)]
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
            said.append(_go_together(first, other, rho))
    return tuple(said[:TOKENS_SHOWN])


def _go_together(first: PromptFinding, other: PromptFinding, rho: float) -> str:
    """Two properties of which these prompts cannot say which it is, unless a run of one alone can."""
    said = f"{first.topic.words} and {other.topic.words} go together here (Spearman's rho {rho:.2f})"
    if other.ruled_out and not first.ruled_out:
        return f"{said}; {other.ruled_out}, so it is not {other.topic.words} by itself."
    complete = f"only {first.topic.words} separates the prompts completely, but " if _only(first, other) else ""
    return f"{said}: {complete}these prompts cannot tell which of the two it is."


def _only(first: PromptFinding, other: PromptFinding) -> bool:
    return first.separates and not other.separates


def _ruled_out_alone(judged: Sequence[Record]) -> dict[str, str]:
    """Which properties the runs of one prompt alone rule out as the reason by themselves, by family, and why."""
    failing = [record for record in judged if record["verdict"] == "bad"]
    seen = Counter(record.get("alone") for record in failing)
    causes = Counter(record.get("cause") for record in failing)
    if seen["bad"] and not seen["good"]:
        return {"padding": f"alone, without padding, all {seen['bad']} that were run fail as well"}
    if not seen["good"] or seen["bad"]:
        return {}
    own = f"alone, with the same tokens and without padding, all {seen['good']} that were run pass"
    ruled_out = dict.fromkeys(("length", "token", "special", "side"), own)
    if causes["composition"] == seen["good"]:
        ruled_out["padding"] = f"alone, with the padding that they have in their batch, all {seen['good']} pass"
    return ruled_out


def _dependent(judged: Sequence[Record]) -> tuple[str, ...]:
    """Why the chances may be smaller than they should be: prompts that fail together are counted one by one."""
    batches: dict[object, list[object]] = {}
    for record in judged:
        batches.setdefault(record.get("batch"), []).append(record["verdict"])
    batches.pop(None, None)
    several = [verdicts for verdicts in batches.values() if len(verdicts) > 1]
    notes = []
    if len(several) > 1 and all(len(set(verdicts)) == 1 for verdicts in several) and len({v[0] for v in several}) == 2:
        notes.append("every batch fails or passes as a whole: the prompts of one are not independent of each other.")
    if any(record.get("side") for record in judged):
        notes.append("the two sides of a pair are not independent of each other, but are counted as if they were.")
    return tuple(notes)
