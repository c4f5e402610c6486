"""What comes out of a comparison, as records that can say themselves in words."""

import enum
from dataclasses import dataclass
from typing import Any

from repro.core.encoding import to_json
from repro.sweeps.prompts.reasons import words
from repro.sweeps.prompts.reasons.questions import Topic


class Outcome(enum.Enum):
    """What the comparison came to."""

    PATTERN = "pattern"
    NO_PATTERN = "no pattern"
    TOO_FEW = "too few"
    NOTHING_TO_COMPARE = "nothing to compare"
    NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True)
class Group:
    """The failing or the passing prompts, as one question sees them.

    ``of`` are those that have an answer. ``yes`` is how many have it, for yes or no; the others are for numbers.
    """

    of: int
    yes: int | None = None
    median: float | None = None
    least: float | None = None
    greatest: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and what came of it.

    ``corrected`` is ``p`` corrected for all questions (Holm); ``significant`` where it is at most the level.
    ``separates`` where failing and passing have no answer in common. The test's fields are None without scipy.
    ``ruled_out`` says why it cannot be the reason by itself, where runs of one prompt alone show it.
    """

    topic: Topic
    failing: Group
    passing: Group
    separates: bool
    p: float | None = None
    corrected: float | None = None
    significant: bool = False
    test: str | None = None
    effect: float | None = None
    effect_name: str | None = None
    interval: tuple[float, float] | None = None
    ruled_out: str | None = None

    @property
    def sentence(self) -> str:
        """What was found, with figures."""
        return words.finding(self)


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why these prompts.

    ``findings`` are in order of weight: what tells the prompts apart comes first. ``asked`` counts all questions, also
    those about tokens that are not among the findings. ``shared`` says what the failing prompts have in common,
    whatever the passing ones have.
    """

    outcome: Outcome
    sentence: str
    failing: int
    passing: int
    skipped: int
    asked: int
    level: float
    findings: tuple[Finding, ...] = ()
    shared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it in words."""
        return (self.sentence, *self.shared, *self.notes)

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the sentences."""
        findings = [{**to_json(finding), "sentence": finding.sentence} for finding in self.findings]
        return {**to_json(self), "findings": findings, "sentences": list(self.sentences)}
