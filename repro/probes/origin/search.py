"""Where is it born? Screen, look inside one module, walk back, name the element, confirm.

The screen's first bad call is recorded operator by operator and the walk back from its bad output ends at the origin,
or outside the module, or at a -inf that somebody meant. In the last two cases the recording is made wider, up to the
whole pass, walked back from the model's own output. The answer is confirmed by repairing that one operator: the
model's output must change where it was bad. For a value that came in from outside it is the operator that reads it.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

from ..model.forward import Pass, main_output, run
from ..model.load import Loaded
from ..model.loadcheck import poisoned_memory
from ..observe.screen import Call, blocks
from ..observe.tape import Tape, record
from ..observe.watch import OUTSIDE, Address, Visitor, Watch, watched
from ..values.figures import dtype_name, finite_mask, first_bad_index, is_bad, unravel
from .arithmetic import limit_of
from .counterfactual import effect, follows_the_fill, with_only, without_bad_values
from .mechanism import Answer
from .outside import DATA, PARAMETER, Leaf, find_leaf, literal_in_source, without_name
from .record import describe_origin
from .walk import End, Origin, Step, chosen, trace

ROOT = ("", 0)
TRIES = 8  # operators before the origin that are asked whether they suffice by themselves
SAMPLES = 3  # bad elements of one output that are walked back; the origin that ran first is the answer


@dataclass
class Search:
    """What was tried. ``ruled_out``: bad values that nothing bad followed from."""

    loaded: Loaded
    seen: Pass
    ruled_out: dict[Address, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _repairable: Optional[bool] = None

    def run(self) -> Any:
        return run(self.loaded.model, self.seen.inputs)

    def passes(self, visit: Visitor) -> None:
        """One more pass, under a visitor."""
        with watched(self.loaded.model, Watch(visit)):
            self.run()

    def is_repairable(self) -> bool:
        """Whether the output is good where no operator may make a bad value. It is not where the code, a weight or the
        inputs hold one: then that one operator is left alone says nothing of it.
        """
        if self._repairable is None:
            self._repairable = not self.is_bad_with(None)
        return self._repairable

    def is_bad_with(self, address: Optional[Address]) -> bool:
        """Whether the output is bad where this operator alone may make bad values."""
        output = with_only(self.loaded.model, self.run, address)
        return output is not None and is_bad(main_output(output, self.seen.output_name)[1])

    def excuse(self, address: Address, why: str) -> None:
        self.ruled_out[address] = why


def bisect(loaded: Loaded, passes: list[Pass]) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the bisect step."""
    number = next((i for i, seen in enumerate(passes) if seen.bad), 0)
    seen = passes[number]
    dtype = seen.output.dtype
    payload: dict[str, Any] = {
        "origin": None,
        "prompt": number,
        "spread": list(seen.spread),
        "headroom": headroom(loaded, seen),
        "limit": limit_of(dtype),
        "dtype": dtype_name(dtype),
        "ruled_out": [],
        "screened_calls": len(seen.calls),
    }
    if not seen.bad:
        absorbed = sum(call.bad for call in seen.calls)
        extra = f"; {absorbed} module calls gave a NaN or Inf that never reached the output" if absorbed else ""
        return "good", f"the output is finite: there is nothing to find{extra}", payload
    search = Search(loaded, seen)
    found = find(search)
    payload["ruled_out"] = [
        {"module": place.module, "op": place.op, "why": why} for place, why in search.ruled_out.items()
    ]
    if found is None:
        return (
            "skip",
            "no origin could be confirmed: {}".format("; ".join(search.notes) or "the walk back did not end"),
            payload,
        )
    payload["origin"] = found
    return "bad", sentence(found), payload


def find(search: Search) -> Optional[dict[str, Any]]:
    """The origin as plain data, or None.

    Widens the recording until the walk back ends inside it and the answer is confirmed.
    """
    first = next((call for call in search.seen.calls if call.bad), None)
    for begin, end in _frames(first):
        tape = record(search.loaded.model, search.run, begin, end)
        ended = _ended(search, tape, begin, end)
        if ended is None:
            continue
        origin, leaf, said = ended
        if origin.end in (End.LITERAL, End.LOST) or origin.step is None:
            address = origin.step.op.address if origin.step else Address(end[0], end[1], "", 0)
            why = "a -inf that was written on purpose" if origin.end is End.LITERAL else "the walk back did not end"
            search.excuse(address, origin.note or why)
            continue
        address = origin.step.op.address
        # a wider recording may lead to the same operator: it has been put to the test already
        confirmed, how = (False, "unchanged") if address in search.ruled_out else confirm(search, address)
        if not confirmed and end == ROOT:
            confirmed, how = True, "walked"  # this walk began at the model's own output, and every step of it was tried
        if confirmed:
            search.ruled_out.pop(address, None)
            before = before_it(search, tape, origin) if said is None and leaf is None else None
            origin, how = (before, "suffices") if before is not None else (origin, how)
            found = describe_origin(search.loaded, search.seen, origin, leaf, said)
            return {**found, "confirmed": True, "confirmed_by": how}
        search.excuse(address, "repairing it does not make the output good, and it alone does not make the output bad")
    return _unset_now_and_then(search)


