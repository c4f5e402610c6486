"""From the whole model to the smallest case that shows the same fault: tokens, then the operator, then the module.

Each stage keeps the fault that the origin names: the same operator, the same mechanism, inputs as sound as they were.
"It still fails" would not do: a search with that question ends at an input that is NaN already.
"""

import functools
from typing import Any, Optional

from ..model.forward import Pass, look, run
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..observe.tape import Op, Tape, record
from ..origin.search import ROOT, Search, find
from ..protocol.wire import Outcome
from .models import layers
from .models.configuration import seeded
from .models.module import block_of, reduced
from .program import Fault, Program, fault_of, program_of
from .shrink import shrink
from .tokens import Place, fewest
from .tokens import record as token_record
from .trials import Trials

GIVEN = ("bad_weights", "bad_input", "unset_memory", "written_outside")  # the values were there before any operator ran
SAME = ("module", "op", "source", "mechanism", "tensor")  # of two origins that are one fault


def reduce(
    loaded: Loaded, passes: list[Pass], origin: Optional[dict[str, Any]], trials: Trials, trust_remote_code: bool
) -> Outcome:
    """Verdict, reason and payload of the reduce step: bad where something smaller than the case shows the fault."""
    if not any(seen.bad for seen in passes):
        return "good", "the output is finite: there is nothing to reduce", None
    if origin is None:
        return "skip", "the origin is not known, so a smaller case could not be told from another fault", None
    seen = next(seen for seen in passes if seen.bad)
    payload: dict[str, Any] = {"inputs": None, "layers": None, "program": None, "configuration": None}
    payload.update(module=None, notes=[])
    trials.begin("fewer tokens")
    inputs, origin = _fewest_tokens(loaded, seen, origin, trials, payload)
    payload["inputs"] = {
        **token_record(loaded, seen.inputs, inputs, trust_remote_code),
        "prompts": len(passes),
        "trials": trials.asked,
    }
    if origin["tensor"] is None and origin["mechanism"] not in GIVEN:
        trials.begin("the operator alone")
        _operator(loaded, inputs, origin, trials, payload)
        trials.begin("a small configuration")
        payload["configuration"] = seeded(loaded, inputs, origin, trials)
        trials.begin("the module alone")
        _module(loaded, inputs, origin, trials, payload)
    payload.update(trials=trials.asked, crashed_trials=trials.crashed)
    payload["notes"] += trials.notes
    return "bad", in_words(payload), payload


def _fewest_tokens(
    loaded: Loaded, seen: Pass, origin: dict[str, Any], trials: Trials, payload: dict[str, Any]
) -> tuple[Inputs, dict[str, Any]]:
    """The reduced inputs with their own origin; the case's own where that is another one."""
    place = Place.of(origin)
    inputs = fewest(loaded, seen.inputs, place, origin["token_index"], trials)
    if inputs is None:
        payload["notes"].append("a repeated pass did not show the fault as it was: all tokens are kept")
        return seen.inputs, origin
    if inputs is seen.inputs:
        return inputs, origin
    again = trials.attempt("the origin with fewer tokens", lambda: find(Search(loaded, look(loaded.model, inputs))))
    if again is not None and all(again[key] == origin[key] for key in SAME):
        # Of one token, a channel cannot be told from a token.
        channel = origin["channel_index"] if again["channel_index"] is None else again["channel_index"]
        return inputs, {**again, "channel_index": channel}
    payload["notes"].append("with fewer tokens the fault could not be shown to be the same one")
    return seen.inputs, origin


def _operator(loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials, payload: dict[str, Any]) -> None:
    """The operator alone with its inputs, or with those before it that it needs."""
    call = (origin["module"], origin["call_index"])
    for begin in dict.fromkeys((call, ROOT)):
        take = functools.partial(_taken_out, loaded, inputs, origin, begin)
        found = trials.attempt(f"the operators from {begin[0] or 'the model'} on", take)
        if found is not None:
            break
    else:
        payload["notes"].append("the operator does not show the fault with its inputs alone")
        return
    payload["program"] = shrink(*found, trials)
    if payload["program"] is None:
        payload["notes"].append("the operator needs more values than a script should have")


def operators_of(loaded: Loaded, inputs: Inputs, origin: dict[str, Any]) -> Optional[Program]:
    """The operator at fault with its inputs, or with those before it that it needs; None where they do not show it."""
    if origin["tensor"] is not None or origin["mechanism"] in GIVEN:
        return None
    for begin in dict.fromkeys(((origin["module"], origin["call_index"]), ROOT)):
        found = _taken_out(loaded, inputs, origin, begin)
        if found is not None:
            return found[0]
    return None


def _taken_out(
    loaded: Loaded, inputs: Inputs, origin: dict[str, Any], begin: tuple[str, int]
) -> Optional[tuple[Program, Fault]]:
    """The operator out of a recording from a call's begin on, and the fault that it shows; None where it does not."""
    tape = record(loaded.model, lambda: run(loaded.model, inputs), begin, (origin["module"], origin["call_index"]))
    last = _find(tape, origin)
    program = None if last is None else program_of(tape, last)
    fault = None if program is None else fault_of(program, origin["op"], origin["mechanism"])
    return None if program is None or fault is None else (program, fault)


def _find(tape: Tape, origin: dict[str, Any]) -> Optional[Op]:
    """The origin's operator in a recording."""
    wanted = (origin["module"], origin["call_index"], origin["op"], origin["occurrence"])
    for op in tape.ops:
        place = op.address
        if (place.module, place.call_index, place.op, place.occurrence) == wanted:
            return op
    return None


def _module(loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials, payload: dict[str, Any]) -> None:
    """The module alone; where it does not show the fault so, the model with as few layers as do."""
    before, block = trials.asked, block_of(loaded.model, origin["module"])
    payload["module"], note = reduced(loaded, inputs, origin, trials)
    if note:
        payload["notes"].append(note)
    path, _, number = block.rpartition(".")
    if payload["module"] is None:
        trials.begin("fewer layers")
        payload["layers"] = layers.fewest(loaded, inputs, origin, block, trials)
    elif number.isdigit():
        payload["layers"] = {
            "path": path,
            "total": len(list(loaded.model.get_submodule(path).children())),
            "kept": [int(number)],
            "trials": trials.asked - before,
            "fed": "captured hidden states",
        }


def in_words(payload: dict[str, Any]) -> str:
    """What was reached, in one line."""
    inputs, program, module = payload["inputs"], payload["program"], payload["module"]
    parts = ["{} of {} tokens".format(inputs["after"], inputs["before"])] if inputs["before"] else []
    if program is not None:
        ops = [call["op"] for call in program["calls"]]
        shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in program["leaves"])
        parts.append(" then ".join(ops) + (f" on inputs of {shapes}" if shapes else ""))
    if payload["configuration"] is not None:
        parts.append("{} of a small configuration".format(payload["configuration"]["model_class"]))
    if module is not None:
        parts.append("{} alone".format(module["class"]))
    elif payload["layers"] is not None:
        parts.append("{} of {} layers".format(len(payload["layers"]["kept"]), payload["layers"]["total"]))
    return "; ".join([*parts, "{} trials".format(payload["trials"])])
