"""Where is it born? Screen, look inside one module, walk back, name the element, confirm.

The screen's first bad call is recorded operator by operator and the walk back from its bad output ends at the origin,
or outside the module, or at a -inf that somebody meant. In the last two cases the recording is made wider, up to the
whole pass, walked back from the model's own output. The answer is confirmed by repairing that one operator: the
model's output must change where it was bad.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch
from torch import Tensor

from .blame import End, Origin, trace
from .element import locate
from .forward import Pass, main_output, run
from .load import Loaded, file_tensor
from .mechanism import classify, limit_of
from .precision import widened
from .reference import effect, finite_or_none, value_at, with_only, without_bad_values
from .screen import Call, blocks
from .summary import describe, dtype_name, finite_mask, first_bad_index, is_bad, scalar, tensors_in, unravel
from .tape import Tape, record
from .watch import Address

ROOT = ("", 0)
SAMPLES = 3  # bad elements of one output that are walked back; the origin that ran first is the answer


@dataclass(frozen=True)
class Leaf:
    """A tensor that was there before the pass: a parameter, a buffer, or an attribute of a module."""

    name: str
    kind: str
    index: tuple[int, ...]


@dataclass
class Search:
    """What was tried. ``innocent``: bad values that nothing bad followed from."""

    loaded: Loaded
    seen: Pass
    innocent: dict[Address, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self) -> Any:
        return run(self.loaded.model, self.seen.inputs)

    def excuse(self, address: Address, why: str) -> None:
        self.innocent[address] = why


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
        "innocent": [],
        "screened_calls": len(seen.calls),
    }
    if not seen.bad:
        absorbed = sum(call.bad for call in seen.calls)
        extra = f"; {absorbed} module calls gave a NaN or Inf that never reached the output" if absorbed else ""
        return "good", f"the output is finite: there is nothing to find{extra}", payload
    search = Search(loaded, seen)
    found = find(search)
    payload["innocent"] = [
        {"module": place.module, "op": place.op, "why": why} for place, why in search.innocent.items()
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
        origin = earliest(tape)
        if origin is None:
            search.notes.append("a repeated pass had no bad value at the end of {}".format(end[0] or "the model"))
            continue
        leaf = _leaf(search.loaded, tape, origin)
        if origin.end is End.OUTSIDE and leaf is None and begin != ROOT:
            continue  # it came in through the module's inputs: look further out
        if origin.end in (End.LITERAL, End.LOST) or origin.step is None:
            address = origin.step.op.address if origin.step else Address(end[0], end[1], "", 0)
            why = "a -inf that was written on purpose" if origin.end is End.LITERAL else "the walk back did not end"
            search.excuse(address, why)
            continue
        address = origin.step.op.address
        confirmed, how = confirm(search, address)
        if not confirmed and end == ROOT:
            confirmed, how = True, "walked"  # this walk began at the model's own output, and every step of it was tried
        if confirmed:
            search.innocent.pop(address, None)
            return {**build(search, tape, origin, leaf), "confirmed": True, "confirmed_by": how}
        search.excuse(address, "neither cures the output when repaired, nor spoils it alone")
    return None


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


def _leaf(loaded: Loaded, tape: Tape, origin: Origin) -> Optional[Leaf]:
    """The tensor of the model in which the bad value lay, if it came from one."""
    if origin.outside is None or origin.end is not End.OUTSIDE:
        return None
    ref, index = origin.outside
    byte = ref.byte_of(list(index))
    model = loaded.model
    kinds = [
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
        ("attribute", _attributes(model)),
    ]
    for kind, tensors in kinds:
        for name, tensor in tensors:
            if tensor.numel() and not tensor.is_meta:
                own = tape.ref(tensor.detach())
                if own.store is ref.store:
                    place = own.index_of(byte)
                    if place is not None:
                        return Leaf(name, kind, tuple(place))
    return None


def _attributes(model: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [
        (f"{name}.{key}" if name else key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def confirm(search: Search, address: Address) -> tuple[bool, str]:
    """Whether the model's bad output follows from the operator: (confirmed, how that was seen).

    "cured" or "changed": with its bad values repaired, the output is good, or bad in other places. "suffices": the
    output stays the same, because later operators make bad values of their own, but with all of those repaired and
    this one left alone it is bad. (find() adds "walked": two operators are needed together, and the walk back from
    the model's own output ends here.)
    """
    model = search.loaded.model
    output = without_bad_values(model, search.run, address)
    did = effect(search.seen.output, main_output(output)[1] if output is not None else None)
    if did != "unchanged":
        return True, did
    alone = with_only(model, search.run, address)
    if alone is not None and is_bad(main_output(alone)[1]):
        return True, "suffices"
    return False, "unchanged"


def build(search: Search, tape: Tape, origin: Origin, leaf: Optional[Leaf]) -> dict[str, Any]:
    """The origin's record: DESIGN's keys, and what supports them."""
    step = origin.step
    assert step is not None  # find() has seen to it
    if leaf is None and origin.end is End.BORN:
        step = replace(step, index=tuple(_first_own(origin, step)))
    mechanism, operator_value, note = _mechanism(search, replace(origin, step=step), leaf)
    position = next((i for i, ref in enumerate(step.op.outputs) if ref is step.output), 0)
    reference = _reference(search, mechanism, step.op.address, position, step.index, operator_value)
    model, inputs = search.loaded.model, search.seen.inputs
    where = locate(step.output.shape, step.index, inputs, model, step.op.address.module)
    return {
        "module": step.op.address.module,
        "module_class": type(dict(model.named_modules())[step.op.address.module]).__name__,
        "op": step.op.address.op,
        "call_index": step.op.address.call_index,
        "occurrence": step.op.address.occurrence,
        "mechanism": mechanism,
        **where,
        "source": step.op.source,
        "element": list(step.index),
        "value": step.value if leaf is None else scalar(step.output.tensor(), step.index),
        "tensor": leaf.name if leaf else None,
        "tensor_index": list(leaf.index) if leaf else None,
        "inputs": [describe(ref.tensor()) for ref in step.op.inputs()],
        "output": describe(step.output.tensor()),
        "reference_value": reference["value"] if reference else None,
        "reference": reference,
        "limit": limit_of(step.output.dtype),
        "note": note,
    }


def _first_own(origin: Origin, step: Any) -> list[int]:
    """Where all bad values of the output are the operator's own, the first of them; else the one that was followed."""
    floats = [ref for ref in step.op.inputs() if ref.dtype.is_floating_point]
    if any(is_bad(ref.tensor()) for ref in floats):
        return list(step.index)
    return first_bad_index(step.output.tensor())


def _mechanism(search: Search, origin: Origin, leaf: Optional[Leaf]) -> tuple[str, Optional[float], Optional[str]]:
    if origin.end is End.UNWRITTEN:
        return (
            "unset_memory",
            None,
            "the operator hands out memory as it is, and the element was read before anything was written to it",
        )
    if leaf is None:
        if origin.outside is not None and origin.end is End.OUTSIDE:
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(search.seen.inputs.arguments())}
            came = origin.outside[0].store.storage.data_ptr() in given
            words = "the value came in with the inputs of the model" if came else "the value is a constant of the code"
            return "unknown", None, words
        return classify(origin)
    loaded = search.loaded
    if leaf.kind == "attribute":
        return "unknown", None, f"the value lies in {leaf.name}, a tensor that is neither parameter nor buffer"
    if leaf.name in loaded.unset_buffers:
        return (
            "unset_memory",
            None,
            f"no file covers the buffer {leaf.name}, and a second load gives it other values",
        )
    place = loaded.from_file.get(leaf.name)
    if place is not None:
        on_file = scalar(file_tensor(place), leaf.index)
        if math.isfinite(on_file):
            return "overflow", on_file, f"the file holds {on_file:.6g} there, which this dtype cannot hold"
        return (
            "bad_weights",
            None,
            "{}[{}] is {} in the file".format(leaf.name, ", ".join(map(str, leaf.index)), on_file),
        )
    return "bad_weights", None, f"the {leaf.kind} {leaf.name} holds the value before the pass begins"


def _reference(
    search: Search,
    mechanism: str,
    address: Address,
    output: int,
    index: tuple[int, ...],
    operator_value: Optional[float],
) -> Optional[dict[str, Any]]:
    """The value at the same place when the loaded numbers are run in float32, where the case is narrower; else the
    operator's in float64.
    """
    if mechanism in ("bad_weights", "unset_memory", "masked_row"):
        return None
    if torch.finfo(search.loaded.dtype).bits < 32:
        with widened(search.loaded.model, torch.float32):
            value = finite_or_none(value_at(search.loaded.model, search.run, address, output, index))
        if value is not None:
            return {"value": value, "dtype": "float32", "scope": "model"}
    value = finite_or_none(operator_value)
    return {"value": value, "dtype": "float64", "scope": "operator"} if value is not None else None


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


def sentence(origin: dict[str, Any]) -> str:
    """The origin in one line."""
    text = "{} in {} ({}, {})".format(
        origin["mechanism"], origin["module"] or "the model itself", origin["op"], origin["source"]
    )
    if origin["tensor"]:
        text += ": {}[{}]".format(origin["tensor"], ", ".join(map(str, origin["tensor_index"])))
    if origin["token_index"] is not None:
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