def _unset_now_and_then(search: Search) -> Optional[dict[str, Any]]:
    """The origin of an output that is bad in one pass and good in the next, where it is unset memory: with NaN in all
    memory that is handed out unset, the walk back ends there. None where it does not.
    """
    with poisoned_memory():
        tape = record(search.loaded.model, search.run, ROOT, ROOT)
    origin = earliest(tape)
    if origin is None or origin.end is not End.UNWRITTEN or origin.read is None:
        return None
    origin, said = unset_or_written(origin, search.passes)
    if said[0] != "unset_memory":
        return None
    found = describe_origin(search.loaded, search.seen, origin, None, said)
    return {**found, "confirmed": True, "confirmed_by": "walked"}


def _ended(
    search: Search, tape: Tape, begin: tuple[str, int], end: tuple[str, int]
) -> Optional[tuple[Origin, Optional[Leaf], Optional[Answer]]]:
    """Where the walk back through a recording ended, the tensor that came in bad, if one did, and the mechanism, where
    it is not the operator's own; None where only a wider recording can tell.
    """
    origin = earliest(tape)
    if origin is None:
        search.notes.append("a repeated pass had no bad value at the end of {}".format(end[0] or "the model"))
        return None
    leaf = find_leaf(search.loaded, search.seen, tape, origin)
    if origin.end is End.OUTSIDE and leaf is None and begin != ROOT:
        return None  # it came in through the module's inputs: look further out
    if origin.masked_row and leaf is not None and leaf.kind == PARAMETER:
        origin = replace(origin, end=End.OUTSIDE)  # no mask is a parameter
    elif origin.end is End.OUTSIDE and (leaf is None or leaf.kind != PARAMETER):
        origin = chosen(origin if leaf else literal_in_source(origin), leaf is not None and leaf.kind == DATA)
    if origin.end is End.LITERAL and end == ROOT and origin.step is not None:
        # nothing made NaN of the -inf that was written, and it is in the output itself
        origin = replace(origin, end=End.OUTSIDE if origin.outside else End.BORN, literal=-math.inf)
    leaf = (leaf or without_name(origin)) if origin.end is End.OUTSIDE else None
    if origin.end in (End.UNWRITTEN, End.OVERWRITTEN):
        if origin.read is None and end != ROOT:
            return None  # the module hands it out: look further out for what reads it
        origin, said = unset_or_written(origin, search.passes)
        return origin, None, said
    if origin.end is End.LOST:  # is it one of those that ran before, all the same?
        origin = before_it(search, tape, origin) or origin
    return origin, leaf, None


def before_it(search: Search, tape: Tape, origin: Origin) -> Optional[Origin]:
    """An operator that ran before the origin, made a bad value by itself, and suffices to make the output bad.

    Where two faults have nothing to do with each other, the walk back meets one of them.
    """
    tried = 0
    for op in tape.ops[: 0 if origin.step is None else origin.step.op.index]:
        made = next((ref for ref in op.outputs if ref.was_bad), None)
        if made is None or op.address in search.ruled_out or not is_bad(made.tensor()):
            continue
        found = trace(tape, made, first_bad_index(made.tensor()))
        if found.end is not End.BORN or found.step is None or found.step.op is not op:
            continue
        tried += 1
        if tried > TRIES:
            break
        if search.is_bad_with(op.address) and search.is_repairable():
            return found
    return None


def unset_or_written(origin: Origin, passes: Callable[[Visitor], Any]) -> tuple[Origin, Answer]:
    """A walk that ended at memory that no operator wrote: is it to blame for being unset, or did something else write
    to it? The origin with the operator to name, and what is said of it.

    passes: runs the program again under a visitor.
    """
    made, read = origin.step, origin.read
    assert made is not None
    where = f"the memory comes from {made.op.address.op} ({made.op.source})"
    follows = None if read is None or origin.end is End.OVERWRITTEN else follows_the_fill(passes, read)
    if follows:
        note = f"{where}; filled with 1 and with 2 when it was handed out, it holds 1 and 2 when it is read"
        return origin, ("unset_memory", None, note)
    reader = next((step for step in reversed(origin.path) if read is not None and step.op is read[0]), made)
    origin = replace(origin, step=reader)
    if origin.end is End.OVERWRITTEN:
        note = f"{where}, which gave a finite value there; no operator wrote to it before {_reading(reader)}"
        return origin, ("written_outside", None, note)
    if follows is False:
        note = f"{where}; whatever it is filled with, {_reading(reader)} finds another value, which no operator wrote"
        return origin, ("written_outside", None, note)
    return origin, ("unknown", None, f"{where}, and whether anything wrote to it could not be asked")


