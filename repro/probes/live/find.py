"""One call of a module in memory: is it good, and if not, where is the bad value born?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..checkpoint.resolve import Source
from ..model.forward import Pass, judge, look, main_output, named_outputs, run
from ..model.load import Loaded, dtype_of
from ..model.ready import MEMORY, Given, left_alone, ready
from ..observe.screen import version_of
from ..observe.watch import aside
from ..origin.search import bisect
from ..phases.answer import Phase, outcome, raising
from ..phases.answer import bisect as bisect_phase
from ..protocol.wire import Outcome
from ..reduce.program import Program
from ..reduce.reduce import operators_of
from ..values.figures import widen
from .sharded import ALONE, Together, is_sharded, needs_others


@dataclass(frozen=True)
class Found:
    """What one call showed, and with what it can be asked again: the passes of a bad one (None where it is good), and
    the answers of the forward and the bisect step (None where it is good). before: the module as it was then. phase: of
    a call that raised for a NaN or Inf, as a program.
    """

    loaded: Loaded
    given: Given
    seen: Optional[Pass]
    forward: Outcome
    bisected: Optional[Outcome]
    before: "tuple[Any, ...]" = ()
    phase: Optional[Phase] = None

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing has changed the module's weights or mode since."""
        return self.before == state_of(self.loaded.model)

    @property
    def operators(self) -> Optional[Program]:
        """Those that show the fault by themselves; None where no origin is known, or they do not."""
        if self.phase is not None:
            return self.phase.operators
        origin = None if self.bisected is None else (self.bisected[2] or {}).get("origin")
        return None if origin is None else operators_of(self.loaded, self.given, origin)


def state_of(model: nn.Module) -> "tuple[Any, ...]":
    """What changes when a parameter is replaced or written to, or a module has another mode."""
    named: Iterator[Any] = model.parameters()
    held = [(tensor.data_ptr(), version_of(tensor)) for tensor in named if not is_lazy(tensor)]
    return (*held, *(module.training for module in model.modules()))


def find(model: nn.Module, args: tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None) -> Found:
    """Run the module once under the screen, and where an output is bad, look for the origin.

    Random state, buffers, modes and hooks are afterwards as they were.

    Raises:
        TypeError: the module's forward does not take such arguments. What the module raises is passed on, unless it is
            for a NaN or Inf: it is not raised where these are repaired.
    """
    named: Iterator[tuple[str, Any]] = model.named_parameters()
    lazy = next((name for name, parameter in named if is_lazy(parameter)), None)
    if lazy is not None:
        why = f"{lazy} is made at the first call of the module: call it once, then ask again"
        loaded = Loaded(model, type(model).__name__, Source(MEMORY, None), torch.float32, torch.device("cpu"), None, {})
        return Found(loaded, Given(None, MEMORY, None, None), None, ("skip", why, None), None)
    with aside():
        loaded, given = ready(model, args, kwargs)
        if not needs_others(model):
            return look_into(loaded, given)
        return _together(loaded, given)


def _together(loaded: Loaded, given: Given) -> Found:
    """A call that every process of a sharded model makes. Where one of them finds it bad, all get the whole weights,
    and look into their own.
    """
    together, model = Together.of(loaded.model), loaded.model
    if together is None and not any(map(is_sharded, model.parameters())):
        return Found(loaded, given, None, ("skip", ALONE, None), None)
    if together is None:  # split within each weight: what one sees, all see
        return look_into(loaded, given)
    with left_alone(model):
        told = _told_at_once(loaded, given)
    if not together.any(told is None):
        return Found(loaded, given, None, told or ("skip", ALONE, None), None, state_of(model))
    with together.whole() as refused:
        if refused is not None:
            return Found(loaded, given, None, ("skip", f"{ALONE}; {refused}", None), None)
        own = dtype_of(model)
        return look_into(replace(loaded, dtype=own), given.of_a_model_in(own))


def look_into(loaded: Loaded, given: Given) -> Found:
    """As ``find``, of a call whose beginning is known."""
    with aside(), left_alone(loaded.model):
        before = state_of(loaded.model)
        try:
            told = _told_at_once(loaded, given)
        except Exception:
            phase = raising(loaded, [given])
            if phase is None:
                raise
            return Found(loaded, given, None, outcome(phase), bisect_phase(phase, False), before, phase)
        if told is not None:
            return Found(loaded, given, None, told, None, before)
        seen = look(loaded.model, given, repeats_good=False)
        if not seen.bad and not seen.written:
            why = "a first pass gave a NaN or Inf, and the same pass made again does not"
            return Found(loaded, given, None, ("skip", why, None), None, before)
        return Found(loaded, given, seen, judge([seen], False), bisect(loaded, [seen]), before)


def _told_at_once(loaded: Loaded, given: Given) -> Optional[Outcome]:
    """The forward step's answer where every output is finite, or none can be judged: a plain pass, and one look at each
    output.
    """
    outputs = named_outputs(output := run(loaded.model, given))
    bounds = {name: torch.aminmax(widen(tensor.detach())) for name, tensor in outputs.items() if tensor.numel()}
    flat = [float(bound) for pair in bounds.values() for bound in pair]
    if not flat:
        kind = "has no element" if outputs else f"holds no number to judge: it is a {type(output).__name__}"
        return "skip", f"the output of {loaded.class_name} {kind}", None
    if not all(map(math.isfinite, flat)):
        return None
    name, _ = main_output(output)
    low, high = (float(bound) for bound in bounds[name]) if name in bounds else (math.nan, math.nan)
    row = {**given.record(), "output": name, "verdict": "good"}
    reason = f"{name} {'are' if name.endswith('s') else 'is'} finite, {low:.6g} to {high:.6g}"
    return "good", reason, {"output": name, "prompts": [row]}
