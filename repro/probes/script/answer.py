"""What a script ends with, where that is born, what makes it go away, and the smallest case of it."""

import dataclasses
import os
import signal
from dataclasses import dataclass
from typing import Any, Optional

from ..protocol.wire import Outcome
from ..reduce.program import Program, fault_of
from ..reduce.program import look as shown_by
from ..reduce.shrink import shrink
from ..reduce.trials import Trials
from . import compiled
from .child import Job
from .rounding import Rounding
from .run import Ran, run_plainly, run_script
from .search import Answer, Runs, Watched, captured, payload, search, watch
from .settings import SETTINGS

ROUNDING = "script.rounding:watched_rounding"
FAST_PATH = "fast_path=off"


@dataclass
class Script:
    """What was asked of one script in this process."""

    runs: Runs
    watched: Optional[Watched] = None
    found: Optional[Answer] = None
    nonfinite: bool = False

    @property
    def verdict(self) -> str:
        """An exception that only comes with a NaN or Inf is the fault itself."""
        return "bad" if self.nonfinite else self.runs.plain.verdict

    def watch(self) -> Watched:
        if self.watched is None:
            self.watched = watch(self.runs)
        return self.watched


def asked(path: str) -> Script:
    """The script run once, as ``python path`` would.

    One that a signal ends takes this process along in the same way: a crash is told by whoever started it.
    """
    plain = run_plainly(path)
    if plain.crashed:
        number = -plain.exit_status
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    script = Script(Runs(path, plain))
    if plain.raised:
        script.nonfinite = _raises_for_it(script)
    return script


def _raises_for_it(script: Script) -> bool:
    """Whether the exception that ended the script comes from a NaN or Inf: is it gone where these are repaired?"""
    watched = script.watch()
    if not watched.same or watched.seen is None or not watched.seen.candidates:
        return False
    script.found = search(script.runs, watched)
    return script.found.found is not None


def outcome(script: Script) -> Outcome:
    """The script step."""
    verdict, reason, told = script.runs.plain.outcome
    if script.nonfinite:
        return "bad", f"{reason} (it is not raised where the NaN and Inf before it are repaired)", told
    return verdict, reason, told


def bisect(script: Script) -> Outcome:
    """The bisect step."""
    if script.verdict != "bad":
        said = "is good" if script.verdict == "good" else "gave no verdict"
        return script.verdict, f"the script {said}: there is nothing to find", None
    watched = script.watch()
    if not watched.same:
        return _changed(script, watched.ran)
    if script.found is None:
        script.found = search(script.runs, watched)
    script.found = _inside_the_fast_path(script, script.found)
    answer = script.found
    if answer.found is not None:
        return "bad", answer.sentence, payload(answer)
    if not answer.is_open:
        return _rounded(script.runs, answer)
    why = "; ".join([answer.why, *answer.notes])
    return "skip", why, payload(answer) if answer.ruled_out else None


def _changed(script: Script, ran: Ran) -> Outcome:
    """The script does not fail while it is watched."""
    what, origin, words = compiled.why(script.runs)
    if origin is not None:
        found = {**payload(Answer()), "origin": origin, "watching": what}
        return "bad", words, found
    said = f"watching changes the answer: the script is {script.verdict}, and {ran.verdict} while it is watched"
    return "skip", f"{said} ({ran.reason}); {words}", {**payload(Answer()), "watching": what}


def _inside_the_fast_path(script: Script, answer: Answer) -> Answer:
    """Where the fault is inside PyTorch's transformer layers: their Python code shows more than their fused kernels.

    A fault that the Python code does not have is one of the fused kernels.
    """
    runs, seen = script.runs, script.watch().seen
    if answer.found is None and seen is not None and seen.fused is not None:
        if not runs.well(runs.unwatched(FAST_PATH)):
            return answer
        found = captured(runs, seen.fused, dataclasses.replace(script.watch().rule, repair=False))
        answer = dataclasses.replace(answer, found=found, confirmed_by="layers")
        if found is not None:
            found.origin.update(layer="fast path", mechanism="kernel")
        return answer
    if answer.found is None or not answer.found.fused:
        return answer
    slow = Runs(runs.path, runs.plain, (FAST_PATH,), runs.end)
    if runs.well(runs.unwatched(FAST_PATH)):
        answer.found.origin.update(layer="fast path", mechanism="kernel")
        return answer
    watched = watch(slow)
    inner = search(slow, watched) if watched.same else answer
    return inner if inner.found is not None else answer


def _rounded(runs: Runs, answer: Answer) -> Outcome:
    """The step for a script that is bad without any NaN: is an operator wrong, or is it all rounding?"""
    rounding = run_script(Job(runs.path, watch=ROUNDING)).found or Rounding()
    far = rounding.farthest
    told = {**payload(answer), "rounding": rounding.payload()}
    words = "; ".join([f"{answer.why}, and {rounding.words()}", *answer.notes])
    if far is None or rounding.is_within:
        return "skip", words, told
    if not runs.well(run_script(Job(runs.path, watch=ROUNDING, given=far.address))):
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
    runs = script.runs
    ran = runs.unwatched(name)
    if runs.same(ran):
        return "bad", ran.reason, change
    if runs.well(ran) and ran.verdict == "good":
        return "good", ran.reason, change
    return "skip", ran.reason, change


def reduce(script: Script, trials: Trials) -> Outcome:
    """The reduce step."""
    found = None if script.found is None else script.found.found
    return reduce_program(None if found is None else found.program, trials)


def reduce_program(program: Optional[Program], trials: Trials) -> Outcome:
    """The reduce step, from the operators that show the fault by themselves; the last of them is the one at fault."""
    if program is None:
        return "skip", "no operator that makes a NaN is known here, so there is nothing to make smaller", None
    seen = shown_by(program)
    fault = None if seen is None else fault_of(program, str(program.calls[-1].func), seen.mechanism)
    if fault is None:
        return "skip", "the operator does not show the fault with its inputs alone", None
    told: dict[str, Any] = {"inputs": None, "layers": None, "module": None, "notes": []}
    told["program"] = shrink(program, fault, trials)
    told["notes"] += trials.notes
    told.update(trials=trials.asked, crashed_trials=trials.crashed)
    if told["program"] is None:
        return "skip", "the operator needs more values than a script should have", told
    shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in told["program"]["leaves"])
    return "bad", f"{fault.op} on inputs of {shapes}; {trials.asked} trials", told
