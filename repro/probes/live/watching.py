"""Any code of the user's, watched while it runs once: its forward passes, losses, backward passes and optimiser steps.

Such code cannot be run again, so the evidence is taken on the way. From the first bad value on, every operator is
recorded; where one arrives in something that the user has (the output of a model, a gradient, a parameter, a variable,
the input of an operator that raises for it) the walk goes back from there, element by element, each step of it tested
on the operator itself. A NaN that arrives nowhere is none of anybody's business. A call of the model itself can be run
again, and there the whole search is made.
"""

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy

from ..model.load import Loaded
from ..model.ready import Given, ready
from ..observe.source import excerpt
from ..observe.tape import Tape, output_tensors, unreadable
from ..observe.watch import OUTSIDE, Address, Names, OpCall, Watch, aside, watched_everywhere
from ..origin.arithmetic import limit_of
from ..origin.outside import DATA, came_in, literal_in_source
from ..origin.search import earliest
from ..origin.walk import End, Origin, chosen
from ..phases.generation import without_masks
from ..program.around import Threads, code_of, described, frames, node_here, phase_here
from ..program.capture import Capture, Wanted, blank
from ..program.makers import Look, Rule, is_readable, readable_in
from ..reduce.program import Program
from ..reduce.seen import MASK, kinds_in
from ..values.figures import describe, is_bad, scalar
from .compiled import eagerly
from .find import Found, look_into
from .held import bad_copies_in, held_in, is_odd, is_returning, variables_of
from .sharded import needs_others

KEPT_BYTES = 2 << 30  # of recorded results: beyond it the recording stops, and only a call that can be repeated is told
UNSCALE = "_amp_foreach_non_finite_check_and_unscale_"
BACKWARD = os.path.join("torch", "autograd", "__init__.py")
AT_ANY_SCALE = ("divide_by_zero", "invalid")  # of finite inputs, whatever their size
COMPUTED = ("overflow", "divide_by_zero", "kernel")  # of -inf that nobody wrote down
CHOICES = frozenset(("argmax", "topk", "multinomial"))  # of a token, by its score
READ_OUT = "_local_scalar_dense"  # a tensor's one element as a number of Python's
UNNAMED = "no operator says that it wrote there (a batch norm writes to its running figures without saying so)"
NOTHING = ("nothing", Address("", -1, "", -1))


@dataclass(frozen=True)
class Arrival:
    """Where a bad value arrived: what holds it, in words; and in which phase that was."""

    words: str
    phase: str


@dataclass(frozen=True)
class Sighting:
    """The first bad value that arrived somewhere. origin: its record; None where the walk back did not end. call:
    what a call of the model showed that was run again. program: the operators that show it by themselves. written_down:
    whether it is a number that the code itself wrote there, and nothing was computed with it.
    """

    arrival: Arrival
    origin: Optional[dict[str, Any]]
    confirmed_by: Optional[str]
    why: str
    call: Optional[Found] = None
    program: Optional[Program] = None
    written_down: bool = False


