"""What a generation or a training of the case ends with, where that is born, and what makes it go away."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional, Union

from ..checkpoint.resolve import CannotResolve
from ..model.compat import CannotLoad
from ..model.inputs import Inputs, load_tokenizer
from ..model.load import Loaded
from ..program.answer import Asked
from ..program.callable import Program
from ..protocol.wire import Outcome
from ..reduce.program import Program as Operators
from .generation import Generation
from .held import held_in
from .passing import Passing
from .training import Training, batch_of, settings_for

NOTHING_JUDGED = "generate() gave no scores, so nothing could be judged"
FIRST = ("logits of step 0", "scores of step 0", "loss of step 0")
MOST_EXAMPLES = 64  # of a batch, each of which is left out once


@dataclass
class Phase:
    """One phase of the case in this process.

    ``asked``: what it was asked, of the first input that is bad, or of the first where none is. ``what``: the
    generation, the training, or a forward pass that raises. ``bisected``: whether the origin was looked for in it.
    ``examples``: those of a batch that make it bad, once they were asked for.
    """

    what: Union[Generation, Training, Passing]
    asked: Asked
    inputs: int = 0
    bisected: bool = False
    examples: Optional[list[int]] = None

    @property
    def verdict(self) -> str:
        return self.asked.verdict

    @property
    def program(self) -> Program:
        runs = self.asked.runs
        assert isinstance(runs, Program)  # made here
        return runs

    @property
    def operators(self) -> Optional[Operators]:
        """Those that show the fault by themselves, once it was looked for; None where that is not known."""
        found = None if self.asked.found is None else self.asked.found.found
        return None if found is None else found.program


def asked(session: Any) -> Optional[Phase]:
    """The phase of a session's case, asked once; None where the case is a forward pass alone."""
    case = session.case

    def make() -> Phase:
        if case.get("generate") is not None:
            return generating(session.loaded(), session.inputs(), int(case["generate"]))
        optimizer = session.made().optimizer if session.has_factory else None
        return training(session.loaded(), session.inputs(), case, optimizer)

    if case.get("generate") is None and case.get("train_step") is None:
        return None
    phase: Phase = session.keep_phase(make)
    return phase


def generating(loaded: Loaded, inputs: Iterable[Inputs], tokens: int, **settings: Any) -> Phase:
    """A generation behind each prompt, up to the first that is bad."""
    return _first_bad(Generation(loaded, made, tokens, **settings) for made in inputs)


def passing(loaded: Loaded, inputs: Iterable[Inputs]) -> Phase:
    """A forward pass of each input, up to the first that is bad: one that gives a NaN or Inf, or raises for one."""
    return _first_bad(Passing(loaded, made) for made in inputs)


def refused(session: Any) -> Optional[Phase]:
    """The forward pass of a session's case that raises for a NaN or Inf; None where each comes to its end, or raises
    for another reason. It is asked once.
    """

    def make() -> Optional[Phase]:
        try:
            session.passes()
        except (CannotLoad, CannotResolve):
            return None
        except Exception:  # noqa: BLE001 - of the model's own code; it is raised again where it is for something else
            return raising(session.loaded(), session.inputs())
        return None

    phase: Optional[Phase] = session.keep_refused(make)
    return phase


def raising(loaded: Loaded, inputs: Iterable[Inputs]) -> Optional[Phase]:
    """The first of these forward passes that raises for a NaN or Inf. None where none does."""
    phase = passing(loaded, inputs)
    return phase if phase.asked.raises_for_it else None


def _first_bad(made: Iterable[Union[Generation, Passing]]) -> Phase:
    found: Optional[Phase] = None
    for number, what in enumerate(made):
        phase = Phase(what, Asked.of(what.program()), number)
        if phase.verdict == "bad":
            return phase
        if found is None or found.verdict == "good":
            found = phase
    assert found is not None  # a case has inputs
    return found


def training(loaded: Loaded, inputs: list[Inputs], case: dict[str, Any], optimizer: Any = None) -> Phase:
    """Steps of a training on all inputs as one batch."""
    settings = settings_for(int(case["train_step"]), case.get("dtype"), case.get("accumulate"))
    batch = batch_of(loaded, inputs)
    if batch.rows < settings.accumulate:
        raise CannotLoad(
            f"--accumulate {settings.accumulate} splits the batch of a step, and that has {counted(batch.rows)}. Give"
            f" {settings.accumulate} (--prompt is repeatable), or a smaller number."
        )
    what = Training(loaded, batch, settings, optimizer)
    return Phase(what, Asked.of(what.program()))


