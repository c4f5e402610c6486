"""What a script ends with, where that is born, what makes it go away, and the smallest case of it."""

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Optional

from ..origin.search import sentence
from ..program.answer import smallest
from ..program.search import FAST_PATH, Answer, Watched, inside_the_fast_path, payload, search, watch
from ..program.settings import SETTINGS
from ..protocol.wire import Outcome
from ..reduce.trials import Trials
from . import compiled
from .chance import LONG, Chance, chance_of, decided_by_draws, failing, under
from .rounding import Rounded
from .run import run_plainly
from .runs import Runs

ROUNDING = "script.rounding:watched_rounding"
PLAIN_ATTENTION = "attn=math"


@dataclass
class Script:
    """What was asked of one script in this process."""

    runs: Runs
    watched: Optional[Watched] = None
    found: Optional[Answer] = None
    nonfinite: bool = False
    unsure: bool = False
    chance: Chance = field(default_factory=Chance)

    @property
    def by_chance(self) -> bool:
        """Whether it does not end the same way twice, with nothing changed."""
        return self.chance.other is not None

    @property
    def verdict(self) -> str:
        """An exception that only comes with a NaN or Inf is the fault itself; ``unsure``: it is bad, and not known why,
        where another run was good.
        """
        if self.unsure:
            return "skip"
        return "bad" if self.nonfinite else self.runs.plain.verdict

    def watch(self) -> Watched:
        if self.watched is None:
            self.watched = watch(self.runs)
        return self.watched


def asked(path: str) -> Script:
    """The script run once, as ``python path`` would.

    One that a signal ends takes this process along in the same way: a crash is told by whoever started it.
    """
    begin = time.monotonic()
    plain = run_plainly(path)
    if plain.crashed:
        number = -plain.exit_status
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    runs = Runs(path, plain)
    is_long = plain.verdict == "good" and time.monotonic() - begin > LONG
    chance = Chance() if is_long else chance_of(runs)
    if chance.unseeded and chance.other is not None and chance.seed is not None and plain.verdict != "good":
        runs = under(runs, chance.seed)  # from the numbers with which it fails as it did
    script = _failing(runs, chance) if plain.verdict == "good" and chance.other is not None else None
    if script is None:
        script = begun(runs)
        script.chance = chance
    return script


def _failing(runs: Runs, chance: Chance) -> Optional[Script]:
    """A script that was good once and then was not, as seen from a run that was not: bad where what it draws decides,
    or where a NaN or Inf does; None where that run says nothing of the script.
    """
    turned = failing(runs, chance)
    if turned is None:
        return None
    script = begun(turned[0])
    script.chance = turned[1]
    if script.runs.plain.verdict != "bad":
        return script if script.nonfinite else None
    if not decided_by_draws(*turned):
        script.unsure = not _is_of_a_value(script)
    return script


def begun(runs: Runs) -> Script:
    """What is asked of a script that was run once."""
    script = Script(runs)
    if runs.plain.raised:
        script.nonfinite = _is_of_a_value(script)
    return script


def _is_of_a_value(script: Script) -> bool:
    """Whether how the script ended comes from a NaN or Inf: does it end well where these are repaired?"""
    watched = script.watch()
    if not watched.same or watched.seen is None or not watched.seen.candidates:
        return False
    script.found = search(script.runs, watched)
    return script.found.found is not None


def outcome(script: Script) -> Outcome:
    """The script step."""
    verdict, reason, told = script.runs.plain.outcome
    told.update(script.chance.payload())
    if script.unsure:
        return "skip", script.chance.words, told
    if verdict == "good" and script.chance.note:
        return verdict, f"{reason} ({script.chance.note})", told
    if script.chance.turned:
        return "bad", f"{reason} ({script.chance.words})", told
    if script.nonfinite:
        return "bad", f"{reason} (it is not raised where the NaN and Inf before it are repaired)", told
    return verdict, reason, told


