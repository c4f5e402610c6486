"""One more run, up to the candidate that proved to be at fault: what it was given and gave, by which mechanism, in
which phase, and what stands behind it (the forward operator of a gradient, the tensor that came in from outside).
"""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.source import Place, excerpt, short, source_place
from ..observe.tape import Op, Tape
from ..observe.watch import OUTSIDE, Address, Names, OpCall, StopPass, Watch, base_name, watched_everywhere
from ..observe.written import LIFTS
from ..origin.arithmetic import limit_of
from ..origin.mechanism import classify, decided_by_integers, literal_note
from ..origin.outside import came_in, written_in_source
from ..origin.walk import End, Origin, Step, chosen, trace
from ..reduce.program import Program, program_of
from ..reduce.seen import first_of_each_kind
from ..values.figures import describe, dtype_name, first_bad_index, is_bad, same_values, scalar, tensors_in, widen
from ..values.nest import rebuild
from .around import (
    Threads,
    code_of,
    described,
    held_by_the_script,
    library_here,
    node_here,
    phase_here,
    sequence_here,
    stored_bad,
    variable_of,
)
from .kinds import Kinds, kinds_of
from .makers import CAME_IN, MADE, UNSET, Look, Rule, is_readable, readable_in
from .vanishing import Vanishing, is_zero_for_it, vanishing_here

PLACE = ("module", "module_class", "call_index", "occurrence")
WINDOW = 600  # operators before the one at fault that are kept, to walk back to what made its inputs so


@dataclass(frozen=True)
class Wanted:
    """The candidate to capture, and under which rule; ``begin``: from which operator on the run is recorded."""

    name: tuple[str, Address]
    rule: Rule
    begin: int


@dataclass
class Found:
    """The origin's record, and the operators that show it by themselves, where they can be taken out.

    fused: whether one of PyTorch's own layers did by itself what its inner layers are there for. kinds: of the
    operator's inputs, where that is known.
    """

    address: Address
    kind: str
    origin: dict[str, Any]
    program: Optional[Program] = None
    fused: bool = False
    kinds: Optional[Kinds] = None


