"""A constant that is 0 in the dtype of the tensor that it is given with, such as an epsilon of 1e-12 in float16."""

import inspect
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref
from ..observe.watch import OpCall
from ..values.figures import dtype_name
from ..values.nest import items_in, rebuild
from .around import frames
from .makers import readable_in

KIT = __package__.rpartition(".")[0]


@dataclass(frozen=True)
class Vanishing:
    """name, function, library: the parameter that holds it, of which function, in which module. is_default: whether
    that is the function's own default.
    """

    value: float
    dtype: str
    name: str
    function: str
    library: str
    is_default: bool

    @property
    def words(self) -> str:
        own = "the default of" if self.is_default else "given to"
        return f"{self.name}={self.value:g} is 0 in {self.dtype} ({own} {self.library}.{self.function})"


def vanishing_here(call: OpCall) -> Optional[Vanishing]:
    """The constant that an operator is given and that is 0 to it, where a function around it has it as a parameter."""
    dtype = next((tensor.dtype for tensor in readable_in(call.args)), None)
    numbers = [item for item in (*call.args, *call.kwargs.values()) if type(item) is float and item != 0]
    gone = [item for item in numbers if dtype is not None and not float(torch.tensor(item).to(dtype))]
    if dtype is None or not gone:
        return None
    for frame in frames():
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if module.startswith(KIT):
            continue
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            if type(frame.f_locals.get(name)) is float and frame.f_locals[name] == gone[0]:
                default = _default(frame.f_globals.get(code.co_name), name)
                return Vanishing(gone[0], dtype_name(dtype), name, code.co_name, module, default == gone[0])
    return None


def _default(function: Any, name: str) -> Any:
    try:
        return inspect.signature(function).parameters[name].default
    except (TypeError, ValueError, KeyError):
        return None


def is_zero_for_it(op: Op) -> bool:
    """Whether a result of the operator is 0, and is not in float64, where the constant is what it says."""

    def wide(ref: Ref) -> Any:
        tensor = ref.tensor()
        return tensor.double() if tensor.is_floating_point() else tensor

    try:
        with torch.no_grad():
            again = op.func(*rebuild(op.args, Ref, wide), **rebuild(op.kwargs, Ref, wide))
    except Exception:  # noqa: BLE001 - an operator that refuses float64: nothing is shown
        return False
    results = [item for item in items_in([again], Tensor) if item.is_floating_point()]
    made = [ref.tensor() for ref in op.outputs if ref.dtype.is_floating_point]
    return any(bool(((one == 0) & (two != 0)).any()) for one, two in zip(made, results) if one.shape == two.shape)
