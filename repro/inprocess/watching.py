"""``repro.find`` and ``repro.watch``: one call of a module, and any code."""

import io
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer

from repro.core import paths
from repro.inprocess.finding import Finding
from repro.inprocess.recording import Recording, Told
from repro.probes.live.answers import OfCall, OfOperators, bisect_outcome, watch_outcome
from repro.probes.live.find import Found
from repro.probes.live.find import find as look_for
from repro.probes.live.swallowed import overflows_inside
from repro.probes.live.watching import Watching
from repro.probes.observe.source import is_inner
from repro.probes.observe.watch import inside
from repro.probes.protocol.wire import Emitter
from repro.probes.reduce.program import Program
from repro.probes.values.figures import dtype_name

CODE = "the watched code"
"""What stands for the model's name where no model was named."""


def find(model: nn.Module, /, *args: Any, **inputs: Any) -> Finding:
    """Call the module once and say whether its output is good; if not, where the first bad value is born.

    The call is made as the program itself would make it here: in the module's own mode, under this autocast, with or
    without gradients. Random state, buffers, hooks and modes are afterwards as they were. Where the output is finite
    and something overflows inside in float16, it is asked whether the output is wrong for it, as the command asks; in
    other dtypes ``Finding.report`` asks that.

    Args:
        model: Any module; where torch.compile wraps it, the module inside is called.
        args: As its forward takes them.
        inputs: As its forward takes them.

    Returns:
        The finding. It holds on to the module and the inputs until it is dropped.

    Raises:
        TypeError: it is no module, or its forward does not take such arguments. What the module itself raises is passed
            on, unless it raises for a NaN or Inf: that is the finding.
    """
    check_is_module(model, "repro.find(module, *inputs)")
    begin = time.monotonic()
    return of_found(look_for(inside(model), args, inputs), time.monotonic() - begin)


def check_is_module(model: Any, call: str) -> None:
    """
    Raises:
        TypeError: it is none; the message says what to give.
    """
    if isinstance(model, nn.Module):
        return
    name = model.__name__ if isinstance(model, type) else type(model).__name__
    kind = f"the class {name}" if isinstance(model, type) else f"a {name}"
    raise TypeError(
        f"{call} takes a torch.nn.Module, and got {kind}. Any other code is watched by `with repro.watch() as seen: "
        "...`; several modules are given as one torch.nn.ModuleList."
    )


def optimizers_of(optimizer: Any) -> tuple[Any, ...]:
    """The optimisers themselves; Accelerate and others wrap them.

    Raises:
        TypeError: one is none.
    """
    if optimizer is None:
        return ()
    is_several = isinstance(optimizer, Iterable) and not isinstance(optimizer, nn.Module)
    plain = []
    for one in list(optimizer) if is_several else [optimizer]:
        while isinstance(getattr(one, "optimizer", None), Optimizer):
            one = one.optimizer
        if not isinstance(one, Optimizer):
            raise TypeError(f"{type(one).__name__} is no torch.optim.Optimizer: expected one, or several of them.")
        plain.append(one)
    return tuple(plain)


def of_found(found: Found, seconds: float = 0.0) -> Finding:
    """The finding of one call."""
    told = {"forward": found.forward}
    if found.bisected is not None:
        told["bisect"] = found.bisected
    elif found.forward[0] == "skip":
        told["bisect"] = ("skip", "no bad output is known: there is nothing to find", None)
    else:
        told["bisect"] = ("good", "the output is finite: there is nothing to find", None)
    loaded = found.loaded
    recording = Recording(
        command="find",
        name=loaded.class_name,
        told=told,
        session=OfCall(found, str(paths.cache_folder()), Emitter(io.StringIO())),
        device=loaded.device.type,
        dtype=dtype_name(loaded.dtype),
        attn=loaded.attn,
        seconds={"forward": seconds},
    )
    if found.forward[0] == "good" and overflows_inside(loaded, found.given) and recording.ask("reference"):
        return Finding(recording, "reference")
    return Finding(recording, "forward")


class watch:  # noqa: N801 - it is used as a function is: with repro.watch(model): ...
    """Watch any code: forward passes, losses, backward(), an optimiser's steps, generate().

    Every operator is looked at, so the code takes several times as long. The first NaN or Inf that arrives in something
    that the code keeps (the model's output, a gradient, a parameter, a variable of the function that the block stands
    in, the input of an operator that raises for it) is the finding; one that arrives nowhere is none. Gradients that
    a GradScaler throws away are counted, and are none either.

    Afterwards everything is as it would be without the watch: hooks, modes, random state. Exceptions pass through.

    Example:
        with repro.watch(model, optimizer) as seen:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
        print(seen.finding)

    Args:
        model: Where it is named, only its own output counts as one, and a bad call of it is run again to be looked
            into. Without it, that of each outermost module counts.
        optimizer: One or several; their parameters are looked at as well, where the model does not hold them.

    Raises:
        TypeError: what was given is something else.
    """

    def __init__(self, model: nn.Module | None = None, optimizer: Any = None) -> None:
        if model is not None:
            check_is_module(model, "repro.watch(module, optimizer)")
        self._model = None if model is None else inside(model)
        groups = [group for one in optimizers_of(optimizer) for group in one.param_groups]
        self._watching = Watching(self._model, tuple(p for group in groups for p in group["params"]))
        self._finding: Finding | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._watching.start(sys._getframe(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while trace is not None:  # what the code that raised was looking at counts as well
            frame, trace = trace.tb_frame, trace.tb_next
            if not is_inner(frame.f_code.co_filename):
                self.kept(frame.f_locals)
        self.stop()

    def stop(self) -> None:
        """The code is over; the same as leaving the block."""
        if not self._is_over:
            self._is_over = True
            self._watching.end()

    def kept(self, variables: Mapping[str, Any]) -> None:
        """These count as variables of the code, too, when it is over."""
        self._watching.further_variables.update(variables)

    @property
    def finding(self) -> Finding:
        """The first finding; that all is well so far, where there is none."""
        if self._finding is None or not self._finding:
            self._finding = of_watched(self._watching, self._model)
        return self._finding


def of_watched(watching: Watching, model: nn.Module | None) -> Finding:
    """The finding of what was watched."""
    bisected = bisect_outcome(watching) or ("good", "nothing bad arrived: there is nothing to find", None)
    seen = watching.sighting
    program, call = (None, None) if seen is None else (seen.program, seen.call)
    return of_operators(model, watch_outcome(watching), bisected, program, call)


def of_operators(
    model: nn.Module | None, watched: Told, bisected: Told, program: Program | None, call: Found | None = None
) -> Finding:
    """The finding of code that is over, of which the operators are left that show the fault; and the call of the model
    that gave it, where it was one.
    """
    parameter = None if model is None else next(model.parameters(), None)
    recording = Recording(
        command="watch",
        name=CODE if model is None else type(model).__name__,
        told={"watch": watched, "bisect": bisected},
        session=OfOperators(bisected, program, str(paths.cache_folder()), Emitter(io.StringIO()), call),
        device=None if parameter is None else parameter.device.type,
        dtype=None if parameter is None else dtype_name(parameter.dtype),
    )
    return Finding(recording, "watch")