class Live(Capture):
    """Follows what runs, and holds the first sighting."""

    def __init__(self, names: Names, watch: "Watching") -> None:
        self.threads = Threads()
        super().__init__(Wanted(NOTHING, Rule(fill=None), 0), names, self.threads)
        self._owner = watch
        self._taping, self._kept = False, 0
        self._pending: Optional[Sighting] = None
        self._alive: list[Any] = []
        self._numbers: dict[str, Optional[Sighting]] = {}  # bad numbers that the program took out of tensors
        self.before: frozenset[str] = frozenset()  # variables that held a bad value before
        self.copies: frozenset[str] = frozenset()  # arrays of NumPy's own that held a bad value before
        self.copied: Optional[str] = None  # one that does now, and an operator made one meanwhile
        self.has_made = False  # whether an operator made a bad value, other than a mask's
        self.sound: frozenset[str] = frozenset()  # buffers of the model that held none before
        self.foreign: Optional[str] = None  # a variable with a bad value that no watched operator made
        self.scaled = 0  # gradients that a loss scaler threw away
        self.sighting: Optional[Sighting] = None

    # --- while operators run -------------------------------------------------------------------------------------

    def visit(self, call: OpCall) -> Any:
        node = self.note_forward(call)
        if node is None and self._pending is not None:
            self._after_backward(call)
        elif node is None and call.address.base_name == "ones_like" and _begins_backward():
            self._is_led_back(call)
        elif node is None and call.address.base_name == READ_OUT:
            self._reads_out(call)
        elif node is None and call.address.base_name in CHOICES:
            self._chooses(call)
        try:
            result = Look.visit(self, call)
        except Exception as error:
            if error is call.raised:
                self._raised(call)
            raise
        if node is not None and node.name().endswith("AccumulateGrad"):
            self._accumulates(call, node.variable)
        elif node is None and self._taping and call.writes:
            self._writes(call)
        return result

    def run(self, call: OpCall) -> Any:
        if not self._taping:
            self.forget()
        if self._taping or call.writes:
            self._put_down(call)
        return call.run()

    def made(self, call: OpCall, spoilt: list[Tensor]) -> None:
        kept = [_weakly(tensor) for tensor in spoilt if kinds_in([tensor]) - MASK]
        self.has_made = self.has_made or bool(kept)
        self._alive.extend(kept)
        self._begin(call)

    def came(self, call: OpCall, kind: str, reader: Address, tensor: Tensor) -> None:
        self._begin(call if call.has_run else None)

    def _read(self, call: OpCall, tensor: Tensor) -> None:
        super()._read(call, tensor)
        self._begin(None)  # also where it is known already, and what was recorded of it is forgotten

    def _begin(self, call: Optional[OpCall]) -> None:
        """From here on everything is recorded; the operator itself where it has run and is not recorded yet."""
        if self._taping or self._kept > KEPT_BYTES:
            return
        self._taping = True
        if call is not None and not (self._tape.ops and self._tape.ops[-1].address == call.address):
            self._put_down(call)

    def _put_down(self, call: OpCall) -> None:
        if self._kept > KEPT_BYTES:
            self._tape.complete = False
            return
        try:
            result = self._tape.visit(call)
        except Exception as error:
            if error is call.raised:
                raise
            return  # a tensor that cannot be recorded (nested, sparse): the walk back ends there
        self._around[len(self._tape.ops) - 1] = (described(node_here()), phase_here())
        if self._taping:
            self._kept += sum(tensor.numel() * tensor.element_size() for tensor in readable_in([result]))

    def forget(self) -> None:
        """Let go of what is recorded."""
        self._tape, self._taping, self._kept = Tape(), False, 0
        self._around.clear()

    # --- where bad values arrive ---------------------------------------------------------------------------------

    def call_begins(self) -> None:
        """A call of the model begins: what was recorded before is of no use, unless a NaN of it is still there."""
        self._alive = [ref for ref in self._alive if not ref.expired()]
        if node_here() is None and not self._alive:
            self.forget()

    def call_ends(self, class_name: str, output: Any, again: Optional[Callable[[], Optional[Found]]]) -> None:
        """again: runs the call once more and looks into it, where it is known how it was made."""
        tensors = [tensor for tensor in output_tensors(output) if is_readable(tensor) and is_bad(tensor)]
        if not tensors or node_here() is not None:
            return
        arrival = Arrival(f"the output of {class_name}", phase_here()["phase"])
        bad = next((tensor for tensor in tensors if kinds_in([tensor]) - MASK), None)
        if bad is not None:
            self._arrived(bad, arrival, again)
        elif self._owner.judges_masks:  # -inf alone: a mask's is written down
            computed = next(filter(self._is_computed, tensors), None)
            if computed is not None:
                self._arrived(computed, arrival, again)

    def _is_computed(self, tensor: Tensor) -> bool:
        """Whether the walk back from -inf ends at an operator that made it of finite numbers."""
        seen = self._sighted(tensor, Arrival("", ""), None)
        origin = None if seen is None else seen.origin
        return origin is not None and origin["mechanism"] in COMPUTED

    def _is_led_back(self, call: OpCall) -> None:
        """A backward pass begins at a loss."""
        bad = next((tensor for tensor in readable_in(call.args) if is_bad(tensor)), None)
        if bad is not None:
            self._pending = self._sighted(bad, Arrival("the loss", "loss"), None)

    def _accumulates(self, call: OpCall, variable: Tensor) -> None:
        """A gradient is added to a parameter's. Whether it does harm is known when somebody uses it."""
        if self._pending is not None:
            return
        bad = next((tensor for tensor in readable_in((call.args, call.kwargs)) if is_bad(tensor)), None)
        if bad is not None:
            name = self._name_of(variable) or "a tensor"
            self._pending = self._sighted(bad, Arrival(f"the gradient of {name}", "backward"), None)
            if self._pending is not None and self._pending.origin is not None:
                self._pending.origin["gradient"] = name

    def _after_backward(self, call: OpCall) -> None:
        """The first operators behind a backward pass that gave a bad gradient: a loss scaler may throw it away. One
        that is bad in any scale, as by a division by 0, is none of its doing, and stays so in each step.
        """
        assert self._pending is not None
        if UNSCALE in call.address.op:
            origin = self._pending.origin or {}
            if origin.get("phase") == "backward" and origin.get("mechanism") not in AT_ANY_SCALE:
                self.scaled += 1
                self._pending = None
            else:
                self._settle()
        elif phase_here()["phase"] == "optimizer":
            self._settle()

    def _settle(self) -> None:
        self.sighting, self._pending = self.sighting or self._pending, None

    def _writes(self, call: OpCall) -> None:
        """An optimiser writes into a parameter."""
        if phase_here()["phase"] != "optimizer":
            return
        memory = {held.data_ptr(): name for kind, name, held in self._owner.held() if kind == "parameter"}
        for tensor in readable_in((call.args, call.kwargs)):
            name = memory.get(tensor.data_ptr())
            if name is not None and is_bad(tensor):
                self._arrived(tensor, Arrival(f"the parameter {name}", "optimizer"), None)
                return

    def _raised(self, call: OpCall) -> None:
        """An operator raised. Where it was given a bad value, that is what it raised for."""
        bad = next((tensor for tensor in readable_in((call.args, call.kwargs)) if is_bad(tensor)), None)
        if bad is not None and not kinds_in([bad]) <= MASK:
            words = f"the input of {call.address.op}, which raised {type(call.raised).__name__}"
            self._arrived(bad, Arrival(words, phase_here()["phase"]), None)

    def _reads_out(self, call: OpCall) -> None:
        """A number is taken out of a tensor. The first bad one of a kind is traced back as long as it can be; whether a
        variable keeps it is known at the end.
        """
        tensor = next(iter(readable_in(call.args)), None)
        if tensor is None or not is_bad(tensor):
            return
        value = scalar(tensor, [0] * tensor.dim())
        if is_odd(value) and str(value) not in self._numbers:
            if self._memory.state(tensor) is None:
                self._read(call, tensor)
            self._numbers[str(value)] = self._sighted(tensor, Arrival("a number", phase_here()["phase"]), None)

    def _chooses(self, call: OpCall) -> None:
        """A generation chooses its next tokens, outside of every module. No score may be NaN, and one at least of a row
        is not -inf: else the choice means nothing. Who wrote the -inf down did not mean that.
        """
        scores = next(iter(readable_in(call.args)), None)
        if scores is None or (call.address.module, call.address.call_index) != OUTSIDE or not is_bad(scores):
            return
        if is_bad(without_masks(scores)) and phase_here()["phase"] == "generate":
            arrival = Arrival(f"the scores from which {call.address.op} chooses a token", "generate")
            self._arrived(scores, arrival, None, takes_literal=True)

    def at_the_end(self, variables: Mapping[str, Any]) -> None:
        """The watched code is over. What its variables hold that was made in it has arrived, too."""
        if self._pending is not None:
            self._settle()
        if self.sighting is not None:
            return
        named = {f"the {kind} {name}": held for kind, name, held in self._owner.held()}
        held = list(held_in(variables))
        named.update((f"the variable {path}", thing) for path, thing in held if isinstance(thing, Tensor))
        parts = [(words, part) for words, tensor in named.items() for part in readable_in(tensor)]
        for words, tensor in parts:
            if self.sighting is None and self._is_made_here(tensor):
                seen = self._sighted(tensor, Arrival(words, phase_here()["phase"]), None)
                self.sighting = None if seen is None or seen.written_down else seen
        for words in self.sound:
            if self.sighting is None and _holds_one(named.get(words)):
                self.sighting = Sighting(Arrival(words, "forward"), None, None, UNNAMED)
        if self.threads.started and self.sighting is None:
            foreign = (path for path, thing in held if path not in self.before and self._is_foreign(thing))
            self.foreign = next((f"the variable {path}" for path in foreign), None)
        if self.has_made and self.sighting is None:
            self.copied = next((name for name in bad_copies_in(variables) if name not in self.copies), None)
        for path, thing in held:
            sighting = self._numbers.get(str(thing)) if isinstance(thing, float) and path not in self.before else None
            if self.sighting is None and sighting is not None and not sighting.written_down:
                arrival = replace(sighting.arrival, words=f"the variable {path}")
                self.sighting = replace(sighting, arrival=arrival)

    def _is_foreign(self, tensor: Any) -> bool:
        if not isinstance(tensor, Tensor) or not is_readable(tensor) or self._memory.state(tensor) is not None:
            return False
        return _holds_one(tensor)

    @property
    def leaves_some(self) -> bool:
        """Whether memory in which an operator put a NaN or Inf, other than a mask's, is still in use."""
        return any(not ref.expired() for ref in self._alive)

    def _is_made_here(self, tensor: Tensor) -> bool:
        """Whether it holds a NaN or Inf, other than a mask's, that an operator put there meanwhile."""
        return is_readable(tensor) and self._memory.state(tensor) is True and _holds_one(tensor)

    # --- the walk back -------------------------------------------------------------------------------------------

    def _arrived(
        self,
        tensor: Tensor,
        arrival: Arrival,
        again: Optional[Callable[[], Optional[Found]]],
        takes_literal: bool = False,
    ) -> None:
        if self.sighting is None:
            self.sighting = self._sighted(tensor, arrival, again, takes_literal)
        if self.sighting is not None:
            self._owner.stop()

    def _sighted(
        self,
        tensor: Tensor,
        arrival: Arrival,
        again: Optional[Callable[[], Optional[Found]]],
        takes_literal: bool = False,
    ) -> Optional[Sighting]:
        """None where what arrived is what somebody wrote on purpose. takes_literal: that is no excuse here."""
        with self._owner.aside():
            call = None if again is None else again()
            told = None if call is None or call.bisected is None else call.bisected[2]
            if call is not None and told is not None and told["origin"] is not None:
                found = {**blank(), **told["origin"], **phase_here()}
                return Sighting(arrival, found, found["confirmed_by"], "", call, call.operators)
            if unreadable(tensor) is not None:
                return Sighting(arrival, None, None, "what holds it is no plain tensor")
            self._tape.exit_refs = [self._tape.ref(tensor)]
            origin = earliest(self._tape)
            if origin is None:
                return Sighting(arrival, None, None, "it was gone when it was looked at", call)
            if origin.end is End.OUTSIDE:
                is_data = origin.outside is not None and self._named(origin.outside[0].tensor())[1] == DATA
                origin = chosen(literal_in_source(origin), is_data)
            if origin.end is End.LITERAL and takes_literal and origin.step is not None:
                origin = replace(origin, end=End.OUTSIDE if origin.outside else End.BORN, literal=-math.inf)
            if origin.end is End.LITERAL or (origin.end is End.OUTSIDE and origin.step is None):
                return None  # meant, or data as they came in: what is computed with them may arrive
            return self._told(arrival, origin, call)

    def _told(self, arrival: Arrival, origin: Origin, call: Optional[Found]) -> Sighting:
        if origin.end is End.BORN and origin.step is not None:
            found = self._record(self._place_of(origin), origin.step.op, origin)
            down = origin.literal is not None and len(origin.path) <= 1
            return Sighting(arrival, found.origin, "walked", "", call, found.program, down)
        if origin.end is End.OUTSIDE and origin.outside is not None:
            return Sighting(arrival, self._came_from_outside(origin), "walked", "", call)
        where = "" if origin.step is None else f" at {origin.step.op.address.op} ({origin.step.op.source})"
        if origin.end is End.UNWRITTEN:
            why = f"it lies in memory that nothing wrote to{where}, and the code cannot be run again to ask what for"
        else:
            why = f"the walk back did not end{where}" + (f": {origin.note}" if origin.note else "")
        return Sighting(arrival, None, None, why, call)

    def _place_of(self, origin: Origin) -> dict[str, Any]:
        assert origin.step is not None
        op = origin.step.op
        node, phase = self._around.get(op.index, (None, {}))
        outside = (op.address.module, op.address.call_index) == OUTSIDE
        return {
            "module": "" if outside else op.address.module,
            "module_class": self._names.class_at(op.address),
            "op": op.address.op, "call_index": op.address.call_index, "occurrence": op.address.occurrence,
            "source": op.source, "code": code_of(op.place), "excerpt": excerpt(op.place), "library": None,
            "largest_weight": self._largest_weight(),
            **dict.fromkeys(("forward_op", "forward_source", "note")), **phase, **self._backward(node),
        }  # fmt: skip

    def _came_from_outside(self, origin: Origin) -> dict[str, Any]:
        """The record of a value that was there before anything that was recorded ran."""
        assert origin.step is not None and origin.outside is not None
        ref, index = origin.outside
        tensor = ref.tensor()
        name, kind = self._named(tensor)
        share = {**came_in(kind, tensor), "held_by": None, "entry_code": code_of(origin.step.op.place)}
        note = f"{share['bad']:,} of {share['total']:,} values were not finite when {origin.step.op.source} read them"
        return {
            **blank(), **self._place_of(origin), "mechanism": "bad_weights" if kind == "parameter" else "bad_input",
            "came_in": share, "tensor": name, "tensor_index": list(index) if name else None, "element": list(index),
            "value": scalar(tensor, index), "inputs": [describe(item.tensor()) for item in origin.step.op.inputs()],
            "output": describe(origin.step.output.tensor()), "limit": limit_of(ref.dtype), "note": note,
        }  # fmt: skip