class Capture(Look):
    """Follows a run under the rule until the wanted candidate has shown what it does."""

    def __init__(self, wanted: Wanted, names: Names, threads: Threads) -> None:
        super().__init__(wanted.rule)
        self._wanted = wanted
        self._kind, self._address = wanted.name
        self._names = names
        self._threads = threads
        self._tape = Tape()
        self._forward: dict[int, tuple[Address, Optional[Place]]] = {}
        self._around: dict[int, tuple[Optional[tuple[str, int]], dict[str, Any]]] = {}
        self._source: Optional[tuple[Tensor, dict[str, Any]]] = None
        self._unset_at: Optional[dict[str, Any]] = None
        self._handed: set[int] = set()
        self._vanishing: dict[int, Vanishing] = {}
        self.found: Optional[Found] = None

    def note_forward(self, call: OpCall) -> Any:
        """The autograd node that is running. In a forward pass, the operator that made the next one is put down."""
        node = node_here()
        number = sequence_here() if node is None else None
        if number is not None:
            self._forward.setdefault(number, (call.address, source_place()))
        return node

    def visit(self, call: OpCall) -> Any:
        node = self.note_forward(call)
        waits = self.found is not None and self.found.origin["gradient"] is None
        if waits and node is not None and node.name().endswith("AccumulateGrad") and _any_bad(call):
            self.found.origin["gradient"] = self._name_of(node.variable)  # type: ignore[union-attr] # see waits
            raise StopPass
        followed = self._source is not None or bool(self._handed)
        bad = self._followed(call) if followed else []
        try:
            result = super().visit(call)
        except Exception as error:
            if error is call.raised and bad and self.found is None:  # it raises for what it was given
                self._follow(call, bad, None)
            raise
        if not followed and self._source is not None:  # it came in here
            bad = [self._source[0]]
        if bad and self.found is None:
            self._follow(call, bad, result)
        return result

    def run(self, call: OpCall) -> Any:
        if self.place >= self._wanted.begin and self.found is None:
            try:
                self._tape.visit(call)
                self._around[len(self._tape.ops) - 1] = (described(node_here()), phase_here())
                constant = vanishing_here(call)
                if constant is not None:
                    self._vanishing[len(self._tape.ops) - 1] = constant
            except Exception as error:
                if error is call.raised:
                    raise
                # A tensor that cannot be recorded (nested, sparse): the walk back ends there.
        result = call.run()
        if (self._kind, call.address) == (UNSET, self._address):
            self._unset_at = {**self._place(call), "output": next(iter(map(describe, tensors_in(result))), None)}
            self._handed = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(result)}
        return result

    def made(self, call: OpCall, spoilt: list[Tensor]) -> None:
        if self._kind != MADE or call.address != self._address or self.found is not None:
            return
        place = self._place(call)
        if self._tape.ops and self._tape.ops[-1].address == call.address:
            self.found = self._explained(place, self._tape.ops[-1])
        if self.found is None:
            record = {**blank(), **place, "output": describe(spoilt[0]), "limit": limit_of(spoilt[0].dtype)}
            self.found = Found(call.address, MADE, record)
        self.found.fused = self._names.is_fused(call.address)
        if self.found.origin["phase"] != "backward":
            raise StopPass

    def came(self, call: OpCall, kind: str, reader: Address, tensor: Tensor) -> None:
        if (kind, reader) == (self._kind, self._address) and self._source is None:
            literal = written_in_source(source_place(), bad_value(tensor), tensor.dtype)
            self._source = (
                tensor,
                {**self._place(call), "literal": literal, "held": held_by_the_script(bad_value(tensor))},
            )

    def _place(self, call: OpCall) -> dict[str, Any]:
        """Where an operator is called from."""
        address = call.address
        here = source_place()
        place: dict[str, Any] = {
            "module": "" if (address.module, address.call_index) == OUTSIDE else address.module,
            "module_class": self._names.class_at(address),
            "op": address.op,
            "call_index": address.call_index,
            "occurrence": address.occurrence,
            "source": short(here),
            "code": code_of(here),
            "excerpt": excerpt(here),
            "library": library_here(),
            "largest_weight": self._largest_weight(),
            **phase_here(),
        }
        return {**place, **self._backward(described(node_here()))}

    def _backward(self, node: Optional[tuple[str, int]]) -> dict[str, Any]:
        """What stands behind an operator of a backward pass: the operator of the forward pass, and its line."""
        if node is None:
            return {}
        name, number = node
        forward = self._forward.get(number)
        if forward is None:
            return {"phase": "backward", "note": f"in {name}"}
        at, here = forward
        place: dict[str, Any] = {
            "phase": "backward", "forward_op": at.op, "forward_source": short(here), "code": code_of(here),
            "note": f"in {name}, the backward of {at.op}", "excerpt": excerpt(here),
        }  # fmt: skip
        if at.module:
            place.update(module=at.module, module_class=self._names.classes.get(at.module, ""))
        elif (at.module, at.call_index) != OUTSIDE:  # the outermost module itself
            place.update(module_class=self._names.classes.get("", ""), call_index=at.call_index)
        return place

    def _decided_by(self, step: Step) -> Optional[str]:
        """What else decides, beside the numbers: labels and lengths, or the epsilon of a norm that is 0."""
        if decided_by_integers(step):
            return "integers"
        module = self._names.module(step.op.address.module)
        if module is None:  # not by its truth: a module may have a length of its own, or refuse to tell one
            return None
        none = any(
            "eps" in name and isinstance(value, (int, float)) and value == 0 for name, value in vars(module).items()
        )
        return "epsilon" if none else None

    def _largest_weight(self) -> Optional[dict[str, Any]]:
        found: Optional[dict[str, Any]] = None
        for kind, name, tensor in self._names.held():
            if kind != "parameter" or not is_readable(tensor) or is_bad(tensor):
                continue
            value = float(widen(tensor.detach()).abs().max())
            if found is None or value > found["value"]:
                found = {"tensor": name, "value": value, "dtype": dtype_name(tensor.dtype)}
        return found

    def _explained(self, place: dict[str, Any], op: Op) -> Optional[Found]:
        """What the operator did, by a walk back through what was recorded; None where the walk leads nowhere."""
        for ref in op.outputs:
            if not ref.dtype.is_floating_point and not ref.dtype.is_complex:
                continue
            for index in first_of_each_kind(ref.tensor()):
                origin = chosen(trace(self._tape, ref, index))
                if origin.end is not End.BORN or origin.step is None:
                    continue
                return self._record(place, op, origin)
        return None

    def _record(self, place: dict[str, Any], op: Op, origin: Origin) -> Found:
        step = origin.step
        assert step is not None  # the caller has seen to it
        mechanism, expected, note = classify(origin)
        if step.op is not op:  # a row of scores that an earlier operator overflowed
            address = step.op.address
            node, phase = self._around.get(step.op.index, (None, {}))
            place = {
                **place,
                "module": "" if (address.module, address.call_index) == OUTSIDE else address.module,
                "module_class": self._names.class_at(address),
                "op": address.op, "call_index": address.call_index, "occurrence": address.occurrence,
                "source": step.op.source, "code": code_of(step.op.place), "excerpt": excerpt(step.op.place),
                **dict.fromkeys(("forward_op", "forward_source", "note")), **phase, **self._backward(node),
                "gradient": None if node is None else self._only_bad_gradient(),
            }  # fmt: skip
        if place.get("phase") == "optimizer":
            place["note"] = self._updated(step) or place.get("note")
        constant = self._vanished(step) if mechanism in ("divide_by_zero", "invalid") else None
        notes = [text for text in (place.get("note"), note, constant and constant.words) if text]
        if mechanism == "masked_row":
            masked = next((at for at in reversed(origin.path) if at.op is not step.op and at.op.source), None)
            if masked is not None:
                behind = {"code": code_of(masked.op.place), "excerpt": excerpt(masked.op.place)}
                place = {**place, **behind, "cause_source": masked.op.source}
                notes.append(f"the row was masked by {masked.op.address.op} at {masked.op.source}")
        reference = None if expected is None or math.isnan(expected) else expected
        record = {
            **blank(),
            **place,
            "mechanism": mechanism,
            "element": list(step.index),
            "value": step.value,
            "inputs": [describe(ref.tensor()) for ref in step.op.inputs()],
            "output": describe(step.output.tensor()),
            "reference_value": reference,
            "reference": None if reference is None else {"value": reference, "dtype": "float64", "scope": "operator"},
            "limit": limit_of(step.output.dtype),
            "note": "; ".join(notes) or None,
            "decided_by": self._decided_by(step),
        }
        if constant is not None:
            own = "default constant" if constant.is_default else "constant"
            record.update(decided_by=own, library=constant.library)
        return Found(step.op.address, MADE, record, program_of(self._tape, step.op), kinds=kinds_of(step))

    def _vanished(self, step: Step) -> Optional[Vanishing]:
        """The constant that was to keep an input of the operator from being 0, and is 0 itself."""
        given = {ref.store.storage.data_ptr() for ref in step.op.inputs()}
        for op in reversed(self._tape.ops[: step.op.index]):
            constant = self._vanishing.get(op.index)
            made = {ref.store.storage.data_ptr() for ref in op.outputs}
            if constant is not None and made & given and is_zero_for_it(op):
                return constant
        return None

    def _updated(self, step: Step) -> Optional[str]:
        """Of an operator of an optimizer: whose step it is."""
        written = {ref.store.storage.data_ptr() for ref in step.op.mutates}
        for kind, name, held in self._names.held():
            if kind == "parameter" and is_readable(held) and held.untyped_storage().data_ptr() in written:
                return f"in the step of {name}"
        return None

    def _followed(self, call: OpCall) -> list[Tensor]:
        """What an operator is about to read of the bad values that are followed."""
        bad = [tensor for tensor in readable_in((call.args, call.kwargs)) if is_bad(tensor)]
        if self._handed:
            bad = [tensor for tensor in bad if tensor.untyped_storage().data_ptr() in self._handed]
        return bad

    def _follow(self, call: OpCall, bad: list[Tensor], result: Any) -> None:
        """The first operator that computes with the bad value, and does not only move it, reads it. result: None where
        it raises.
        """
        moved = next(readable_in([result]), None)
        if moved is not None and (_is_view(moved, bad[0]) or _only_moves(call, moved, bad[0])):
            return
        place = self._place(call)
        tensor = bad[0]
        name, kind = self._named(tensor)
        came = came_in(kind, tensor)
        record = {**blank(), **place, "came_in": came, "tensor": name, "inputs": [describe(item) for item in bad]}
        first = first_bad_index(tensor)
        output = next(tensors_in([result]), None)
        record.update(
            element=first,
            value=scalar(tensor, first),
            tensor_index=self._index_of(name, first),
            output=None if output is None else describe(output),
            limit=limit_of(tensor.dtype),
        )
        record.update(self._outside(record, kind))
        record.update(self._before_it(record, kind))
        self.found = Found(self._address, self._kind, record)
        raise StopPass

    def _before_it(self, record: dict[str, Any], kind: str) -> dict[str, Any]:
        """Phase and step of a value that was there before a generation began: not those of its first reader, which need
        not have looked at this very element.
        """
        at = self._unset_at if self._kind == UNSET else self._source[1] if self._source is not None else None
        if record["generate_step"] is None or at is None:
            return {}
        if at["generate_step"] is not None and kind not in ("parameter", "buffer"):
            return {}
        return {"generate_step": None, "phase": "forward" if at["phase"] == "generate" else at["phase"]}

    def _index_of(self, name: Optional[str], first: list[int]) -> Optional[list[int]]:
        """The first bad element in the tensor of this name: what was read may be a view of it, transposed."""
        if name is None:
            return None
        held = next((tensor for _, known, tensor in self._names.held() if known == name), None)
        return first if held is None or not is_bad(held) else first_bad_index(held)

    def _outside(self, record: dict[str, Any], kind: str) -> dict[str, Any]:
        """Mechanism and note of a value that no operator made."""
        if self._kind == UNSET:
            assert self._unset_at is not None  # it was met before it was read
            at = self._unset_at
            note = f"the memory comes from {at['op']} at {at['source']} and is first read at {record['source']}"
            own = {} if at["call_index"] == OUTSIDE[1] else {key: at[key] for key in PLACE}
            return {
                **own,
                "mechanism": "unset_memory", "note": f"{note}; other fill values give other results", "op": at["op"],
                "source": at["source"], "code": at["code"], "excerpt": at["excerpt"],
            }  # fmt: skip
        assert self._source is not None  # nothing else is followed
        entry = self._source[1]
        if self._kind != CAME_IN:
            note = "no operator of PyTorch wrote the value into this memory, and PyTorch handed the memory out"
            return {"mechanism": "written_outside", "note": f"{note}; it is read at {record['source']}", "code": None}
        stored = self._is_stored(record["tensor"], record["tensor_index"]) if kind in ("parameter", "buffer") else False
        if stored:
            return {"mechanism": "bad_weights", "note": f"{stored} holds the value"}
        if self._names.other_threads or (self._threads.started and base_name(entry["op"]) not in LIFTS):
            return {"mechanism": "unknown", "note": "other threads ran, which are not watched"}
        if entry["literal"] is not None:
            note = f"{literal_note(entry['literal'], self._source[0].dtype)}, at {entry['source']}"
            return {
                "mechanism": "literal", "note": note, "op": entry["op"], "source": entry["source"],
                "code": entry["code"], "excerpt": entry["excerpt"], "tensor": record["tensor"],
            }  # fmt: skip
        loaded = entry["phase"] == "load" and kind in ("parameter", "buffer")
        where = f"it came in at {entry['source']}" if entry["source"] != record["source"] else "it came in there"
        share = record["came_in"]
        share.update(held_by=entry["held"], entry_code=entry["code"])
        words = "{:,} of {:,} values are not finite; {}".format(share["bad"], share["total"], where)
        words += f", from the script's own {entry['held']}" if entry["held"] else ""
        return {"mechanism": "bad_weights" if loaded else "bad_input", "note": words}

    def _is_stored(self, name: Optional[str], index: Optional[list[int]]) -> Optional[str]:
        """The file from which a model was loaded, if its tensor of this name has a bad value at this place."""
        if name is None or index is None:
            return None
        for label, root in self._names.roots():
            folder = str(getattr(getattr(root, "config", None), "_name_or_path", ""))
            if os.path.isdir(folder):
                found = stored_bad(folder, name[len(label) + 1 :] if label else name, index)
                if found:
                    return found
        return None

    def _named(self, tensor: Tensor) -> tuple[Optional[str], str]:
        """The name of a tensor, and what it is: parameter, buffer or data."""
        for kind, name, held in self._names.held():
            if is_readable(held) and _is_view(held, tensor):
                return name, kind
        return variable_of(lambda item: is_readable(item) and _is_view(item, tensor)), "data"

    def _only_bad_gradient(self) -> Optional[str]:
        """The one parameter whose gradient is bad by now; None where several are: the first is not known."""
        held = [(name, tensor.grad) for kind, name, tensor in self._names.held() if kind == "parameter"]
        bad = [name for name, grad in held if grad is not None and any(map(is_bad, readable_in(grad)))]
        return bad[0] if len(bad) == 1 else None

    def _name_of(self, variable: Any) -> Optional[str]:
        own = next((name for _, name, tensor in self._names.held() if tensor is variable), None)
        return own or variable_of(lambda item: item is variable)


