"""The step ``reference``: the case's passes again, each operator held against float64 of its own inputs."""

import functools
import time
from typing import Any, Optional

import torch

from ..model.forward import Pass, run
from ..model.load import Loaded
from ..observe.source import excerpt
from ..observe.tape import Op, record
from ..observe.watch import Watch, watched
from ..origin.arithmetic import limit_of
from ..origin.counterfactual import kin_of
from ..origin.dimensions import locate
from ..origin.passes import Place
from ..origin.record import code_of
from ..protocol.wire import Outcome
from ..values.figures import describe
from .check import Born, Departure, Rounding
from .mechanism import mechanism_of

SHOWN = 12
"""Kinds of operators in the table, the farthest first."""


def hold(
    loaded: Loaded, passes: list[Pass], born: Optional[list[tuple[Pass, Born]]] = None
) -> tuple[Outcome, Optional[tuple[Departure, Pass]]]:
    """Verdict, reason and payload of the step, and the first departure with the pass that it is in.

    born: is given what was born not finite though a pass ended finite.
    """
    if any(seen.bad for seen in passes):
        return ("skip", "the output is not finite, and where that is born is another question", None), None
    begin = time.perf_counter()
    rounding, prompt, trouble = Rounding(), 0, None
    for number, seen in enumerate(passes):
        prompt = number
        watch = Watch(rounding.visit)
        with watched(loaded.model, watch):
            run(loaded.model, seen.inputs)
        trouble = trouble or watch.trouble
        if born is not None:
            born.extend((seen, each) for each in rounding.born)
            rounding.born.clear()
        for op, count in watch.unseen.items():
            rounding.not_judged[op] += count
        if rounding.departures:
            break
    payload: dict[str, Any] = {
        "operators": rounding.judged,
        "sampled": rounding.sampled,
        "not_judged": dict(rounding.not_judged.most_common(SHOWN)),
        "departed": rounding.departed,
        "alone": dict((rounding.of_float64 + rounding.of_libraries).most_common(SHOWN)),
        "kinds": _kinds(rounding),
        "prompt": prompt,
        "origin": None,
        "seconds": time.perf_counter() - begin,
    }
    if not rounding.judged:
        return ("skip", trouble or "no operator could be held against float64", payload), None
    if not rounding.departures:
        return ("good", words(rounding), payload), None
    first = rounding.departures[0]
    origin = payload["origin"] = origin_of(loaded, passes[prompt], first)
    payload["others"] = [_short(other) for other in rounding.departures[1:]]
    return ("bad", _sentence(first, origin, rounding.departed), payload), (first, passes[prompt])


def words(rounding: Rounding) -> str:
    """One sentence, where nothing departs."""
    assert rounding.farthest is not None
    far = rounding.farthest
    left = sum(rounding.not_judged.values())
    more = f"; {left} could not be judged" if left else ""
    of = f", {rounding.sampled} of them in part," if rounding.sampled else ""
    more += _alone(rounding)
    if far.held.ratio > 1:
        more = f" on this one input, and within it on inputs near it{more}"
    return (
        f"each of {rounding.judged} operators{of} is within rounding of float64 on the same inputs; the farthest, "
        f"{far.address.op}, is at {far.held.ratio:.2g} of what rounding allows{more}"
    )


def _alone(rounding: Rounding) -> str:
    """What was held against nothing but itself."""
    said = ""
    in_float64, of_libraries = sum(rounding.of_float64.values()), sum(rounding.of_libraries.values())
    if in_float64:
        all_of_them = "all" if in_float64 == rounding.judged else f"{in_float64}"
        said += f"; {all_of_them} of them are in float64 by themselves, so nothing independent was compared there"
    if of_libraries:
        named = ", ".join(op for op, _ in rounding.of_libraries.most_common(3))
        said += f"; {of_libraries} are of a library of their own ({named}), held against its own float64: nothing "
        said += "independent was compared there"
    return said


def origin_of(loaded: Loaded, seen: Pass, departure: Departure) -> dict[str, Any]:
    """The origin's record, with the keys of that of a NaN."""
    address, held = departure.address, departure.held
    again = functools.partial(run, loaded.model, seen.inputs)
    op = _recorded(loaded, again, departure)
    kin = kin_of(loaded.model, again, address)
    place = None if kin is None else Place(kin, departure.result, departure.shape, departure.index)
    mechanism, note = mechanism_of(departure)
    return {
        **address.record(loaded.model),
        "mechanism": mechanism,
        **locate(loaded.model, seen.inputs, place),
        "source": departure.source,
        "code": code_of(loaded.model, address.module),
        "excerpt": None if op is None else excerpt(op.place),
        "element": list(departure.index),
        "value": held.value,
        "inputs": [] if op is None else [describe(ref.tensor()) for ref in op.inputs()],
        "output": {"dtype": departure.dtype, "shape": list(departure.shape)},
        "reference_value": held.reference,
        "reference": {"value": held.reference, "dtype": "float64", "scope": "operator"},
        "limit": limit_of(getattr(torch, departure.dtype)),
        "ratio": held.ratio,
        "note": note,
        "confirmed": departure.repeated,
        "confirmed_by": "repeated" if departure.repeated else None,
    }


def _recorded(loaded: Loaded, again: Any, departure: Departure) -> Optional[Op]:
    call = (departure.address.module, departure.address.call_index)
    tape = record(loaded.model, again, call, call)
    return next((op for op in tape.ops if op.address == departure.address), None)


def _kinds(rounding: Rounding) -> list[dict[str, Any]]:
    """By operator and dtype: calls, the farthest in units of what is allowed, the largest error."""
    rows = sorted(rounding.worst.items(), key=lambda row: -row[1][0])[:SHOWN]
    return [
        {"op": op, "dtype": dtype, "calls": calls, "ratio": ratio, "rms": rms}
        for (op, dtype), (ratio, rms, calls) in rows
    ]


def _short(departure: Departure) -> dict[str, Any]:
    return {"module": departure.address.module, "op": departure.address.op, "ratio": departure.held.ratio}


def _sentence(departure: Departure, origin: dict[str, Any], departed: int) -> str:
    held, more = departure.held, ""
    if departed > 1:
        more = f"; {departed - 1} more operators depart" if departed > 2 else "; one more operator departs"
    far = "" if held.swallowed or held.made else f": {held.ratio:.3g} times what rounding allows"
    note = f"; {origin['note']}" if origin["note"] and not held.swallowed else ""
    return (
        f"{departure.address.op} in {departure.address.module or 'the model'} gives {held.value:.6g} where float64 of "
        f"the same inputs gives {held.reference:.6g}{far}{note}{more}"
    )
