"""Every operator of one pass, or of a generation or a training, as a row: what ran where, and what came of it.

Two such traces, made by two processes in two environments, are compared row by row by the host: a row is found again by
its module, call, operator and occurrence. Of an operator's output a row keeps figures, never the tensor, so that a
trace is small and memory is not held.
"""

import os
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import bad_words, is_bad_figures, judged_pass
from ..model.forward import run as run_model
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..observe.source import source_line
from ..observe.tape import written_by
from ..observe.watch import OUTSIDE, PLAIN, Names, OpCall, Watch, watched_everywhere
from ..origin.walk import UNWRITTEN
from ..phases.answer import Phase, asked
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from ..script.child import Job
from ..script.run import run_script
from ..values.figures import describe, digest, dtype_name, is_float, tensors_in, widen

COLUMNS = (
    "module", "call_index", "op", "occurrence", "source", "dtype", "shape", "min", "max", "nan", "inf", "digest",
)  # fmt: skip
# A pass of GPT-2 base has some 800 operators and a row is some 200 bytes. A script that trains is longer than any
# question about its first steps; the payload then says how many rows it leaves out.
ROWS = 50_000


def run(session: Any, step: str) -> Outcome:
    if session.is_script:
        return of_script(session.case["model"])
    phase = asked(session)
    return of_model(session.loaded(), session.inputs()[0]) if phase is None else of_phase(session.loaded(), phase)


class Trace:
    """Collects rows while a pass runs under ``watched_everywhere``."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.left_out = 0

    def visit(self, call: OpCall) -> Any:
        address, func, result = call.address, call.func, call.run()
        if len(self.rows) == ROWS:
            self.left_out += 1
            return result
        found = list(tensors_in(result)) or list(written_by(func, call.args, call.kwargs))
        output = next((tensor for tensor in found if is_float(tensor)), found[0] if found else None)
        with torch._C.DisableTorchFunction():  # a mode of the script's own would see, and could change, the figures
            figures = figures_of(output, func)
        place = [address.module, address.call_index, address.op, address.occurrence, source_line()]
        self.rows.append([*place, *figures])
        return result

    def payload(self, classes: dict[str, str], root: str, verdict: str) -> dict[str, Any]:
        return {
            "columns": list(COLUMNS),
            "rows": self.rows,
            "rows_left_out": self.left_out,
            "classes": dict(classes),
            "root": root,
            "verdict_inside": verdict,
        }


def figures_of(output: Optional[Tensor], func: Any) -> list[Any]:
    """dtype, shape, min and max (of what is finite), counts of NaN and of infinite values, digest.

    The numbers are None for an output that is not floating, the digest too where nothing has been written yet or where
    the values are not here to be read.
    """
    if output is None:
        return [None] * 7
    kind = [dtype_name(output.dtype), list(output.shape)]
    if not is_readable(output) or base_name(func) in UNWRITTEN:
        return [*kind, None, None, None, None, None]
    values = output.detach().resolve_conj().resolve_neg()
    try:
        return [*kind, *extent(values), digest(values)]
    except (RuntimeError, TypeError):  # a dtype that has no conversion here (4 bits): the pass must go on
        return [*kind, None, None, None, None, None]


def is_readable(tensor: Tensor) -> bool:
    """Whether there are plain numbers behind it: not fake, meta, sparse, quantised, or wrapped by a library."""
    return (
        type(tensor) in PLAIN
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    )


def extent(values: Tensor) -> list[Any]:
    """min, max, NaN, Inf; in one pass where all is finite."""
    if not is_float(values):
        return [None] * 4
    if values.numel() == 0:
        return [None, None, 0, 0]
    low, high = (float(bound) for bound in torch.aminmax(widen(values)))
    if abs(low) < float("inf") and abs(high) < float("inf"):  # false for NaN as well
        return [low, high, 0, 0]
    figures = describe(values)
    return [figures["min"], figures["max"], figures["nan"], figures["posinf"] + figures["neginf"]]


def base_name(func: Any) -> str:
    """ "empty" of "aten.empty.memory_format"."""
    parts = str(func).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def of_model(loaded: Loaded, inputs: Inputs) -> Outcome:
    """The pass of one prompt."""
    trace, names = Trace(), Names()
    try:
        with watched_everywhere(Watch(trace.visit, OUTSIDE), names):
            output = run_model(loaded.model, inputs)
        name, judged, written = judged_pass(loaded.model, inputs, output)
        figures = describe(judged)
        verdict = "bad" if is_bad_figures(figures) and name not in written else "good"
        finite = "no NaN or Inf but what the code writes there itself" if written else "all finite"
        reason = f"{name}: {bad_words(figures)}" if verdict == "bad" else f"{name}: {finite}"
    except Exception as raised:  # noqa: BLE001 - the model's own code may raise anything: the rows so far stay
        verdict, reason = "skip", in_words(raised)
    return verdict, f"{counted(trace)}; {reason}", trace.payload(names.classes, loaded.class_name, verdict)


def of_phase(loaded: Loaded, phase: Phase) -> Outcome:
    """A generation or a training."""
    trace, names = Trace(), Names([loaded.model])
    context = watched_everywhere(Watch(trace.visit, OUTSIDE), names)
    ended = phase.program.within((context, lambda: None))
    payload = trace.payload(names.classes, loaded.class_name, ended.verdict)
    return ended.verdict, f"{counted(trace)}; {ended.reason}", payload


def of_script(path: str) -> Outcome:
    """The whole run of a script."""
    ran = run_script(Job(path, watch="steps.trace:watched_script"))
    if ran.found is None:
        return "skip", f"the script ended before its operators could be told; {ran.reason}", None
    trace, classes = ran.found
    payload = trace.payload(classes, os.path.basename(path), ran.verdict)
    return ran.verdict, f"{counted(trace)}; {ran.reason}", payload


def watched_script(given: Any) -> tuple[Any, Any]:
    """(context around the script, function that gives the trace and the classes of the modules)."""
    trace, names = Trace(), Names()
    return watched_everywhere(Watch(trace.visit, OUTSIDE), names), lambda: (trace, names.classes)


def counted(trace: Trace) -> str:
    left = f", {trace.left_out:,} more not recorded" if trace.left_out else ""
    return f"{len(trace.rows):,} operators{left}"