def capture(wanted: Wanted, names: Optional[Names] = None) -> tuple[Any, Any]:
    """(context around the program, function that gives Found or None)."""
    names, threads = names or Names(), Threads()
    made = Capture(wanted, names, threads)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with threads.counted(), watched_everywhere(Watch(made.visit, OUTSIDE), names):
            yield

    return around(), lambda: made.found


def blank() -> dict[str, Any]:
    """An origin's record with nothing in it."""
    return {
        **dict.fromkeys(("token_index", "token", "head_index", "channel_index", "tensor", "tensor_index", "note")),
        **dict.fromkeys(("element", "value", "reference_value", "reference", "limit", "phase", "forward_op")),
        **dict.fromkeys(("forward_source", "gradient", "generate_step", "came_in", "layer", "output", "library")),
        **dict.fromkeys(("decided_by", "largest_weight", "cause_source", "train_step", "micro_batch", "excerpt")),
        "mechanism": "unknown", "operands": [], "inputs": [], "module": "", "module_class": "",
    }  # fmt: skip


def _any_bad(call: OpCall) -> bool:
    return any(map(is_bad, readable_in((call.args, call.kwargs))))


def _is_view(one: Tensor, two: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def _only_moves(call: OpCall, moved: Tensor, read: Tensor) -> bool:
    """Whether an operator gives back the numbers of ``read``: it did, and with other numbers there it does so too."""
    if not _same_numbers(moved, read):
        return False
    other = torch.linspace(0, 1, read.numel(), device=read.device).reshape(read.shape).to(read.dtype)

    def make(tensor: Tensor) -> Tensor:
        return other if tensor is read else tensor.detach().clone()

    try:
        with torch.no_grad():
            again = call.func(*rebuild(call.args, Tensor, make), **rebuild(call.kwargs, Tensor, make))
        return any(_same_numbers(result, other) for result in readable_in(again))
    except Exception:  # noqa: BLE001 - an operator that refuses other numbers does more than move them
        return False


def _same_numbers(one: Tensor, two: Tensor) -> bool:
    """Whether both hold the same numbers in the same order, whatever their dtype and shape."""
    if one.numel() != two.numel() or not (one.is_floating_point() and two.is_floating_point()):
        return False
    return same_values(
        widen(one.detach()).reshape(-1).to(torch.float64), widen(two.detach()).reshape(-1).to(torch.float64)
    )


def bad_value(tensor: Tensor) -> float:
    """The first NaN or infinity in a tensor."""
    return scalar(tensor, first_bad_index(tensor))
