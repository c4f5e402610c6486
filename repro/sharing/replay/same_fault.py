"""Whether what was seen again is the same fault: same operator, same mechanism, same module. Pure.

"It still fails" is not enough. A fault that moved to another operator is another fault, and may hide whether the first
one is still there. So "other fault" is never counted as bad, and never as good.
"""

import enum
import re
from collections.abc import Sequence

from repro.core.answer import Answer, ScriptRecord
from repro.core.encoding import Record
from repro.core.payloads import Origin
from repro.core.records import Outcome
from repro.core.sentences import listed, sentence

FIGURE = re.compile(r"(?<![\w.])[-+]?\d[\w.]*(?:[-+]\w[\w.]*)?")
"""A number or a version that stands by itself. ``float16`` and ``layers.7`` are names, ``nan`` and ``inf`` words."""


class Match(enum.Enum):
    """What a replay found."""

    SAME = "same fault"
    OTHER = "other fault"
    GONE = "gone"
    UNKNOWN = "could not tell"

    @property
    def outcome(self) -> Outcome:
        """Another fault may hide the one that was looked for: that could not be told."""
        return {Match.SAME: Outcome.BAD, Match.GONE: Outcome.GOOD}.get(self, Outcome.SKIP)


class Finding(Record, frozen=True, kw_only=True):
    """What one part of a replay found. ``what`` is the script's name, or the command of the run."""

    what: str
    answer: Match
    reason: str
    exit_statuses: tuple[int | None, ...] = ()
    output: str | None = None


def of_script(
    what: str, record: ScriptRecord, exit_statuses: Sequence[int | None], output: str, reason: str
) -> Finding:
    """What a script's runs show.

    Args:
        what: The script's name.
        record: What verdict.json says of it: whether it was verified, and what it printed.
        exit_statuses: Of each run; None where it did not end in time.
        output: What the last of them printed.
        reason: What they came to, as a sentence.
    """

    def found(answer: Match, why: str) -> Finding:
        return Finding(
            what=what, answer=answer, reason=why.rstrip("."), exit_statuses=tuple(exit_statuses), output=output
        )

    if not exit_statuses or set(exit_statuses) - {0, 1}:
        return found(Match.UNKNOWN, reason)
    bad = sum(status == 1 for status in exit_statuses)
    if not bad:
        if not record.verified:
            return found(Match.UNKNOWN, "it shows nothing here, and did not when it was written either")
        return found(Match.GONE, f"{reason.rstrip('.')}{_last(output)}")
    times = f"{bad} of {len(exit_statuses)} runs ended with exit status 1"
    if lines(output) == lines(record.output):
        return found(Match.SAME, f"{times} and printed the same as when it was written, apart from figures")
    return found(Match.OTHER, f"{times} but printed something other than when it was written{_last(output)}")


def lines(output: str) -> list[str]:
    """The lines of an output without its figures, which differ from machine to machine where the fault does not.

    "nan" and "inf" stay: a number that is not finite is what the fault is.
    """
    return [" ".join(FIGURE.sub("#", line).split()) for line in output.splitlines() if line.strip()]


def _last(output: str) -> str:
    """The last line that says something."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return f": {last[:300]}" if last else ""


def of_run(what: str, before: Answer, after: Answer) -> Finding:
    """What a run shows beside the one that was recorded.

    Args:
        what: The command of the new run.
        before: The recorded answer, whose verdict is bad.
        after: That of the new run.
    """
    answer, reason = _compared(before, after)
    return Finding(what=what, answer=answer, reason=reason)


def _compared(before: Answer, after: Answer) -> tuple[Match, str]:
    if after.verdict is Outcome.GOOD:
        return Match.GONE, f"good: {sentence(after.reason)}"
    if after.verdict is not Outcome.BAD:
        return Match.UNKNOWN, sentence(after.reason)
    if before.kind is not after.kind:
        was, now = (answer.kind and answer.kind.value for answer in (before, after))
        return Match.OTHER, f"its kind was {was} and is {now}: {after.reason}"
    if before.origin and after.origin:
        return _origins(before.origin, after.origin)
    if before.origin or after.origin:
        where = "when it was recorded" if after.origin else "here"
        return Match.UNKNOWN, f"bad, but its origin was not found {where}: {after.reason}"
    was_found, is_found = _findings(before), _findings(after)
    if was_found != is_found:
        before_only, here_only = _few(was_found - is_found), _few(is_found - was_found)
        return Match.OTHER, f"what was found differs: {before_only} before, {here_only} here"
    if is_found:
        return Match.SAME, f"found again: {_few(is_found)}"
    if not after.script:
        return Match.UNKNOWN, f"bad of the same kind, and nothing more is known: {after.reason}"
    if lines(before.reason) != lines(after.reason):
        return Match.OTHER, f"the reason was: {before.reason}; and is: {after.reason}"
    return Match.SAME, sentence(after.reason)


def _origins(before: Origin, after: Origin) -> tuple[Match, str]:
    """Two origins are one fault where operator, mechanism and module are the same."""
    pairs = [
        ("operator", before.op, after.op),
        ("mechanism", before.mechanism, after.mechanism),
        ("module", before.module, after.module),
    ]
    moved = [f"the {word} was {was} and is {now}" for word, was, now in pairs if was != now]
    if moved:
        return Match.OTHER, "; ".join(moved)
    return Match.SAME, "; ".join(f"{word} {now}" for word, _, now in pairs if now is not None)


def _findings(answer: Answer) -> set[str]:
    """What the steps that need no origin found: bad files, tensors and keys."""
    found = {item.tensor for item in (answer.weights.findings if answer.weights else ())}
    for step in (answer.files, answer.load):
        found |= {item.file or item.problem for item in (step.findings if step else ()) if item.severity == "bad"}
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
    telling = [found for found in findings if found.answer is not Match.UNKNOWN]
    if not telling:
        said = "; ".join(f"{found.what}: {found.reason}" for found in findings)
        return Finding(what="replay", answer=Match.UNKNOWN, reason=said or "there is nothing that can be run here")
    first = telling[0]
    others = [f"{found.what} says: {found.answer.value}" for found in telling[1:] if found.answer is not first.answer]
    reason = "; but ".join([f"{first.what}: {first.reason}", *others])
    return Finding(what="replay", answer=first.answer, reason=reason)