class Watching:
    """The context of one watch: what is put around the code, and what was seen.

    model: its calls can be run again; None where only operators are followed. further: parameters that count beside
    the model's. names: of these, by their identity, where they have some. judges_masks: whether an output of -inf alone
    counts, where an operator computed it.
    """

    def __init__(
        self,
        model: Optional[nn.Module] = None,
        further: tuple[Tensor, ...] = (),
        judges_masks: bool = True,
        names: Optional[Mapping[int, str]] = None,
    ) -> None:
        # A TorchScript module takes no hooks: what holds it, or the operators alone, are followed.
        self._model = None if isinstance(model, torch.jit.ScriptModule) else model
        self.judges_masks = judges_masks
        self._further, self._named = further, names or {}
        self._names = Names()
        self._live = Live(self._names, self)
        self._watch = Watch(self._live.visit, OUTSIDE)
        self._watch.entered, self._watch.left = self._entered, self._left
        self._call: Optional[tuple[Loaded, Given]] = None
        self._frame: Optional[FrameType] = None
        self._watched: Optional[str] = None  # the function whose variables count
        self._around: Optional[contextlib.ExitStack] = None
        self._thread: Optional[int] = None
        self.leaves_some = False  # whether memory with a bad value is in use where nobody looked
        self.returns_some = False  # whether the block returned what no variable holds, and a bad value was left
        self.further_variables: dict[str, Any] = {}

    @property
    def _hears(self) -> bool:
        """Whether what a hook tells of is the program's own, in the thread that is watched."""
        return self._watch.active and not self._watch.is_deaf and threading.get_ident() == self._thread

    @property
    def sighting(self) -> Optional[Sighting]:
        return self._live.sighting

    @property
    def operators(self) -> int:
        """How many operators were looked at."""
        return self._live.place

    @property
    def unseen(self) -> dict[str, int]:
        """Operators that could not be looked at, and how often each."""
        return dict(self._watch.unseen)

    @property
    def scaled(self) -> int:
        """How often a loss scaler threw away gradients that had overflowed."""
        return self._live.scaled

    @property
    def foreign(self) -> Optional[str]:
        """Of code that started threads, a variable that holds a bad value which no watched operator made."""
        return self._live.foreign

    @property
    def copied(self) -> Optional[str]:
        """An array of NumPy's own memory that holds a bad value since, where an operator made one."""
        return self._live.copied

    @property
    def looked_at(self) -> str:
        """Where a NaN or Inf could have arrived, in words."""
        whose = "the modules that ran" if self._model is None else type(self._model).__name__
        words = f"the outputs, losses, gradients, parameters and buffers of {whose}"
        return words + ("" if self._watched is None else f", or the variables of {self._watched}")

    @property
    def threads(self) -> int:
        """How many threads the code started. What ran in them was not looked at."""
        return self._live.threads.started

    def held(self) -> Iterator[tuple[str, str, Tensor]]:
        """What the model holds, or all modules that were called; then what was named beside it."""
        known: set[int] = set()
        if self._model is None:
            for kind, name, tensor in self._names.held():
                known.add(id(tensor))
                yield kind, name, tensor
        else:
            for kind, named in (("parameter", self._model.named_parameters()), ("buffer", self._model.named_buffers())):
                for name, tensor in named:
                    known.add(id(tensor))
                    if not is_lazy(tensor):
                        yield kind, name, tensor
        for at, tensor in enumerate(self._further):
            if id(tensor) not in known:
                yield "parameter", self._named.get(id(tensor), f"the optimizer's parameter {at}"), tensor

    def start(self, frame: Optional[FrameType] = None) -> None:
        """Begin to watch. frame: whose variables count when it is over."""
        self._frame, self._thread = frame, threading.get_ident()
        self._watched = None if frame is None else frame.f_code.co_name.replace("<module>", "the program")
        if frame is not None:
            variables = variables_of(frame)
            self._live.before = frozenset(path for path, thing in held_in(variables) if _is_odd_thing(thing))
            self._live.copies = frozenset(bad_copies_in(variables))
        if self._model is not None:
            held = ((f"the {kind} {name}", tensor) for kind, name, tensor in self.held() if kind == "buffer")
            self._live.sound = frozenset(words for words, tensor in held if is_readable(tensor) and not is_bad(tensor))
        self._around = contextlib.ExitStack()
        self._around.enter_context(self._live.threads.counted())
        self._around.enter_context(eagerly())
        torch.clear_autocast_cache()  # a weight that was cast before would come in from outside
        if self._model is not None:
            for handle in (
                self._model.register_forward_pre_hook(self._called, with_kwargs=True),
                self._model.register_forward_hook(self._ended),
            ):
                self._around.callback(handle.remove)
        self._around.enter_context(watched_everywhere(self._watch, self._names))

    def end(self) -> None:
        """The code is over: nothing of the watch is left behind."""
        assert self._around is not None  # start() has made it
        self._watch.active = False
        try:
            if self._live.sighting is None and threading.get_ident() == self._thread:
                variables = {**({} if self._frame is None else variables_of(self._frame)), **self.further_variables}
                with aside():
                    self._live.at_the_end(variables)
                found = self.sighting is not None
                self.leaves_some = not found and self._live.leaves_some
                self.returns_some = not found and self._frame is not None and self._leaves_some(self._frame)
        finally:
            self._around.close()
            self._live.forget()
            self._frame = self._call = None
            self.further_variables.clear()

    def _leaves_some(self, frame: FrameType) -> bool:
        return self._live.leaves_some and is_returning(frame)

    def stop(self) -> None:
        """There is a sighting: what runs from here on runs as if nobody looked."""
        self._watch.active = False
        self._live.forget()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What runs inside is the kit's own, and not watched."""
        before, self._watch.active = self._watch.active, False
        try:
            with aside():
                yield
        finally:
            self._watch.active = before

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: Optional[dict[str, Any]] = None) -> None:
        # PyTorch leaves the keywords out where another thread takes this hook away while the module is called.
        if self._hears and kwargs is not None:
            self._live.call_begins()
            self._call = None
            if needs_others(module):
                return
            with self.aside(), contextlib.suppress(Exception):  # of the program's own objects: it is not made again
                self._call = ready(module, args, kwargs)

    def _ended(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._hears:
            with aside():
                self._live.call_ends(type(module).__name__, output, None if self._call is None else self._again)

    def _again(self) -> Optional[Found]:
        """The model's last call, run again and looked into."""
        assert self._call is not None  # the caller has seen to it
        try:
            loaded, given = self._call
            return look_into(loaded, given.settled())
        except Exception:  # noqa: BLE001 - it has changed what it was given: the walk back has to do
            return None

    def _entered(self, name: str, index: int) -> None:
        if self._model is None and self._hears and len(self._watch.stack) == 1:
            self._live.call_begins()

    def _left(self, name: str, index: int, output: Any) -> None:
        if self._model is None and self._hears and not self._watch.stack:
            with aside():
                self._live.call_ends(self._names.classes.get(name, name), output, None)


def _holds_one(tensor: Optional[Tensor]) -> bool:
    """Whether it holds a NaN or Inf other than a mask's."""
    return tensor is not None and is_readable(tensor) and bool(kinds_in([tensor]) - MASK)


def _is_odd_thing(thing: Any) -> bool:
    """Whether a variable holds a bad value already."""
    if isinstance(thing, float):
        return is_odd(thing)
    return is_readable(thing) and is_bad(thing)


def _weakly(tensor: Tensor) -> Any:
    """A reference to the memory behind a tensor that does not keep it."""
    return StorageWeakRef(tensor.untyped_storage())


def _begins_backward() -> bool:
    """Whether PyTorch's own Python code is about to start a backward pass."""
    return any(
        frame.f_code.co_name == "_make_grads" and frame.f_code.co_filename.endswith(BACKWARD) for frame in frames()
    )
