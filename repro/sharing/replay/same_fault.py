"""Whether what was seen again is the same fault: same operator, same mechanism, same module. Pure.

"It still fails" is not enough. A fault that moved to another operator is another fault, and may hide whether the first
one is still there. So "other fault" is never counted as bad, and never as good.
"""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.records import Outcome
from repro.core.sentences import listed, sentence

FIELDS = {"op": "operator", "mechanism": "mechanism", "module": "module"}
"""What two origins must have in common to be one fault, and its word."""
FIGURE = re.compile(r"(?<![\w.])[-+]?\d[\w.]*(?:[-+]\w[\w.]*)?")
"""A number or a version that stands by itself. ``float16`` and ``layers.7`` are names, ``nan`` and ``inf`` words."""


class Answer(enum.Enum):
    """What a replay found."""

    SAME = "same fault"
    OTHER = "other fault"
    GONE = "gone"
    UNKNOWN = "could not tell"

    @property
    def outcome(self) -> Outcome:
        """Another fault may hide the one that was looked for: that could not be told."""
        return {Answer.SAME: Outcome.BAD, Answer.GONE: Outcome.GOOD}.get(self, Outcome.SKIP)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one part of a replay found. ``what`` is the script's name, or the command of the run."""

    what: str
    answer: Answer
    reason: str
    exit_statuses: tuple[int | None, ...] = ()
    output: str | None = None


def of_script(
    what: str, record: Mapping[str, Any], exit_statuses: Sequence[int | None], output: str, reason: str
) -> Finding:
    """What a script's runs show.

    Args:
        what: The script's name.
        record: Its part of verdict.json's "reproducer": whether it was verified, and what it printed.
        exit_statuses: Of each run; None where it did not end in time.
        output: What the last of them printed.
        reason: What they came to, as a sentence.
    """

    def found(answer: Answer, why: str) -> Finding:
        return Finding(what, answer, why.rstrip("."), tuple(exit_statuses), output)

    if not exit_statuses or set(exit_statuses) - {0, 1}:
        return found(Answer.UNKNOWN, reason)
    bad = sum(status == 1 for status in exit_statuses)
    if not bad:
        if not record.get("verified"):
            return found(Answer.UNKNOWN, "it shows nothing here, and did not when it was written either")
        return found(Answer.GONE, f"{reason.rstrip('.')}{_last(output)}")
    times = f"{bad} of {len(exit_statuses)} runs ended with exit status 1"
    if lines(output) == lines(str(record.get("output") or "")):
        return found(Answer.SAME, f"{times} and printed what was printed when it was written, figures aside")
    return found(Answer.OTHER, f"{times} and printed something else than when it was written{_last(output)}")


def lines(output: str) -> list[str]:
    """The lines of an output without its figures, which differ from machine to machine where the fault does not.

    "nan" and "inf" stay: a number that is not finite is what the fault is.
    """
    return [" ".join(FIGURE.sub("#", line).split()) for line in output.splitlines() if line.strip()]


def _last(output: str) -> str:
    """The last line that says something."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return f": {last[:300]}" if last else ""


def of_run(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Finding:
    """What a run shows beside the one that was recorded.

    Args:
        what: The command of the new run.
        before: The recorded verdict.json, whose verdict is bad.
        after: That of the new run.
    """
    if after["verdict"] == Outcome.GOOD.value:
        return Finding(what, Answer.GONE, f"good: {sentence(str(after['reason']))}")
    if after["verdict"] != Outcome.BAD.value:
        return Finding(what, Answer.UNKNOWN, sentence(str(after["reason"])))
    if before["kind"] != after["kind"]:
        return Finding(what, Answer.OTHER, f"its kind was {before['kind']} and is {after['kind']}: {after['reason']}")
    if before["origin"] and after["origin"]:
        pairs = [(word, before["origin"].get(key), after["origin"].get(key)) for key, word in FIELDS.items()]
        moved = [f"the {word} was {was} and is {now}" for word, was, now in pairs if was != now]
        if moved:
            return Finding(what, Answer.OTHER, "; ".join(moved))
        return Finding(what, Answer.SAME, "; ".join(f"{word} {now}" for word, _, now in pairs if now is not None))
    if before["origin"] or after["origin"]:
        which = "was not found when it was recorded" if after["origin"] else "was not found here"
        return Finding(what, Answer.UNKNOWN, f"bad, but where it is born {which}: {after['reason']}")
    was, now = _findings(before), _findings(after)
    if was != now:
        return Finding(what, Answer.OTHER, f"what was found differs: {_few(was - now)} before, {_few(now - was)} here")
    if now:
        return Finding(what, Answer.SAME, f"found again: {_few(now)}")
    if not after.get("script"):
        return Finding(what, Answer.UNKNOWN, f"bad of the same kind, and nothing more is known: {after['reason']}")
    if lines(str(before["reason"])) != lines(str(after["reason"])):
        return Finding(what, Answer.OTHER, f"the reason was: {before['reason']}; and is: {after['reason']}")
    return Finding(what, Answer.SAME, sentence(str(after["reason"])))


def _findings(document: Mapping[str, Any]) -> set[str]:
    """What the steps that need no origin found: bad files, tensors and keys."""
    found = set()
    for step in ("files", "weights", "load"):
        for item in (document.get(step) or {}).get("findings") or ():
            if item.get("severity", "bad") == "bad":
                found.add(str(item.get("tensor") or item.get("file") or item.get("problem")))
    return found


def _few(names: set[str]) -> str:
    chosen = sorted(names)[:3]
    return listed([*chosen, f"{len(names) - 3} more"] if len(names) > 3 else chosen) if names else "nothing"


def overall(findings: Sequence[Finding]) -> Finding:
    """The answer of the whole replay: that of the first part that could tell.

    A script is a copy in the small. Where a release mends a model by keeping its numbers in range, the operator
    overflows for ever after. So the parts come in order of how near they are to what the user has: the run of the model
    before a script that builds one layer, and that before a script with one operator.
    """
    telling = [found for found in findings if found.answer is not Answer.UNKNOWN]
    if not telling:
        why = (
            "; ".join(f"{found.what}: {found.reason}" for found in findings) or "there is nothing that can be run here"
        )
        return Finding("replay", Answer.UNKNOWN, why)
    first = telling[0]
    others = [f"{found.what} says: {found.answer.value}" for found in telling[1:] if found.answer is not first.answer]
    return Finding("replay", first.answer, "; but ".join([f"{first.what}: {first.reason}", *others]))