def _reading(reader: Step) -> str:
    return f"{reader.op.address.op} ({reader.op.source})"


def _frames(first: Optional[Call]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """(begin, end) of the recordings to make, from the narrowest to the whole pass."""
    frames = []
    if first is not None and first.module:
        call = (first.module, first.call_index)
        frames = [(call, call), (ROOT, call)]
    return [*frames, (ROOT, ROOT)]


def earliest(tape: Tape) -> Optional[Origin]:
    """Of the walks from a few bad elements of the recorded outputs, the one whose origin ran first; None if no output
    is bad.
    """
    origins: list[Origin] = []
    for ref in tape.exit_refs:
        values = ref.tensor()
        if not is_bad(values):
            continue
        flat = (~finite_mask(values)).reshape(-1).nonzero().flatten()
        picks = {int(flat[i]) for i in {0, flat.numel() // 2, flat.numel() - 1}}
        origins += [trace(tape, ref, unravel(pick, ref.shape)) for pick in sorted(picks)[:SAMPLES]]
        break
    ended = [origin for origin in origins if origin.end not in (End.LITERAL, End.LOST) and origin.step] or origins
    return min(ended, key=lambda origin: origin.step.op.index if origin.step else -1) if ended else None


def confirm(search: Search, address: Address) -> tuple[bool, str]:
    """Whether the model's bad output follows from the operator: (confirmed, how that was seen).

    "repaired" or "changed": with its bad values repaired, the output is good, or bad in other places. "suffices": the
    output stays the same, because later operators make bad values of their own, but with all of those repaired and
    this one left alone it is bad. (find() adds "walked": two operators are needed together, and the walk back from
    the model's own output ends here.)
    """
    model = search.loaded.model
    output = without_bad_values(model, search.run, address)
    did = effect(search.seen.output, main_output(output, search.seen.output_name)[1] if output is not None else None)
    if did != "unchanged":
        return True, did
    return (True, "suffices") if search.is_bad_with(address) else (False, "unchanged")


def headroom(loaded: Loaded, seen: Pass) -> list[dict[str, Any]]:
    """Largest magnitude of each repeated layer's output, and the dtype's limit divided by it (None where it is not
    finite).
    """
    wanted = set(blocks(loaded.model))
    limit = limit_of(seen.output.dtype)
    return [
        {
            "module": call.module,
            "call_index": call.call_index,
            "absmax": call.absmax,
            "ratio": limit / call.absmax if not call.bad and call.absmax > 0 else None,
        }
        for call in seen.calls
        if call.module in wanted
    ]


def sentence(origin: dict[str, Any], noun: str = "the script") -> str:
    """The origin in one line. noun: what ran the operators that no module did."""
    outside = f"{noun} itself" if origin["call_index"] == OUTSIDE[1] else "the model itself"
    if noun == "the script" and outside != "the model itself" and origin.get("code") not in (None, "torch", "__main__"):
        outside = f"the code of {origin['code']}"
    where = ", ".join(filter(None, (origin["op"], origin["source"])))  # an operator of the C++ code has no line
    text = "{} in {} ({})".format(origin["mechanism"], origin["module"] or outside, where)
    if origin["tensor"]:
        text += ": {}[{}]".format(origin["tensor"], ", ".join(map(str, origin["tensor_index"])))
    place = origin.get("place")
    if place is not None and not place["kind"].endswith("token"):
        text += ", {} {}".format(place["kind"], place["index"] if len(place["index"]) > 1 else place["index"][0])
    elif origin["token_index"] is not None:
        text += ", token {}".format(origin["token_index"])
        if origin["token"] is not None:
            text += " {!r}".format(origin["token"])
    if origin["channel_index"] is not None:
        text += ", channel {}".format(origin["channel_index"])
    if origin["reference"] and math.isfinite(origin["reference_value"]):
        text += "; {} has {:.6g} there".format(origin["reference"]["dtype"], origin["reference_value"])
        if origin["mechanism"] == "overflow":
            text += ", the limit is {:.6g}".format(origin["limit"])
    return text