def bisect(script: Script) -> Outcome:
    """The bisect step."""
    if script.verdict != "bad":
        said = "is good" if script.verdict == "good" else "gave no verdict"
        return script.verdict, f"the script {said}: there is nothing to find", None
    watched = script.watch()
    if not watched.same and script.by_chance:
        return "skip", script.chance.words, {**payload(Answer()), "watching": "chance"}
    if not watched.same:
        return _changed(script, watched.ran)
    if script.found is None:
        script.found = search(script.runs, watched)
    script.found = inside_the_fast_path(script.runs, watched, script.found)
    answer = script.found
    if answer.found is not None:
        return "bad", sentence(answer.found.origin), payload(answer)
    if not answer.is_open:
        return _rounded(script.runs, answer)
    why = "; ".join([answer.why, *answer.notes])
    return "skip", why, payload(answer) if answer.ruled_out else None


def _changed(script: Script, ran: Any) -> Outcome:
    """The script does not fail while it is watched."""
    what, origin, words = compiled.why(script.runs)
    if origin is not None:
        found = {**payload(Answer()), "origin": origin, "watching": what}
        return "bad", words, found
    said = f"watching changes the answer: the script is {script.verdict}, and {ran.verdict} while it is watched"
    return "skip", f"{said} ({ran.reason}); {words}", {**payload(Answer()), "watching": what}


def _rounded(runs: Runs, answer: Answer) -> Outcome:
    """The step for a script that is bad without any NaN: is an operator wrong, or is it all rounding?"""
    rounding = runs.run(watch=ROUNDING).found or Rounded()
    far = rounding.farthest
    told = {**payload(answer), "rounding": rounding.payload()}
    words = "; ".join([f"{answer.why}, and {rounding.words()}", *answer.notes])
    if far is None or rounding.is_within:
        return "skip", words, told
    if not runs.well(runs.run(watch=ROUNDING, given=far.address)):
        return "skip", words, told
    return "bad", f"{far.address.op} is {rounding.words()}", {**told, "origin": rounding.origin()}


def ablation(script: Script, name: str) -> Outcome:
    """The script with one thing changed, not watched."""
    key, _, value = name.partition("=")
    change: dict[str, Any] = {"change": {key: value or True}, "same_as_case": False}
    if script.verdict != "bad":
        return "skip", f"the script is {script.verdict}: there is nothing to work around", change
    if name not in SETTINGS:
        return "skip", f"there is no such change for a script; known: {', '.join(SETTINGS)}", change
    if script.by_chance:
        return "skip", f"{script.chance.words}; so this says nothing", change
    nothing = _nothing_to_change(script, name)
    if nothing is not None:
        return "skip", nothing, change
    runs = script.runs
    ran = runs.unwatched(name)
    if ran.idle:  # how it ends then says nothing of the change: a mode that watches for it takes a fast path away
        return "skip", ran.idle[0], change
    if runs.well(ran) and not script.chance.same(runs, name):
        return "skip", "good, but not under each seed, and the script sets none", change
    if runs.same(ran):
        return "bad", ran.reason, change
    if runs.well(ran) and ran.verdict == "good":
        return "good", ran.reason, change
    return "skip", ran.reason, change


def _nothing_to_change(script: Script, name: str) -> Optional[str]:
    """Why the script has nothing that this changes, as far as its watched run tells, which need not end in the same
    way; None where it may have.
    """
    watched = script.watch()
    if watched.seen is None or (watched.ran.verdict == "skip" and not watched.same):
        return None
    if name == FAST_PATH and not watched.seen.fast_path:
        return "the script calls none of PyTorch's transformer layers"
    if name == PLAIN_ATTENTION and not (watched.seen.attention or watched.seen.fast_path):
        return "the script runs no fused attention"
    return None


def reduce(script: Script, trials: Trials) -> Outcome:
    """The reduce step, as far as it is about the operator by itself."""
    found = None if script.found is None else script.found.found
    return smallest(found.program if found is not None else None, trials)
