"""Which operator of a script makes it bad: each one that makes a NaN or Inf by itself is repaired, and the script run
again. The first whose repair makes the script good is the origin.

A script has no output to walk back from; what it ends with is its answer. So the experiment is all there is. Where the
same fault is made several times, no single repair helps: then the first one that suffices, with all the others
repaired, is the origin.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch

from ..observe.source import source_package
from ..observe.tape import Tape
from ..observe.watch import OUTSIDE, Address, Names, OpCall, StopPass, Visitor, Watch, watched_everywhere
from ..origin.counterfactual import CHOSEN, repair
from ..origin.mechanism import limit_of
from ..origin.search import sentence
from ..protocol.wire import Outcome
from ..reduce.program import Program, fault_of, look, program_of
from ..reduce.seen import MASK, kinds_in
from ..reduce.shrink import shrink
from ..reduce.trials import Trials
from ..values.figures import describe, is_bad, is_float, tensors_in, widen
from .rounding import Rounding
from .run import run_script

SUSPECTS = 32  # operators that are put to the test; a script that makes NaN everywhere is soon found out
SECONDS = 300.0  # each test is a run of the script


@dataclass
class Found:
    """The suspect that proved guilty, with what it was given and gave, as it was."""

    address: Address
    source: Optional[str]
    code: Optional[str]
    program: Program
    module_class: str
    inputs: list[dict[str, Any]]
    output: dict[str, Any]


@dataclass
class Session:
    """Runs of one script, each under another visitor."""

    path: str
    ruled_out: list[Address] = field(default_factory=list)

    def run(self, visit: Visitor) -> tuple[str, Names]:
        """The script's verdict with every operator under ``visit``."""
        names = Names()
        return run_script(self.path, watched_everywhere(Watch(visit, OUTSIDE), names)).verdict, names

    def repaired(self, which: Callable[[Address], bool]) -> str:
        """The script's verdict when the NaN and Inf that these operators make by themselves are replaced by 0 on the
        spot.
        """

        def visit(call: OpCall) -> Any:
            result, made = visited(call)
            for tensor in tensors_in(result) if made and which(call.address) else ():
                if is_float(tensor):
                    repair(tensor)
            return result

        return self.run(visit)[0]


def find(path: str) -> tuple[str, str, Optional[dict[str, Any]], Optional[Found]]:
    """Verdict, reason and payload of the bisect step of a script, and the operator to reduce."""
    session, end = Session(path), time.monotonic() + SECONDS
    suspects: list[Address] = []

    def note(call: OpCall) -> Any:
        result, made = visited(call)
        if made and len(suspects) < SUSPECTS:
            suspects.append(call.address)
        return result

    verdict, _ = session.run(note)
    if verdict != "bad":
        said = "is good" if verdict == "good" else "gave no verdict"
        return verdict, f"the script {said}: there is nothing to find", None, None
    for how, is_guilty in (("repaired", _repaired), ("suffices", _suffices)):
        if how == "suffices" and (len(suspects) < 2 or session.repaired(lambda here: True) != "good"):
            break  # what is bad with all of them repaired does not come from them
        for address in suspects:
            if time.monotonic() > end:
                return "skip", f"no origin was found in {SECONDS:g} s of runs of the script", None, None
            if is_guilty(session, address):
                found = _captured(session, address)
                if found is not None:
                    origin = {**describe_origin(found), "confirmed": True, "confirmed_by": how}
                    session.ruled_out = session.ruled_out if how == "repaired" else []
                    return "bad", sentence(origin), {"origin": origin, **_around(session, origin)}, found
            session.ruled_out.append(address)
    if not suspects:
        return _rounded(session)
    why = f"none of {len(suspects)} operators that make a NaN or Inf"
    return "skip", f"{why}: the repair of each leaves the script bad", None, None


def _rounded(session: Session) -> tuple[str, str, Optional[dict[str, Any]], Optional[Found]]:
    """The step for a script that is bad without any NaN: is an operator wrong, or is it all rounding?"""
    rounding = Rounding()
    session.run(rounding.visit)
    far = rounding.farthest
    payload: dict[str, Any] = {
        "origin": None,
        "rounding": rounding.payload(),
        "ruled_out": [],
        "spread": [],
        "headroom": [],
    }
    if far is None or rounding.is_within or session.run(Rounding(far.address).visit)[0] != "good":
        return "skip", f"no operator makes a NaN or Inf, and {rounding.words()}", payload, None
    origin = {
        **dict.fromkeys(("module_class", "token_index", "token", "head_index", "channel_index", "tensor", "limit")),
        **dict.fromkeys(("tensor_index", "note", "source")),
        "module": far.address.module,
        "op": far.address.op,
        "call_index": far.address.call_index,
        "occurrence": far.address.occurrence,
        "mechanism": "kernel",
        "code": far.code,
        "element": list(far.index),
        "value": far.value,
        "operands": [],
        "inputs": [],
        "output": {"dtype": far.dtype},
        "reference_value": far.reference,
        "reference": {"value": far.reference, "dtype": "float64", "scope": "operator"},
        "confirmed": True,
        "confirmed_by": "corrected",
    }
    return "bad", f"{far.address.op} is {rounding.words()}", {**payload, "origin": origin}, None


