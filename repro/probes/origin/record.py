"""The origin as a record: which tensor it lay in, what happened there, and what other arithmetic has in its place."""

import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, run
from ..model.load import Loaded, file_tensor, file_tensors
from ..model.precision import widened
from ..observe.tape import Tape
from ..observe.watch import Address
from ..values.figures import describe, first_bad_index, is_bad, is_float, scalar, tensors_in, widen
from .counterfactual import finite_or_none, value_at
from .element import locate
from .mechanism import ELEMENTWISE, classify, limit_of
from .walk import End, Origin, Step, aligned


@dataclass(frozen=True)
class Leaf:
    """A tensor that was there before the pass: a parameter, a buffer, or an attribute of a module."""

    name: str
    kind: str
    index: tuple[int, ...]


def find_leaf(loaded: Loaded, tape: Tape, origin: Origin) -> Optional[Leaf]:
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


def describe_origin(loaded: Loaded, seen: Pass, origin: Origin, leaf: Optional[Leaf]) -> dict[str, Any]:
    """The origin's record: DESIGN's keys, and what supports them."""
    step = origin.step
    assert step is not None  # find() has seen to it
    if leaf is None and origin.end is End.BORN:
        step = replace(step, index=tuple(_first_own(origin, step)))
    mechanism, operator_value, note = _mechanism(loaded, seen, replace(origin, step=step), leaf)
    position = next((i for i, ref in enumerate(step.op.outputs) if ref is step.output), 0)
    if leaf is None:
        reference = _reference(loaded, seen, mechanism, step.op.address, position, step.index, operator_value)
    else:  # operator_value is what the file holds, where it is another number than what was loaded
        reference = None if operator_value is None else {"value": operator_value, "dtype": "the file", "scope": "file"}
    model, inputs = loaded.model, seen.inputs
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
        "code": code_of(model, step.op.address.module),
        "element": list(step.index),
        "value": step.value if leaf is None else scalar(step.output.tensor(), step.index),
        "tensor": leaf.name if leaf else None,
        "tensor_index": list(leaf.index) if leaf else None,
        "operands": operands(step),
        "inputs": [describe(ref.tensor()) for ref in step.op.inputs()],
        "output": describe(step.output.tensor()),
        "reference_value": reference["value"] if reference else None,
        "reference": reference,
        "limit": limit_of(step.output.dtype),
        "note": note,
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


def _first_own(origin: Origin, step: Any) -> list[int]:
    """Where all bad values of the output are the operator's own, the first of them; else the one that was followed."""
    floats = [ref for ref in step.op.inputs() if ref.dtype.is_floating_point]
    if any(is_bad(ref.tensor()) for ref in floats):
        return list(step.index)
    return first_bad_index(step.output.tensor())


def _mechanism(
    loaded: Loaded, seen: Pass, origin: Origin, leaf: Optional[Leaf]
) -> tuple[str, Optional[float], Optional[str]]:
    if origin.end is End.UNWRITTEN:
        return (
            "unset_memory",
            None,
            "the operator hands out memory as it is, and the element was read before anything was written to it",
        )
    if leaf is None:
        if origin.outside is not None and origin.end is End.OUTSIDE:
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(seen.inputs.arguments())}
            came = origin.outside[0].store.storage.data_ptr() in given
            words = "the value came in with the inputs of the model" if came else "the value is a constant of the code"
            return "unknown", None, words
        return classify(origin)
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
    return _not_in_file(loaded, leaf)


def _not_in_file(loaded: Loaded, leaf: Leaf) -> tuple[str, Optional[float], Optional[str]]:
    """A bad value in a tensor that no single tensor of the file was matched with: fused, split or initialised here."""
    held = f"the {leaf.kind} {leaf.name} holds the value before the pass begins"
    if loaded.source.folder is None:
        return "bad_weights", None, held
    known = set(loaded.from_file.values())
    others = [tensor for path, key, tensor in file_tensors(loaded.source.folder) if (path, key) not in known]
    if any(is_bad(tensor) for tensor in others):
        return "bad_weights", None, f"{held}, and so does a tensor of the file that was not matched with a parameter"
    largest = max(
        (float(widen(tensor).abs().max()) for tensor in others if is_float(tensor) and tensor.numel()), default=0
    )
    if largest > limit_of(loaded.dtype):
        return (
            "overflow",
            None,
            f"{held}; the file's values are finite, up to {largest:.6g}, and this dtype cannot hold them",
        )
    return "unknown", None, f"{held}; the file's values are finite"


def _reference(
    loaded: Loaded,
    seen: Pass,
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
    if torch.finfo(loaded.dtype).bits < 32 and loaded.quantised is None:
        with widened(loaded.model, torch.float32):
            value = finite_or_none(
                value_at(loaded.model, lambda: run(loaded.model, seen.inputs), address, output, index)
            )
        if value is not None:
            return {"value": value, "dtype": "float32", "scope": "model"}
    value = finite_or_none(operator_value)
    return {"value": value, "dtype": "float64", "scope": "operator"} if value is not None else None
