"""What stands around a running operator: the program's frames, its phase and variables, the autograd node."""

import contextlib
import functools
import inspect
import math
import os
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.source import KIT, Place, own_frame

LOADERS = ("from_pretrained", "load_state_dict", "load_file", "_load_from_state_dict", "_load_state_dict_into_model")
TRAIN_STEP = "train_step"  # the variable that counts the steps of a training, and the key of an origin
MICRO_BATCH = "micro_batch"  # the same of the parts of a step
NO_STEP: dict[str, Any] = {"generate_step": None, TRAIN_STEP: None, MICRO_BATCH: None}
NESTED, LONGEST = 3, 100_000  # how far lists of the script are looked into


def node_here() -> Any:
    """The autograd node whose backward is running; None in a forward pass, and in releases before 2.1."""
    current = getattr(torch._C, "_current_autograd_node", None)
    return None if current is None else current()


def sequence_here() -> Optional[int]:
    """The number of the autograd node that was made last, which is that of the operator that is running now."""
    current = getattr(torch._C._autograd, "_get_sequence_nr", None)
    return None if current is None else current() - 1


def described(node: Any) -> Optional[tuple[str, int]]:
    """Name and number of an autograd node; -2 where this release does not number them, or the program wrote it."""
    if node is None:
        return None
    number = getattr(node, "_sequence_nr", None)
    if number is None or isinstance(node, torch.autograd.function.BackwardCFunction):  # a backward of the program's own
        return node.name(), -2
    return node.name(), int(number())


def frames() -> list[FrameType]:
    """All frames of this thread, the innermost first."""
    found: list[FrameType] = []
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


_TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")
# Code of PyTorch that decides what is computed, beyond passing a call on to one operator.
ORDINARY = 1e4  # a mean, a deviation or a bound of an initialisation is far below
DECIDING = ("nn/init.py", "optim/", "distributions/", "nn/utils/", "amp/")
WHOLE = {
    "nn/functional.py": ("multi_head_attention_forward",)
}  # functions there that are given a mask, and see it kept


def code_of(place: Optional[Place]) -> Optional[str]:
    """The package that a line of code belongs to; "__main__" also for the modules that lie beside the script."""
    if place is None:
        return None
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = os.path.join(os.path.dirname(os.path.abspath(script)), "") if script else None
    beside = folder is not None and os.path.abspath(place.path).startswith(folder)
    return "__main__" if beside and "site-packages" not in place.path else place.package


def library_here() -> Optional[str]:
    """The module of PyTorch's own Python code that runs the operator and decides what is computed."""
    for frame in frames():
        name = frame.f_code.co_filename
        if name.startswith(_TORCH):
            inside = name[len(_TORCH) :].replace(os.sep, "/")
            if frame.f_code.co_name in WHOLE.get(inside, ()):
                return f"torch.{inside[:-3].replace('/', '.')}.{frame.f_code.co_name}"
            if inside.startswith(DECIDING):
                if any(isinstance(value, float) and not abs(value) < ORDINARY for value in frame.f_locals.values()):
                    return None  # what it was given is no ordinary number
                return "torch." + inside.rpartition(".")[0].replace("/", ".")
    return None


def phase_here() -> dict[str, Any]:
    """In which phase of the program the operator runs, by who called it; and the step of a generation."""
    phase, step, in_closure = "forward", None, False
    inner: list[CodeType] = []
    for frame in frames():
        name, file = frame.f_code.co_name, frame.f_code.co_filename.replace(os.sep, "/")
        if name in LOADERS or file.endswith("torch/serialization.py"):
            return {"phase": "load", **NO_STEP}
        is_optimizers = "/torch/optim/" in file
        in_closure = in_closure or (is_optimizers and _runs_closure(frame, inner))
        if is_optimizers and not in_closure:
            return {"phase": "optimizer", **NO_STEP, **_train_step()}
        if file.endswith("nn/utils/clip_grad.py"):
            return {"phase": "clip", **NO_STEP, **_train_step()}
        if (
            file.endswith(("nn/modules/loss.py", "/loss/loss_utils.py"))
            or name.endswith("_loss")
            or name == "cross_entropy"
        ):
            phase = "loss"
        if "/generation/" in file and name == "generate":
            phase = "generate"
            step = _generate_step(frame)
        inner.append(frame.f_code)
    return {"phase": phase, "generate_step": step, **_train_step()}


