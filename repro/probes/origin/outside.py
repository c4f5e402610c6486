"""A value that was bad before anything that was watched ran: in which tensor it lay, and how that came to be."""

import ast
import copy
import linecache
import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.compat import DTYPE_FIELDS, config_parts, construct, default_dtype, quiet
from ..model.forward import Pass
from ..model.load import Loaded, file_tensor, file_tensors
from ..observe.source import Place
from ..observe.tape import Tape, unreadable
from ..observe.watch import Watch, watched
from ..values.figures import finite_mask, is_bad, is_float, scalar, tensors_in, widen
from .arithmetic import limit_of
from .counterfactual import FILLS, filled
from .walk import End, Origin

FEW = 8  # rows and places that are named
LARGEST = 1_000_000_000  # parameters of a model that is made a second time to see what sets them
PARAMETER, BUFFER, ATTRIBUTE, DATA = "parameter", "buffer", "attribute", "data"

Answer = tuple[str, Optional[float], Optional[str]]


@dataclass(frozen=True)
class Leaf:
    """A tensor that was there before: a parameter, a buffer, or an attribute of a module, or one of the inputs.

    name: empty where it has none.
    """

    name: str
    kind: str
    index: tuple[int, ...]
    tensor: Tensor


def find_leaf(loaded: Loaded, seen: Pass, tape: Tape, origin: Origin) -> Optional[Leaf]:
    """The tensor in which the bad value lay, if it came from one that was there before the pass; None for a value
    that came out of one module into another, of which nothing is known yet.
    """
    if origin.outside is None:
        return None
    ref, index = origin.outside
    byte = ref.byte_of(list(index))
    model = loaded.model
    for kind, tensors in (
        (PARAMETER, list(model.named_parameters())),
        (BUFFER, list(model.named_buffers())),
        (ATTRIBUTE, attributes(model)),
        (DATA, inputs_by_name(seen.inputs.arguments())),
    ):
        for name, tensor in tensors:
            if unreadable(tensor) is None and tensor.numel():
                own = tape.ref(tensor.detach())
                place = own.index_of(byte) if own.store is ref.store else None
                if place is not None:
                    return Leaf(name, kind, tuple(place), tensor.detach())
    return None


def without_name(origin: Origin) -> Optional[Leaf]:
    """The tensor that came in, where it is none that the model holds or is given: data that the code read."""
    return None if origin.outside is None else Leaf("", DATA, origin.outside[1], origin.outside[0].tensor())


def literal_in_source(origin: Origin) -> Origin:
    """The same walk; where the value came in with a tensor that was made of a number which stands in the statement that
    reads it, this number is the origin: torch.tensor(nan), ``x[mask] = nan``.

    Only of -inf nothing is said: it may be a mask.
    """
    if origin.end is not End.OUTSIDE or origin.outside is None or origin.step is None:
        return origin
    ref, index = origin.outside
    step, value = origin.lifted or origin.step, scalar(ref.tensor(), index)
    if value == -math.inf or (origin.lifted is None and ref.shape):
        return origin
    number = written_in_source(step.op.place, value, ref.dtype)
    return origin if number is None else replace(origin, end=End.BORN, step=step, literal=number, outside=None)


