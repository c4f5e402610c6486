"""From the whole model to the smallest case that shows the same fault: tokens, then the operator, then the module.

Each stage keeps the fault that the origin names: the same operator, the same mechanism, inputs as sound as they were.
"It still fails" would not do: a search with that question ends at an input that is NaN already.
"""

from typing import Any, Optional

from .bisect import ROOT, Search, find
from .forward import Pass, look, run
from .inputs import Inputs
from .layer import reduced
from .load import Loaded
from .program import fault_of, program_of
from .shrink import shrink
from .tape import Op, Tape, record
from .tokens import Place, fewest
from .tokens import record as token_record
from .trials import Trials

Outcome = tuple[str, str, Optional[dict[str, Any]]]
GIVEN = ("bad_weights", "unset_memory")  # the values were there before any operator ran


def reduce(
    loaded: Loaded, passes: list[Pass], origin: Optional[dict[str, Any]], trials: Trials, trust_remote_code: bool
) -> Outcome:
    """Verdict, reason and payload of the reduce step: bad where something smaller than the case shows the fault."""
    if not any(seen.bad for seen in passes):
        return "good", "the output is finite: there is nothing to reduce", None
    if origin is None:
        return "skip", "the origin is not known, so a smaller case could not be told from another fault", None
    seen = next(seen for seen in passes if seen.bad)
    payload: dict[str, Any] = {"inputs": None, "layers": None, "program": None, "module": None, "notes": []}
    inputs, origin, confirmed = _fewest_tokens(loaded, seen, origin, trials)
    payload["inputs"] = {**token_record(loaded, seen.inputs, inputs, trust_remote_code), "trials": trials.asked}
    if not confirmed:
        payload["notes"].append("with fewer tokens the fault could not be shown to be the same one")
    if origin["tensor"] is None and origin["mechanism"] not in GIVEN:
        _operator(loaded, inputs, origin, trials, payload)
        _module(loaded, inputs, origin, trials, payload)
    payload.update(trials=trials.asked, crashed_trials=trials.crashed)
    if trials.over:
        payload["notes"].append("the time for trials was up: a smaller case may exist")
    return "bad", in_words(payload), payload


def _fewest_tokens(
    loaded: Loaded, seen: Pass, origin: dict[str, Any], trials: Trials
) -> tuple[Inputs, dict[str, Any], bool]:
    """The reduced inputs with their own origin; the case's own, and False, where that is another one."""
    place = Place.of(origin)
    inputs = fewest(loaded, seen.inputs, place, origin["token_index"], trials)
    if inputs is seen.inputs:
        return inputs, origin, True
    again = find(Search(loaded, look(loaded.model, inputs)))
    if again is not None and all(again[key] == origin[key] for key in ("module", "op", "mechanism", "tensor")):
        return inputs, again, True
    return seen.inputs, origin, False


def _operator(loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials, payload: dict[str, Any]) -> None:
    """The operator alone with its inputs, or with those before it that it needs."""
    call = (origin["module"], origin["call_index"])
    for begin in (call, ROOT):
        tape = record(loaded.model, lambda: run(loaded.model, inputs), begin, call)
        last = _find(tape, origin)
        program = None if last is None else program_of(tape, last)
        fault = None if program is None else fault_of(program, origin["op"], origin["mechanism"])
        if program is not None and fault is not None:
            break
    else:
        payload["notes"].append("the operator does not show the fault with its inputs alone")
        return
    payload["program"] = shrink(program, fault, trials)
    if payload["program"] is None:
        payload["notes"].append("the operator needs more values than a script should have")


def _find(tape: Tape, origin: dict[str, Any]) -> Optional[Op]:
    """The origin's operator in a recording."""
    wanted = (origin["module"], origin["call_index"], origin["op"], origin["occurrence"])
    for op in tape.ops:
        place = op.address
        if (place.module, place.call_index, place.op, place.occurrence) == wanted:
            return op
    return None


def _module(loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials, payload: dict[str, Any]) -> None:
    before = trials.asked
    payload["module"], note = reduced(loaded, inputs, origin, trials)
    if note:
        payload["notes"].append(note)
    if payload["module"] is not None:
        payload["layers"] = {
            "path": origin["module"],
            "kept": [payload["module"]["path"]],
            "trials": trials.asked - before,
            "fed": "captured hidden states",
        }


def in_words(payload: dict[str, Any]) -> str:
    """What was reached, in one line."""
    inputs, program, module = payload["inputs"], payload["program"], payload["module"]
    parts = ["{} of {} tokens".format(inputs["after"], inputs["before"])]
    if program is not None:
        ops = [call["op"] for call in program["calls"]]
        shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in program["leaves"])
        parts.append("{} on inputs of {}".format(" then ".join(ops), shapes))
    if module is not None:
        parts.append("{} alone".format(module["class"]))
    return "{}; {} trials".format("; ".join(parts), payload["trials"])