def _runs_closure(frame: FrameType, inner: list[CodeType]) -> bool:
    """Whether an optimizer's frame has called the closure that its step was given: what runs there is the program's."""
    closure = frame.f_locals.get("closure")
    if callable(closure):
        closure = inspect.unwrap(closure)  # of the context in which the optimizer calls it
    while isinstance(closure, functools.partial):
        closure = closure.func
    return getattr(closure, "__code__", None) in inner


def _train_step() -> dict[str, Any]:
    """Which step of the kit's own training runs, counted from 0; and which micro batch of it, where it has several."""
    found: dict[str, Any] = {TRAIN_STEP: None, MICRO_BATCH: None}
    for frame in frames():
        if frame.f_code.co_filename.startswith(KIT):
            found.update({name: frame.f_locals[name] for name in found if isinstance(frame.f_locals.get(name), int)})
    return found


def _generate_step(outer: FrameType) -> Optional[int]:
    """How many tokens had been generated: what the loop has by now, less what it was given."""
    given = outer.f_locals.get("input_ids_length")
    for frame in frames():
        if "/generation/" in frame.f_code.co_filename.replace(os.sep, "/") and frame is not outer:
            ids = frame.f_locals.get("input_ids")
            if isinstance(ids, Tensor) and ids.dim() == 2 and isinstance(given, int):
                return int(ids.shape[1]) - given
    return None


def held_by_the_script(like: float) -> Optional[str]:
    """A variable of the script itself that holds such a value outside of PyTorch: an array, or a list of numbers.

    like: NaN or an infinity. A single number is no data: many a script begins with ``best = float("inf")``.
    """
    for frame in frames():
        if frame.f_globals.get("__name__") != "__main__":
            continue
        for name, value in list(frame.f_locals.items()):
            if not name.startswith("__") and not isinstance(value, float) and _holds(value, like):
                return name
    return None


def _holds(value: Any, like: float, depth: int = 0) -> bool:
    if isinstance(value, float):
        return math.isnan(value) if math.isnan(like) else value == like
    if isinstance(value, (list, tuple)) and depth < NESTED:
        return any(_holds(item, like, depth + 1) for item in value[:LONGEST])
    if isinstance(value, dict) and depth < NESTED:
        return any(_holds(item, like, depth + 1) for item in list(value.values())[:LONGEST])
    if getattr(getattr(value, "dtype", None), "kind", None) == "f":  # an array of NumPy's
        import numpy

        values = numpy.asarray(value)
        return bool((numpy.isnan(values) if math.isnan(like) else values == like).any())
    return False


def stored_bad(folder: str, name: str, index: list[int]) -> Optional[str]:
    """The .safetensors file of a folder whose tensor of this name, with or without a prefix, is bad at this place."""
    from safetensors import safe_open

    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        with safe_open(os.path.join(folder, file), framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                if key != name and not name.endswith("." + key) and not key.endswith("." + name):
                    continue
                value = opened.get_tensor(key)
                inside = value.dim() == len(index) and all(at < size for at, size in zip(index, value.shape))
                if inside and value.is_floating_point() and not math.isfinite(float(value[tuple(index)])):
                    return file
    return None


class Threads:
    """Whether the program starts threads, ended by now or not."""

    def __init__(self) -> None:
        self.started = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While the block lasts, the threads that are started are counted."""
        start, threads = threading.Thread.start, self

        def counted(self: threading.Thread) -> None:
            threads.started += 1
            start(self)

        threading.Thread.start = counted  # type: ignore[method-assign]
        try:
            yield
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]


def variable_of(holds: Any) -> Optional[str]:
    """The name under which the program holds a tensor: of the script's own variables first, then of those inside."""
    outward = list(reversed(frames()))
    scripts = [frame for frame in outward if frame.f_globals.get("__name__") == "__main__"]
    own = own_frame()
    for frame in [*scripts, *([own] if own is not None else [])]:
        for name, value in list(frame.f_locals.items()):
            if isinstance(value, Tensor) and holds(value):
                return name
            if isinstance(value, dict):
                for key, item in list(value.items()):
                    if isinstance(key, str) and isinstance(item, Tensor) and holds(item):
                        return f"{name}[{key!r}]"
    return None
