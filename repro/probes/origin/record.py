"""The origin as a record: which tensor it lay in, what happened there, and what other arithmetic has in its place."""

import functools
from dataclasses import replace
from typing import Any, Optional

import torch

from ..model.forward import Pass, run
from ..model.load import Loaded
from ..model.precision import widened
from ..observe.source import excerpt
from ..observe.watch import Address
from ..values.figures import describe, first_bad_index, is_bad, scalar
from .arithmetic import Again, limit_of, same_memory
from .counterfactual import CASTS, Kin, finite_or_none, kin_of, value_at
from .dimensions import locate
from .held import MECHANISMS as HELD
from .held import decisive, in_a_pass
from .mechanism import Answer, classify, decided_by_integers
from .outside import DATA, Leaf, came_in, mechanism_of
from .passes import Place
from .places import in_input
from .walk import End, Origin, Step, aligned

# Mechanisms for which no other arithmetic has a number that would say anything.
WITHOUT_REFERENCE = frozenset((
    "bad_weights", "bad_input", "unset_memory", "masked_row", "literal", "written_outside", "unknown",
))  # fmt: skip
# Operators of which the inputs at the element's own place are shown: those that work element by element.
ELEMENTWISE = frozenset((
    "add", "sub", "mul", "div", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "silu", "gelu",
    "erf", "sin", "cos", "pow", "reciprocal", "where", "clamp", "maximum", "minimum",
))  # fmt: skip


def describe_origin(
    loaded: Loaded, seen: Pass, origin: Origin, leaf: Optional[Leaf], said: Optional[Answer] = None
) -> dict[str, Any]:
    """The origin's record: DESIGN's keys, and what supports them.

    said: the mechanism, where it is not the operator's own.
    """
    step = origin.step
    assert step is not None  # find() has seen to it
    own = leaf is None and said is None and origin.end is End.BORN
    if own and origin.literal is None:
        step = _first_own(step)
    answer = said or (classify(replace(origin, step=step)) if leaf is None else mechanism_of(loaded, leaf))
    mechanism, value, note = answer
    position = _position(step)
    kin = kin_of(loaded.model, lambda: run(loaded.model, seen.inputs), step.op.address)
    where = None if kin is None else Place(kin, position, step.output.shape, step.index)
    if leaf is None:
        reference = _reference(loaded, seen, mechanism, step.op.address, where, value)
    else:  # the value is what the file holds, where it is another number than what was loaded
        reference = None if value is None else {"value": value, "dtype": "the file", "scope": "file"}
    model = loaded.model
    held = None
    if own and where is not None and mechanism in HELD:
        again = in_a_pass(model, lambda: run(model, seen.inputs), step.op.address, where)
        held = decisive(loaded, step.op.address.module, step.op.address.call_index, again)
    located = locate(model, seen.inputs, where)
    if leaf is not None and leaf.kind == DATA and leaf.name:  # the element of the input itself is known
        located = {**located, "place": in_input(leaf.name, leaf.tensor, leaf.index) or located["place"]}
    return {
        **step.op.address.record(model),
        "mechanism": mechanism,
        **located,
        "source": step.op.source,
        "code": code_of(model, step.op.address.module),
        "excerpt": excerpt(step.op.place),
        "element": list(step.index),
        "value": step.value,
        "tensor": leaf.name or None if leaf else None,
        "tensor_index": list(leaf.index) if leaf and leaf.name else None,
        "operands": operands(step),
        "inputs": [describe(ref.tensor()) for ref in step.op.inputs()],
        "output": describe(step.output.tensor()),
        "reference_value": reference["value"] if reference else None,
        "reference": reference,
        "limit": limit_of(step.output.dtype),
        "note": note,
        "held": held,
        "decided_by": "integers" if own and decided_by_integers(step) else None,
        "came_in": came_in(leaf.kind, leaf.tensor) if leaf else None,
    }


def code_of(model: torch.nn.Module, path: str) -> str:
    """The package whose code the module runs; for a layer of PyTorch, that of the module that holds it."""
    modules = dict(model.named_modules())
    while True:
        package = type(modules[path]).__module__.split(".")[0]
        if package != "torch" or not path:
            return package
        path = path.rpartition(".")[0]


def operands(step: Step) -> list[Optional[float]]:
    """What the inputs of an elementwise operator have at the place of the element; empty for other operators."""
    if step.op.base_name not in ELEMENTWISE:
        return []
    floats = [ref for ref in step.op.inputs() if ref.dtype.is_floating_point]
    places = [(ref, aligned(ref, step.output, list(step.index))) for ref in floats]
    return [None if place is None else scalar(ref.tensor(), place) for ref, place in places]


def _first_own(step: Step) -> Step:
    """The step at the first bad element, where all bad values of the output are the operator's own."""
    if any(is_bad(ref.tensor()) for ref in Again(step.op, step.output, step.index).inputs()):
        return step
    index = tuple(first_bad_index(step.output.tensor()))
    return replace(step, index=index, value=scalar(step.output.tensor(), index))


def _position(step: Step) -> int:
    """Which of the operator's results the element is in."""
    results = [*step.op.outputs, *step.op.mutates]
    return next((at for at, ref in enumerate(results) if ref is step.output or same_memory(ref, step.output)), 0)


def _reference(
    loaded: Loaded,
    seen: Pass,
    mechanism: str,
    address: Address,
    where: Optional[Place],
    operator_value: Optional[float],
) -> Optional[dict[str, Any]]:
    """The value at the same place when the loaded numbers are run in float32, where the case is narrower; else the
    operator's in float64.
    """
    if mechanism in WITHOUT_REFERENCE:
        return None
    narrow = torch.finfo(loaded.dtype).bits < 32 and loaded.quantised is None
    if narrow and where is not None:
        value = _in_float32(loaded, seen, where.kin, where)
        if value is None and where.kin.op in CASTS:  # which does not run in float32: what it casts is the same value
            maker = kin_of(loaded.model, lambda: run(loaded.model, seen.inputs), address, through_casts=True)
            value = None if maker is None else _in_float32(loaded, seen, maker, where)
        if value is not None:
            return {"value": value, "dtype": "float32", "scope": "model"}
    value = finite_or_none(operator_value)
    return {"value": value, "dtype": "float64", "scope": "operator"} if value is not None else None


def _in_float32(loaded: Loaded, seen: Pass, kin: Kin, where: Place) -> Optional[float]:
    """The element in a pass of the loaded numbers in float32, in the result of the operator that is the Kin's."""
    with widened(loaded.model, torch.float32):
        again = functools.partial(run, loaded.model, seen.inputs)
        return finite_or_none(value_at(loaded.model, again, kin, where.output, where.shape, where.index))
