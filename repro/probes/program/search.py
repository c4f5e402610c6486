"""Which candidate of a program makes it bad: it is run again with candidates repaired, and its end decides.

All of them are repaired together first: a program that stays bad is not bad through them. Then the shortest beginning
of their list, in order of running, is looked for that makes it bad when only the candidates in it are left as they are:
its last one is at fault. Halving finds it in about log2(n) runs, and all that ran before it are ruled out together.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Optional

from .capture import WINDOW, Found, Wanted
from .makers import MADE, UNSET, Candidate, Rule, Seen
from .runs import Ended, Runs

STAND_INS = (0.0, 1.0)  # a probability that is repaired to 0 may raise by itself
FAST_PATH = "fast_path=off"
LISTED = 50  # candidates that are listed as ruled out
NAN = float("nan")


@dataclass(frozen=True)
class Answer:
    """What a search says. found: the candidate at fault, captured. confirmed_by: the experiment that shows it. is_open:
    whether the candidates could not be told apart, so that one of them may be at fault.
    """

    found: Optional[Found] = None
    confirmed_by: Optional[str] = None
    ruled_out: tuple[Candidate, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Watched:
    """The program watched, with unset memory filled: how it ended, what was seen, and the rule that goes with it."""

    ran: Ended
    seen: Optional[Seen]
    rule: Rule
    same: bool


def watch(runs: Runs) -> Watched:
    """The program watched, nothing repaired: with unset memory filled with 0, and if it does not fail so, with NaN."""
    made = [_watched(runs, Rule(fill=0.0))]
    if not made[0].same:
        made.append(_watched(runs, Rule(fill=NAN)))
        if not made[1].same:
            return made[0]
    return made[-1]


def _watched(runs: Runs, rule: Rule) -> Watched:
    ran = runs.look(rule)
    return Watched(ran, ran.found, rule, runs.same(ran))


def search(runs: Runs, watched: Watched) -> Answer:
    """Who is at fault, among the candidates of a watched run that fails as the plain one does."""
    seen = watched.seen
    if seen is None:
        return Answer(why="the watched run ended before it could say what it saw", is_open=True)
    notes = _unseen(seen)
    if watched.rule.fill != 0.0:  # filled with 0 it does not fail: unset memory is in it
        tiers: tuple[tuple[Candidate, ...], ...] = (tuple(c for c in seen.candidates if c.kind == UNSET),)
    else:
        made = [c for c in seen.candidates if c.kind != UNSET]
        first = tuple(c for c in made if not c.meant)
        tiers = (first, tuple(made)) if len(first) < len(made) else (first,)
    for number, tier in enumerate(tiers):
        if not tier:
            continue
        rule = _repairing(runs, watched.rule, meant=number > 0)
        if rule is None:
            continue
        return _among(runs, tier, rule, notes)
    count = len(tiers[-1]) if tiers else 0
    if count:
        why = f"{runs.noun} is bad also with all {count} operators repaired that make a NaN or Inf"
        return Answer(why=why, notes=notes, ruled_out=tiers[-1])
    return Answer(why="no operator makes a NaN or Inf", notes=notes)


def _unseen(seen: Seen) -> tuple[str, ...]:
    notes = []
    if seen.unseen:
        count, first = sum(seen.unseen.values()), next(iter(seen.unseen))
        notes.append(f"{count:,} of {seen.operators:,} operators could not be looked at ({first}, ...)")
    if seen.left_out:
        notes.append(f"{seen.left_out:,} more operators that make a NaN or Inf were not listed")
    if seen.other_threads:
        notes.append("other threads ran, which are not watched")
    return tuple(notes)


def _repairing(runs: Runs, base: Rule, meant: bool) -> Optional[Rule]:
    """The rule under which the program is well with everything repaired; None where it stays bad."""
    for stand_in in STAND_INS:
        rule = dataclasses.replace(base, repair=True, meant=meant, stand_in=stand_in)
        if runs.well(runs.look(rule)):
            return rule
    return None


def _among(runs: Runs, tier: tuple[Candidate, ...], rule: Rule, notes: tuple[str, ...]) -> Answer:
    """The last of the shortest beginning of ``tier`` that makes the program bad by itself."""
    low, high = 0, len(tier)  # with the first ``low`` left alone it is well, with the first ``high`` it is bad
    names = [candidate.name for candidate in tier]
    while high - low > 1:
        if runs.is_over:
            why = f"no origin was found in {runs.seconds:g} s of runs of {runs.noun}; {high - low} operators are left"
            return Answer(why=why, notes=notes, is_open=True)
        middle = (low + high) // 2
        if runs.same(runs.look(dataclasses.replace(rule, leave=frozenset(names[:middle])))):
            high = middle
        else:
            low = middle
    guilty = tier[high - 1]
    earlier = _leads_to_it(runs, tier[: high - 1], rule)
    led = guilty if earlier is not None else None
    guilty = earlier or guilty
    alone = dataclasses.replace(rule, leave=frozenset([guilty.name]))
    suffices = runs.same(runs.look(alone))
    repaired = runs.well(runs.look(dataclasses.replace(rule, only=frozenset([guilty.name]))))
    confirmed_by = "repaired" if repaired else "suffices" if suffices else "together"
    kept = alone if suffices else dataclasses.replace(rule, leave=frozenset(names[:high]))
    found = captured(runs, guilty, kept)
    ruled_out = tier[: high - 1] if confirmed_by != "together" else ()
    if led is not None:
        notes = (*notes, f"what it made leads to {led.address.op} at {led.source}")
        ruled_out = tuple(item for item in ruled_out if item.place < guilty.place)
    if found is None:
        where = f"{guilty.address.op} at {guilty.source}"
        return Answer(why=f"{where} makes {runs.noun} bad, but could not be looked at again", notes=notes, is_open=True)
    if found.address != guilty.address:
        name = (MADE, found.address)
        cured = runs.well(runs.look(dataclasses.replace(rule, meant=True, only=frozenset([name]))))
        confirmed_by = "repaired" if cured else confirmed_by
    return Answer(found, confirmed_by, ruled_out, notes=notes)


def _leads_to_it(runs: Runs, before: tuple[Candidate, ...], rule: Rule) -> Optional[Candidate]:
    """An earlier operator without whose bad values the program is well: they left PyTorch (``.item()``, NumPy) and came
    in again, or were absorbed (1 / inf is 0) and led to 0 / 0. None where all that ran before has no part in it.
    """
    made = [candidate.name for candidate in before if candidate.kind == MADE]
    for stand_in in STAND_INS if made else ():
        rule = dataclasses.replace(rule, stand_in=stand_in)
        if runs.well(runs.look(dataclasses.replace(rule, only=frozenset(made)))):
            break
    else:
        return None
    low, high = 0, len(made)
    while high - low > 1 and not runs.is_over:
        middle = (low + high) // 2
        if runs.well(runs.look(dataclasses.replace(rule, only=frozenset(made[:middle])))):
            high = middle
        else:
            low = middle
    return next(candidate for candidate in before if candidate.name == made[high - 1])


def captured(runs: Runs, guilty: Candidate, rule: Rule) -> Optional[Found]:
    """The candidate at fault, looked at in one more run."""
    return runs.capture(Wanted(guilty.name, rule, max(0, guilty.place - WINDOW)))


def inside_the_fast_path(runs: Runs, watched: Watched, answer: Answer) -> Answer:
    """Where the fault is inside PyTorch's transformer layers: their Python code shows more than their fused kernels.

    A fault that the Python code does not have is one of the fused kernels.
    """
    seen = watched.seen
    if answer.found is None and seen is not None and seen.fused is not None:
        if not runs.well(runs.unwatched(FAST_PATH)):
            return answer
        found = captured(runs, seen.fused, dataclasses.replace(watched.rule, repair=False))
        answer = dataclasses.replace(answer, found=found, confirmed_by="layers")
        if found is not None:
            found.origin.update(layer="fast path", mechanism="kernel")
        return answer
    if answer.found is None or not answer.found.fused:
        return answer
    if runs.well(runs.unwatched(FAST_PATH)):
        answer.found.origin.update(layer="fast path", mechanism="kernel")
        return answer
    slow = runs.with_settings(FAST_PATH)
    again = watch(slow)
    inner = search(slow, again) if again.same else answer
    return inner if inner.found is not None else answer


def payload(answer: Answer) -> dict[str, Any]:
    """The bisect step's payload."""
    found = answer.found
    origin = None
    if found is not None:
        origin = {**found.origin, "confirmed": True, "confirmed_by": answer.confirmed_by}
        if answer.notes:
            origin["note"] = "; ".join(dict.fromkeys(filter(None, (origin["note"], *answer.notes))))
    shown = answer.ruled_out[:LISTED]
    why = "it is bad for another reason: with this as it is and what follows repaired, it is good"
    output = (origin or {}).get("output") or {}
    return {
        "origin": origin,
        "prompt": None,
        "spread": [],
        "headroom": [],
        "limit": (origin or {}).get("limit"),
        "dtype": output.get("dtype"),
        "ruled_out": [{"module": item.address.module, "op": item.address.op, "why": why} for item in shown],
        "screened_calls": 0,
    }
