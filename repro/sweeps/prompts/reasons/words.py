"""The sentences of an answer; numbers are rounded here, and nowhere before."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.core.chances import shown
from repro.core.sentences import listed, plain
from repro.sweeps.prompts.reasons.questions import Record
from repro.sweeps.prompts.reasons.significance import INSTALL

if TYPE_CHECKING:
    from repro.sweeps.prompts.reasons.findings import Finding, Group, Reasons

DIGITS = 4
MOST_NAMED = 3
"""How many different layers or tokens of the failing prompts are named."""


def finding(found: "Finding") -> str:
    """``18 of 18 failing prompts have padding, and 2 of 42 passing ones (...)``."""
    topic, failing, passing = found.topic, found.failing, found.passing
    if not topic.is_number:
        said = f"{failing.yes} of {failing.of} failing prompts {topic.verb} {topic.words}"
        said += f", and {passing.yes} of {passing.of} passing ones"
    elif failing.median is None or passing.median is None:
        return f"{topic.words}: only one of the two groups has any number for it."
    else:
        rises = failing.median >= passing.median if found.effect is None else found.effect > 0
        said = f"the failing prompts {topic.more if rises else topic.less}"
        said += f": {_range(failing)} against {_range(passing)}"
    complete = ", which separates them completely" if found.separates else ""
    return f"{said}{complete}{_figures(found)}."


def pattern(found: "Reasons") -> str:
    """The weightiest finding about the prompts themselves; one about what the model made of them only by itself."""
    first = found.findings[0]
    said = first.sentence
    if first.topic.is_consequence:
        return f"nothing about the prompts themselves tells them apart, but {said}"
    if first.ruled_out:
        said += f" But {first.ruled_out}, so it is not {first.topic.words} by itself."
    return said[:1].upper() + said[1:] if said[:1].isalpha() else said


def no_pattern(found: "Reasons") -> str:
    """Nothing tells them apart."""
    if not found.asked:
        return "no pattern: nothing was recorded that differs among the prompts, and that both kinds have."
    return (
        f"no pattern: none of {found.asked} questions tells the {found.failing} failing prompts from the "
        f"{found.passing} passing ones (the least corrected p is {_least(found)}, the level {found.level:g})."
    )


def too_few(found: "Reasons") -> str:
    """Even complete separation would not have been significant."""
    return (
        f"too few to tell: with {found.failing} failing and {found.passing} passing prompts, even a property that "
        "all of the ones and none of the others have could be chance."
    )


def nothing_to_compare(found: "Reasons") -> str:
    """Only one kind of prompt."""
    if not found.failing and not found.passing:
        return "no prompt was judged, so nothing can be compared."
    if found.failing:
        return f"all {found.failing} prompts fail: there is no passing one to compare them with."
    return f"all {found.passing} prompts pass: there is no failing one to explain."


def not_tested(found: "Reasons") -> str:
    """Counts without tests."""
    return (
        f"{found.failing} prompts fail and {found.passing} pass. What they have is counted, but not tested: that needs "
        f"scipy ({INSTALL})."
    )


def shared(failing: Sequence[Record]) -> tuple[str, ...]:
    """What the failing prompts have in common: where they go bad first, at which token, and whether alone too."""
    layers = _most([record.get("layer") for record in failing], "in")
    tokens = _most(_where(failing), "at")
    return tuple(said for said in (layers, tokens, _alone_too(failing)) if said)


def _alone_too(failing: Sequence[Record]) -> str | None:
    """How many fail without their batch, and how many of the others with its padding alone."""
    seen = Counter(record.get("alone") for record in failing)
    causes = Counter(record.get("cause") for record in failing)
    asked = seen["bad"] + seen["good"]
    if not asked:
        return None
    said = f"of {asked} failing prompts that were run alone, {seen['bad']} fail alone too and {seen['good']} only"
    padded = causes["padding"] + causes["composition"]
    more = f", {causes['padding']} of these for the padding that they have in it" if padded else ""
    return f"{said} in their batch{more}."


def alone(judged: Sequence[Record]) -> dict[str, str]:
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


def go_together(first: "Finding", other: "Finding", rho: float) -> str:
    """Two properties of which these prompts cannot say which it is, unless a run of one alone can."""
    said = f"{first.topic.words} and {other.topic.words} go together here (Spearman's rho {rho:.2f})"
    if other.ruled_out and not first.ruled_out:
        return f"{said}; {other.ruled_out}, so it is not {other.topic.words} by itself."
    complete = f"only {first.topic.words} separates the prompts completely, but " if _only(first, other) else ""
    return f"{said}: {complete}these prompts cannot tell which of the two it is."


def dependent(judged: Sequence[Record]) -> tuple[str, ...]:
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


def _only(first: "Finding", other: "Finding") -> bool:
    return first.separates and not other.separates


def _range(group: "Group") -> str:
    """``median 5 (3 to 9)``."""
    values = [plain(value, DIGITS) for value in (group.median, group.least, group.greatest) if value is not None]
    return "median {} ({} to {})".format(*values)


def _figures(found: "Finding") -> str:
    """The test in brackets."""
    if found.p is None or found.corrected is None:
        return ""
    parts = [f"{found.test}, p = {shown(found.p)}, corrected for all questions {shown(found.corrected)}"]
    if found.effect is not None:
        interval = found.interval
        ends = "" if interval is None else f", 95 % interval {interval[0]:.3g} to {interval[1]:.3g}"
        parts.append(f"{found.effect_name} {found.effect:.3g}{ends}")
    return f" ({'; '.join(parts)})"


def _least(found: "Reasons") -> str:
    values = [item.corrected for item in found.findings if item.corrected is not None]
    return shown(min(values))


def _where(records: Sequence[Record]) -> list[str | None]:
    """The first bad token of each: text or id, kind, and the place where that is the same for all or all there is."""
    same_place = len({record.get("token_index") for record in records}) == 1
    said: list[str | None] = []
    for record in records:
        place, text, number, kind = (record.get(key) for key in ("token_index", "token", "token_id", "token_kind"))
        name = repr(text) if isinstance(text, str) else "" if number is None else f"id {number}"
        parts = [name, f"({kind})" if kind else ""]
        if place is not None and (same_place or not any(parts)):
            parts.insert(0, str(place))
        words = " ".join(part for part in parts if part)
        said.append(f"token {words}" if words else None)
    return said


def _most(values: Sequence[str | None], preposition: str) -> str | None:
    """``all 38 failing prompts go bad first in model.layers.7.``, or the most frequent places with their counts."""
    known = Counter(value for value in values if value is not None)
    if not known:
        return None
    if len(known) == 1 and known.total() == len(values):
        which = "the failing prompt goes" if len(values) == 1 else f"all {len(values)} failing prompts go"
        return f"{which} bad first {preposition} {next(iter(known))}."
    most = known.most_common(MOST_NAMED)
    named = [f"{count} {preposition} {name}" for name, count in most]
    rest = known.total() - sum(count for _, count in most)
    places = listed([*named, f"{rest} elsewhere"] if rest else named)
    return f"where the {len(values)} failing prompts go bad first: {places}."
