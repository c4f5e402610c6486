"""Which operator of a script makes it bad: each one that makes a NaN or Inf by itself is repaired, and the script run
again. The first whose repair makes the script good is the origin.

A script has no output to walk back from; what it ends with is its answer. So the experiment is all there is, and it is
enough: nothing bad follows from an operator whose repair changes nothing.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor

from .bisect import sentence
from .mechanism import limit_of
from .nest import rebuild
from .program import Program, fault_of, look, program_of
from .reference import CHOSEN, repair
from .script import run_script
from .shrink import shrink
from .source import source_package
from .summary import describe, is_bad, is_float, tensors_in, widen
from .tape import Tape
from .trace import OUTSIDE
from .trials import Trials
from .watch import Address, Names, Visitor, Watch, watched_everywhere

SUSPECTS = 32  # operators that are put to the test; a script that makes NaN everywhere is soon found out

Outcome = tuple[str, str, Optional[dict[str, Any]]]


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
    innocent: list[Address] = field(default_factory=list)

    def run(self, visit: Visitor) -> tuple[str, Names]:
        """The script's verdict with every operator under ``visit``."""
        names = Names()
        return run_script(self.path, watched_everywhere(Watch(visit, OUTSIDE), names)).verdict, names


def find(path: str) -> tuple[str, str, Optional[dict[str, Any]], Optional[Found]]:
    """Verdict, reason and payload of the bisect step of a script, and the operator to reduce."""
    session = Session(path)
    suspects: list[Address] = []

    def note(here: Address, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sound = is_sound(args, kwargs)
        result = func(*args, **kwargs)
        if sound and len(suspects) < SUSPECTS and not str(func).startswith(CHOSEN) and is_made_bad(result):
            suspects.append(here)
        return result

    verdict, _ = session.run(note)
    if verdict != "bad":
        return verdict, f"the script is {verdict}: there is nothing to find", None, None
    for address in suspects:
        if _cured(session, address):
            found = _captured(session, address)
            if found is not None:
                origin = describe_origin(found)
                return "bad", sentence(origin), {"origin": origin, **_around(session, origin)}, found
        session.innocent.append(address)
    why = f"none of {len(suspects)} operators that make a NaN or Inf" if suspects else "no operator makes a NaN or Inf"
    return "skip", f"{why}{': the repair of each leaves the script bad' if suspects else ''}", None, None


def is_sound(args: Any, kwargs: Any) -> bool:
    """Whether the inputs hold no NaN and no +inf. The -inf of a mask is meant."""
    floats = [widen(tensor) for tensor in tensors_in((args, kwargs)) if is_float(tensor)]
    return not any(bool((torch.isnan(tensor) | (tensor == float("inf"))).any()) for tensor in floats)


def is_made_bad(result: Any) -> bool:
    """Whether a result holds a NaN or a +inf."""
    return not is_sound(result, ())


def _cured(session: Session, address: Address) -> bool:
    """Whether the script is good when this operator's NaN and Inf are replaced by 0 on the spot."""

    def visit(here: Address, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if here == address:
            for tensor in tensors_in(result):
                if is_float(tensor):
                    repair(tensor)
        return result

    return session.run(visit)[0] == "good"


def _captured(session: Session, address: Address) -> Optional[Found]:
    """The operator as it is called in one more run, and before it those whose results it is given though they are not
    finite: the -inf of a mask.
    """
    tape = Tape()
    alone = Tape()
    code: list[Optional[str]] = []

    def visit(here: Address, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if here == address and not alone.ops:
            code.append(source_package())
            alone.visit(here, func, rebuild(args, Tensor, Tensor.clone), rebuild(kwargs, Tensor, Tensor.clone))
            if any(is_bad(ref.tensor()) for ref in alone.ops[0].inputs()):
                return tape.visit(here, func, args, kwargs)
        return func(*args, **kwargs) if alone.ops else tape.visit(here, func, args, kwargs)

    _, names = session.run(visit)
    if not alone.ops:
        return None
    last = tape.ops[-1] if tape.ops and tape.ops[-1].address == address else None
    whole = None if last is None else program_of(tape, last)
    own = program_of(alone, alone.ops[0])
    program = whole if whole is not None and _is_shown(whole) else own
    if program is None:
        return None
    op = alone.ops[0]
    inputs = [describe(ref.tensor()) for ref in op.inputs()]
    output = next(ref.tensor() for ref in op.outputs if is_bad(ref.tensor()))
    return Found(address, op.source, code[0], program, names.classes.get(address.module, ""), inputs, describe(output))


def _is_shown(program: Program) -> bool:
    seen = look(program)
    return seen is not None and seen.sound


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
        "confirmed": True,
        "confirmed_by": "cured",
    }


def _around(session: Session, origin: dict[str, Any]) -> dict[str, Any]:
    """The rest of the bisect step's payload."""
    innocent = [
        {"module": place.module, "op": place.op, "why": "the script is bad also when its values are repaired"}
        for place in session.innocent
    ]
    return {
        "prompt": None,
        "spread": [],
        "headroom": [],
        "limit": origin["limit"],
        "dtype": origin["output"]["dtype"],
        "innocent": innocent,
        "screened_calls": 0,
    }


def reduce(found: Optional[Found], trials: Trials) -> Outcome:
    """Verdict, reason and payload of the reduce step of a script."""
    if found is None:
        return "skip", "the origin is not known, so a smaller case could not be told from another fault", None
    seen = look(found.program)
    fault = None if seen is None else fault_of(found.program, found.address.op, seen.mechanism)
    if fault is None:
        return "skip", "the operator does not show the fault with its inputs alone", None
    payload: dict[str, Any] = {"inputs": None, "layers": None, "module": None, "notes": []}
    payload["program"] = shrink(found.program, fault, trials)
    payload.update(trials=trials.asked, crashed_trials=trials.crashed)
    if payload["program"] is None:
        return "skip", "the operator needs more values than a script should have", payload
    shapes = ", ".join(str(tuple(leaf["shape"])) for leaf in payload["program"]["leaves"])
    return "bad", f"{fault.op} on inputs of {shapes}; {trials.asked} trials", payload