def visited(call: OpCall) -> tuple[Any, bool]:
    """The operator's result, and whether it makes a bad value by itself: a NaN or +inf though it is given none, or a
    -inf from finite inputs of which none is a mask. What somebody chose, and memory as it is handed out, are not made.
    """
    given = (call.args, call.kwargs)
    kinds = kinds_in(given)
    masked = bool(kinds) or _is_mask(given)
    result = call.run()
    made = kinds_in(result) - (MASK if masked else frozenset())
    return result, bool(made) and kinds <= MASK and not call.address.op.startswith(CHOSEN)


def _is_mask(nest: Any) -> bool:
    """Whether a tensor holds the lowest number of its dtype: a mask written without -inf."""
    floats = [tensor for tensor in tensors_in(nest) if tensor.is_floating_point()]
    return any(bool((widen(tensor) == torch.finfo(tensor.dtype).min).any()) for tensor in floats)


def _repaired(session: Session, address: Address) -> bool:
    """Whether the script is good with this operator repaired."""
    return session.repaired(lambda here: here == address) == "good"


def _suffices(session: Session, address: Address) -> bool:
    """Whether the script is bad with all operators but this one repaired."""
    return session.repaired(lambda here: here != address) == "bad"


def _captured(session: Session, address: Address) -> Optional[Found]:
    """The operator as it is called in one more run; in yet another one with those before it whose results it is given
    though they are not finite: the -inf of a mask.
    """
    alone = Tape()
    code: list[Optional[str]] = []

    def visit(call: OpCall) -> Any:
        if call.address != address:
            return call.run()
        code.append(source_package())
        alone.visit(call)
        raise StopPass

    _, names = session.run(visit)
    if not alone.ops:
        return None
    op = alone.ops[0]
    program = program_of(alone, op)
    inputs = [describe(ref.tensor()) for ref in op.inputs()]
    if any(is_bad(ref.tensor()) for ref in op.inputs()):
        program = _with_those_before(session, address) or program
    bad = [ref.tensor() for ref in op.outputs if is_bad(ref.tensor())]
    if program is None or not bad:
        return None
    classes = names.classes.get(address.module, "")
    return Found(address, op.source, code[0], program, classes, inputs, describe(bad[0]))


def _with_those_before(session: Session, address: Address) -> Optional[Program]:
    """The operator with those that make what is not finite in its inputs; None where these do not show the fault."""
    tape = Tape()

    def visit(call: OpCall) -> Any:
        result = tape.visit(call)
        if call.address == address:
            raise StopPass
        return result

    session.run(visit)
    if not tape.ops or tape.ops[-1].address != address:
        return None
    program = program_of(tape, tape.ops[-1])
    seen = None if program is None else look(program)
    return program if seen is not None and seen.sound else None


def describe_origin(found: Found) -> dict[str, Any]:
    """The origin's record, as that of a model has it."""
    seen, address = look(found.program), found.address
    expected = None if seen is None else seen.expected
    return {
        "module": address.module,
        "module_class": found.module_class,
        "op": address.op,
        "call_index": address.call_index,
        "occurrence": address.occurrence,
        "mechanism": "unknown" if seen is None else seen.mechanism,
        **dict.fromkeys(("token_index", "token", "head_index", "channel_index")),
        "source": found.source,
        "code": found.code,
        "element": None if seen is None else list(seen.index),
        "value": None if seen is None else seen.value,
        "tensor": None,
        "tensor_index": None,
        "operands": [],
        "inputs": found.inputs,
        "output": found.output,
        "reference_value": expected,
        "reference": None if expected is None else {"value": expected, "dtype": "float64", "scope": "operator"},
        "limit": limit_of(getattr(torch, found.output["dtype"])),
        "note": None,
    }


def _around(session: Session, origin: dict[str, Any]) -> dict[str, Any]:
    """The rest of the bisect step's payload."""
    ruled_out = [
        {"module": place.module, "op": place.op, "why": "the script is bad also when its values are repaired"}
        for place in session.ruled_out
    ]
    return {
        "prompt": None,
        "spread": [],
        "headroom": [],
        "limit": origin["limit"],
        "dtype": origin["output"]["dtype"],
        "ruled_out": ruled_out,
        "screened_calls": 0,
    }


def reduce(found: Optional[Found], trials: Trials) -> Outcome:
    """Verdict, reason and payload of the reduce step of a script."""
    if found is None:
        return "skip", "no operator that makes a NaN is known here, so there is nothing to make smaller", None
    seen = look(found.program)
    fault = None if seen is None else fault_of(found.program, found.address.op, seen.mechanism)
    if fault is None:
        return "skip", "the operator does not show the fault with its inputs alone", None
    payload: dict[str, Any] = {"inputs": None, "layers": None, "module": None, "notes": []}
    payload["program"] = shrink(found.program, fault, trials)
    payload["notes"] += trials.notes
    payload.update(trials=trials.asked, crashed_trials=trials.crashed)
    if payload["program"] is None:
        return "skip", "the operator needs more values than a script should have", payload
    shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in payload["program"]["leaves"])
    return "bad", f"{fault.op} on inputs of {shapes}; {trials.asked} trials", payload