def outcome(phase: Phase) -> Outcome:
    """The step ``generate`` or ``train``, or ``forward`` where that raises."""
    what, plain = phase.what, phase.program.plain
    verdict, reason = phase.verdict, phase.asked.reason
    if isinstance(what, Passing):
        return verdict, reason, {"prompts": [{**what.inputs.record(), "verdict": verdict}]}
    told: dict[str, Any] = {"bad": sorted(plain.bad), "note": plain.reason if plain.skipped else None}
    if isinstance(what, Generation):
        new = what.plain.new
        told.update(tokens=what.tokens, cached=what.is_cached, prompt=phase.inputs, judged=what.judged)
        told["generated"] = [] if what.inputs.withheld else new
        if verdict == "good" and not what.judged:
            return "skip", NOTHING_JUDGED, told
        if verdict == "good":
            reason = f"{len(new) + 1} steps, and the logits and scores of each are finite"
        return verdict, reason, told
    told.update(_of_training(what))
    if verdict == "bad":
        told["examples"] = guilty(phase)
        if told["examples"]:
            rows = ", ".join(_named(what, row) for row in told["examples"])
            reason += (
                f"; finite without example {rows} of the batch"
                if len(told["examples"]) == 1
                else (f"; the examples {rows} of the batch are bad alone")
            )
    elif verdict == "good":
        losses = ", ".join(f"{loss:.6g}" for loss in what.losses)
        reason = f"{plain.reason}; the loss is {what.batch.loss}: {losses}"
    return verdict, reason, told


def _of_training(what: Training) -> dict[str, Any]:
    settings = what.settings
    return {
        "steps": settings.steps,
        "loss": what.batch.loss,
        "losses": what.losses,
        "batch": what.batch.rows,
        "micro_batches": settings.accumulate if settings.accumulate > 1 else None,
        "autocast": None if settings.autocast is None else str(settings.autocast).replace("torch.", ""),
        "loss_scale": settings.scale,
        "clip": settings.clip,
        "optimizer": type(what.optimizer).__name__,
        "examples": [],
    }


def guilty(phase: Phase) -> list[int]:
    """The examples of the batch that make it bad: the one without which it is good, or all that are bad alone."""
    if phase.examples is None:
        phase.examples = [] if phase.verdict != "bad" else list(_guilty(phase.what))
    return phase.examples


def _guilty(what: Union[Generation, Training, Passing]) -> Iterable[int]:
    if not isinstance(what, Training) or not 2 <= what.batch.rows <= MOST_EXAMPLES:
        return []
    rows = range(what.batch.rows)
    for row in rows:
        if _ends(what, frozenset([row])) == "good":
            return [row]
    everything = frozenset(rows)
    return [row for row in rows if _ends(what, everything - {row}) == "bad"]


def _named(what: Training, row: int) -> str:
    """An example by its number, with the micro batch that it is in."""
    parts = what.batch.rows_of(what.settings.accumulate)
    (part,) = (number for number, rows in enumerate(parts) if row in rows)
    return f"{row} (micro batch {part})" if len(parts) > 1 else str(row)


def counted(examples: int) -> str:
    return "1 example" if examples == 1 else f"{examples} examples"


def _ends(what: Training, leave_out: frozenset[int]) -> str:
    return again(what, leave_out=leave_out).verdict


def again(what: Training, **changes: Any) -> Asked:
    """The same training with other settings."""
    settings = dataclasses.replace(what.settings, **changes)
    return Asked.of(Training(what.loaded, what.batch, settings, what.own).program())


def bisect(phase: Phase, trusted: bool) -> Outcome:
    """The bisect step for a phase that is bad."""
    phase.bisected = True
    verdict, reason, payload = phase.asked.bisect()
    origin = (payload or {}).get("origin")
    if origin is None or payload is None:
        return verdict, reason, payload
    if phase.asked.found is not None and phase.asked.found.found is not None:
        origin["held"] = held_in(phase.what.loaded, phase.program, phase.asked.found.found)
    if not isinstance(phase.what, Training):
        payload["prompt"] = phase.inputs
    if isinstance(phase.what, Generation):
        origin.update(_token(phase.what, origin, trusted))
        if origin["token_index"] is not None:
            reason += f"; token {origin['token_index']}" + (f" {origin['token']!r}" if origin["token"] else "")
    step = origin["generate_step"]
    if step is not None:
        reason += f"; in step {step} of the generation"
    elif origin["train_step"] is not None:
        reason += f"; {origin['phase']} of step {origin['train_step']}"
        reason += "" if origin["micro_batch"] is None else f", micro batch {origin['micro_batch']}"
    return verdict, reason, payload


def placed(phase: Phase, origin: dict[str, Any]) -> None:
    """Say of an origin that was found in a forward pass that the phase meets it in its first step, where it does."""
    plain = phase.program.plain
    first = phase.asked.raises_for_it or any(name.partition(",")[0] in FIRST for name in plain.bad)
    if phase.verdict != "bad" or not first:
        return
    if isinstance(phase.what, Generation):
        origin.update(phase="generate", generate_step=0)
    else:
        origin.update(phase="forward", train_step=0)


def _token(what: Generation, origin: dict[str, Any], trusted: bool) -> dict[str, Any]:
    """The token that the model was given in the step of the origin, where that was one token."""
    step, begin = origin["generate_step"], what.plain.begin
    if not step or begin is None or not what.is_cached or origin["call_index"] < 0 or step > len(what.plain.new):
        return {}
    token = what.plain.new[step - 1]
    tokenizer = None if what.inputs.withheld else load_tokenizer(what.loaded.source.folder, trusted)
    text = None if tokenizer is None else str(tokenizer.convert_ids_to_tokens([token])[0])
    return {"token_index": begin + step - 1, "token": text}
