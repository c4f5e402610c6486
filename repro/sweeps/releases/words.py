"""The answer in sentences."""

from collections.abc import Sequence

from packaging.version import Version

from repro.core.records import Outcome, Verdict
from repro.sweeps.releases.question import Change, Probe, Question


def moved(package: str, partner: str, other_partner: Probe, other_package: Probe) -> tuple[str, str]:
    """Which of the two packages the fault follows, with the reason.

    Args:
        package: The package searched.
        partner: The package that moved along with it.
        other_partner: The good release with the partner of the bad one: only the partner has moved.
        other_package: The bad release with the partner of the good one: only the package has moved.
    """
    outcomes = other_partner.verdict.outcome, other_package.verdict.outcome
    alone = f"{partner} {other_partner.pins[partner]} with {package} {other_partner.version}"
    other = f"{partner} {other_package.pins[partner]} with {package} {other_package.version}"
    said = (
        f"{alone}: {outcomes[0].value} ({_reason(other_partner)}); "
        f"{other}: {outcomes[1].value} ({_reason(other_package)})"
    )
    moved = {
        (Outcome.GOOD, Outcome.GOOD): "both needed",
        (Outcome.BAD, Outcome.BAD): "either alone",
        (Outcome.GOOD, Outcome.BAD): package,
        (Outcome.SKIP, Outcome.BAD): package,
        (Outcome.BAD, Outcome.GOOD): partner,
        (Outcome.BAD, Outcome.SKIP): partner,
    }.get(outcomes, "could not tell")
    return moved, said


def found(question: Question, changes: Sequence[Change]) -> Verdict:
    """The boundaries in a sentence."""
    return Verdict(Outcome.BAD, f"{question.package}: " + "; then ".join(_boundary(question, c) for c in changes))


def _boundary(question: Question, change: Change) -> str:
    good, bad = named(question, change.last_good), named(question, change.first_bad)
    if change.direction == "regression":
        sentence = f"{good} is the last good release and {bad} the first bad one"
    else:
        sentence = f"{bad} is the last bad release and {good} the first good one"
    if change.skipped:
        sentence += f", with {_unknown(change.skipped)} between them"
    if change.crossed:
        sentence += f"; they differ in both packages, and the fault follows: {change.moved} ({change.why})"
    return sentence


def nothing_found(question: Question, asked: Sequence[Probe]) -> Verdict:
    """Why there is no boundary. No more is said than what was asked."""
    unknown = [probe for probe in asked if probe.verdict.outcome is Outcome.SKIP]
    good = [probe for probe in asked if probe.verdict.outcome is Outcome.GOOD]
    hint = "; --with holds another" if question.partner else ""
    if question.walk_all:
        if len(good) == len(asked):
            return Verdict(Outcome.GOOD, f"all {len(asked)} releases of {question.package} are good")
        rest = f"; {_unknown(unknown)}{hint}" if unknown else ""
        word = "good" if good else "bad"
        decided = len(asked) - len(unknown)
        return Verdict(Outcome.SKIP, f"{decided} of {len(asked)} releases of {question.package} are {word}{rest}")
    if unknown:
        return Verdict(Outcome.SKIP, f"the search needs both ends, with {_unknown(unknown)}{hint}; choose another end")
    said_good, said_bad = _ends(question, asked)
    if good:
        more = "--all walks the whole range, for a fault that is bad only in a window"
        what = f"{named(question, said_bad)} was said to be bad and is good, as {named(question, said_good)} is"
        return Verdict(Outcome.GOOD, f"{question.package} {what}: no boundary lies between two good ends; {more}")
    what = f"{named(question, said_good)} was said to be good and is bad, as {named(question, said_bad)} is"
    more = "choose another --good, or let --all walk the whole range"
    return Verdict(Outcome.SKIP, f"{question.package} {what}: no boundary lies between two bad ends; {more}")


def _ends(question: Question, asked: Sequence[Probe]) -> tuple[Probe, Probe]:
    """The end that was said to be good and the one that was said to be bad; ``asked`` goes from the oldest on."""
    good_is_older = Version(question.good) < Version(question.bad)
    return (asked[0], asked[-1]) if good_is_older else (asked[-1], asked[0])


def named(question: Question, probe: Probe) -> str:
    """A release, with its partner where that was chosen here."""
    partner = question.partner
    if partner is None or partner not in probe.pins:
        return probe.version
    return f"{probe.version} (with {partner} {probe.pins[partner]})"


def _unknown(probes: Sequence[Probe]) -> str:
    """Releases that could not tell, with the first one's reason; the others' are in their records."""
    return f"{', '.join(probe.version for probe in probes)} skipped ({_reason(probes[0])})"


def _reason(probe: Probe) -> str:
    """The reason as a part of another sentence."""
    return probe.verdict.reason.rstrip(".")


def swapped(question: Question, asked: Sequence[Probe]) -> list[str]:
    """A note where the ends answered the other way round than was said."""
    said_good, said_bad = _ends(question, asked)
    if (said_good.verdict.outcome, said_bad.verdict.outcome) != (Outcome.BAD, Outcome.GOOD):
        return []
    return [f"{said_good.version} was said to be good and is bad; {said_bad.version} was said to be bad and is good."]


def different_kinds(probes: Sequence[Probe]) -> list[str]:
    """A note where the bad releases do not all show the same kind of fault."""
    kinds: dict[str, list[str]] = {}
    for probe in probes:
        if probe.verdict.outcome is Outcome.BAD and probe.kind is not None:
            kinds.setdefault(probe.kind, []).append(probe.version)
    if len(kinds) < 2:
        return []
    said = "; ".join(f"{kind} in {', '.join(dict.fromkeys(versions))}" for kind, versions in kinds.items())
    return [f"The bad releases do not show the same kind of fault: {said}. The boundary may be that of another fault."]
