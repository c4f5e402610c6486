"""Where the fault of a program is born, what else it is where watching hides it, and the smallest case of it."""

from dataclasses import dataclass
from typing import Any, Optional

from ..origin.search import sentence
from ..protocol.wire import Outcome
from ..reduce.program import Program, fault_of
from ..reduce.program import look as shown_by
from ..reduce.shrink import shrink
from ..reduce.trials import Trials
from .capture import blank
from .runs import Runs
from .search import Answer, Watched, inside_the_fast_path, payload, search, watch

HIDING = (("fast_path=off", "fast path"), ("threads=1", "threads"), ("mkldnn=off", "oneDNN"))
"""What watching may switch off, and its name."""


@dataclass
class Asked:
    """What was asked of one program so far; each question is put once."""

    runs: Runs
    raises_for_it: bool = False
    watched: Optional[Watched] = None
    found: Optional[Answer] = None

    @classmethod
    def of(cls, runs: Runs) -> "Asked":
        """The program run plainly. An exception that is gone where the NaN and Inf before it are repaired is the fault
        itself.
        """
        asked = cls(runs)
        if runs.plain.verdict == "skip":
            watched = asked.watch()
            if watched.same and watched.seen is not None and watched.seen.candidates:
                asked.found = search(runs, watched)
                asked.raises_for_it = asked.found.found is not None
        return asked

    @property
    def verdict(self) -> str:
        return "bad" if self.raises_for_it else self.runs.plain.verdict

    @property
    def reason(self) -> str:
        """One sentence to the verdict."""
        reason = self.runs.plain.reason
        if self.raises_for_it:
            return f"{reason} (it is not raised where the NaN and Inf before it are repaired)"
        return reason

    def watch(self) -> Watched:
        if self.watched is None:
            self.watched = watch(self.runs)
        return self.watched

    def bisect(self) -> Outcome:
        """Verdict, reason, and the payload of a bisect step."""
        noun = self.runs.noun
        if self.verdict != "bad":
            said = "is good" if self.verdict == "good" else "gave no verdict"
            return self.verdict, f"{noun} {said}: there is nothing to find", None
        watched = self.watch()
        if not watched.same:
            return self._changed(watched)
        if self.found is None:
            self.found = search(self.runs, watched)
        self.found = inside_the_fast_path(self.runs, watched, self.found)
        answer = self.found
        if answer.found is not None:
            return "bad", sentence(answer.found.origin, noun), payload(answer)
        return "skip", "; ".join([answer.why, *answer.notes]), payload(answer) if answer.ruled_out else None

    def _changed(self, watched: Watched) -> Outcome:
        """The program does not fail while it is watched."""
        what, origin, words = why_not_watched(self.runs)
        found = {**payload(Answer()), "origin": origin, "watching": what}
        if origin is not None:
            return "bad", words, found
        said = f"watching changes the answer: {self.runs.noun} is {self.verdict}, and {watched.ran.verdict} while it is"
        return "skip", f"{said} watched ({watched.ran.reason}); {words}", found


def why_not_watched(runs: Runs) -> tuple[Optional[str], Optional[dict[str, Any]], str]:
    """(what differs, the origin where it is known, one sentence) for a program that is not bad while it is watched."""
    again = runs.unwatched()
    if not runs.same(again):
        return "chance", None, f"{runs.noun} does not end the same way twice: then {again.verdict}: {again.reason}"
    if runs.well(runs.unwatched("compile=off")):
        origin = {
            **blank(), "op": "torch.compile", "mechanism": "compiler", "code": "torch", "call_index": -1,
            "occurrence": None, "source": None, "note": "good without torch.compile",
            "confirmed": True, "confirmed_by": "layers",
        }  # fmt: skip
        return "compiled code", origin, f"{runs.noun} is good without torch.compile"
    return what_hides_it(runs)


def what_hides_it(runs: Runs) -> tuple[Optional[str], None, str]:
    """Which setting makes the program good as watching it does."""
    for setting, words in HIDING:
        if runs.well(runs.unwatched(setting)):
            return words, None, f"{runs.noun} is good with {setting}, and watching it has that effect as well"
    return None, None, "what differs is not known"


def smallest(program: Optional[Program], trials: Trials) -> Outcome:
    """The reduce step, from the operators that show the fault by themselves, the last of them being the one at fault:
    the same with the smallest inputs.
    """
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