def attributes(model: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """The tensors that modules hold beside parameters and buffers, also in lists and dicts."""
    return [
        (f"{name}.{key}" if name else key, tensor)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in ("_parameters", "_buffers", "_modules")
        for tensor in tensors_in(value)
    ]


def inputs_by_name(given: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """The tensors of a call's keyword arguments, with their names."""
    return [(name, tensor) for name, value in given.items() for tensor in tensors_in(value)]


def came_in(kind: str, tensor: Tensor) -> dict[str, Any]:
    """The record of a tensor that came in bad: how much of it, in which rows and at which places."""
    bad = ~finite_mask(tensor.detach())
    rows = bad.reshape(bad.shape[0], -1).any(1).nonzero().flatten().tolist() if bad.dim() else []
    columns = bad.reshape(-1, bad.shape[-1]).any(0).nonzero().flatten().tolist() if bad.dim() > 1 else []
    return {
        "kind": kind,
        "shape": list(bad.shape),
        "bad": int(bad.sum()),
        "total": bad.numel(),
        "examples": rows[:FEW],
        "features": columns[:FEW],
    }


def written_in_source(place: Optional[Place], value: float, dtype: torch.dtype) -> Optional[float]:
    """The number in the statement at a line of code that is this bad value in the dtype; None where the statement has
    none: what a constant is made of was then computed or read elsewhere.
    """
    if place is None:
        return None
    line = place.line
    try:
        tree = ast.parse("".join(linecache.getlines(place.path)))
    except SyntaxError:
        return None
    around = [
        node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not around:
        return None
    innermost = min(around, key=lambda node: (node.end_lineno or 0) - node.lineno)
    if (innermost.end_lineno or 0) - innermost.lineno > 20:
        return None
    return next((number for number in _numbers_in(innermost) if _becomes(number, value, dtype)), None)


def _numbers_in(statement: ast.stmt) -> list[float]:
    """The numbers that a statement writes down: 7e4, float("nan"), math.inf; with either sign."""
    found: list[float] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
            try:
                number = float(node.value)
            except (ValueError, OverflowError):
                continue
            found += [number, -number]
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name.lower() in ("nan", "inf"):
            found += [float(name.lower()), -float(name.lower())]
    return found


def _becomes(number: float, value: float, dtype: torch.dtype) -> bool:
    """Whether the dtype holds this number as the value."""
    if math.isnan(number) or math.isnan(value):
        return math.isnan(number) and math.isnan(value)
    return abs(number) > limit_of(dtype) and math.copysign(1, number) == math.copysign(1, value)


# --- the mechanism -----------------------------------------------------------------------------------------------


def mechanism_of(loaded: Loaded, leaf: Leaf) -> Answer:
    """(mechanism, what the file holds, note) of a bad value that was in ``leaf``."""
    at = "{}[{}]".format(leaf.name, ", ".join(map(str, leaf.index)))
    if leaf.kind == DATA:
        what = f"it came in with the inputs of the model, in {at}" if leaf.name else "it was there before it was read"
        return "bad_input", None, f"{what}: no operator that was watched made it"
    if leaf.kind == ATTRIBUTE:
        return "bad_input", None, f"{leaf.name}, a tensor that is neither parameter nor buffer, holds the value"
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
        return "bad_weights", None, f"{at} is {on_file} in the file"
    if is_unset_when_made(loaded, leaf):
        note = f"nothing sets the {leaf.kind} {leaf.name}: made again, it holds whatever unset memory was filled with"
        return "unset_memory", None, note
    return _not_in_file(loaded, leaf)


def _not_in_file(loaded: Loaded, leaf: Leaf) -> Answer:
    """A bad value in a tensor that no single tensor of the file was matched with: fused, split or initialised here."""
    held = f"the {leaf.kind} {leaf.name} holds the value before the pass begins"
    if loaded.source.folder is None:
        return ("bad_weights" if leaf.kind == PARAMETER else "bad_input"), None, held
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
    if others and leaf.kind == PARAMETER:
        return "unknown", None, f"{held}; the file's values are finite"
    return "bad_input", None, f"{held}, and no tensor of the file covers it"


def is_unset_when_made(loaded: Loaded, leaf: Leaf) -> bool:
    """Whether the element of a model that is made anew is what unset memory was filled with meanwhile, each time."""
    found: list[float] = []
    if sum(parameter.numel() for parameter in loaded.model.parameters()) > LARGEST:
        return False
    for fill in FILLS:
        try:
            made = _made_again(loaded, fill)
        except Exception:  # noqa: BLE001 - a constructor may need what is not here; then nothing is known
            return False
        tensor = dict([*made.named_parameters(), *made.named_buffers()]).get(leaf.name)
        if tensor is None or tensor.is_meta or tensor.shape != leaf.tensor.shape:
            return False
        found.append(scalar(tensor.detach(), leaf.index))
    return found == list(FILLS)


def _made_again(loaded: Loaded, fill: float) -> torch.nn.Module:
    """The same class made from its configuration, with a number in all memory that is handed out as it is."""

    config = copy.deepcopy(loaded.model.config)
    for part in config_parts(config):
        for field in DTYPE_FIELDS:
            if field in vars(part):
                vars(part)[field] = loaded.dtype
    made: list[torch.nn.Module] = []
    watch = Watch(lambda call: filled(call, fill))
    with quiet(), default_dtype(loaded.dtype), torch.random.fork_rng(devices=[]), watched(torch.nn.Module(), watch):
        made.append(construct(type(loaded.model), config, loaded.attn, False))
    return made[0]
