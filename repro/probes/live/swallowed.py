"""Whether something overflows in float16 inside of a call whose output is finite. The one pass of a ``find`` cannot
tell: the operators lie inside of modules.
"""

from typing import Any

import torch

from ..model.forward import run
from ..model.load import Loaded
from ..model.ready import Given, left_alone
from ..observe.tape import unreadable
from ..observe.watch import OpCall, Watch, aside, watched
from ..values.figures import is_bad, tensors_in
from ..values.nest import items_in
from .sharded import is_sharded, needs_others

NARROW = torch.float16


def overflows_inside(loaded: Loaded, given: Given) -> bool:
    """One more pass, where anything of it is in float16: whether an operator makes a NaN or Inf of finite numbers."""
    parameters = list(loaded.model.parameters())
    if any(map(is_sharded, parameters)) or needs_others(loaded.model):  # its passes are made by all processes
        return False
    autocast = () if given.beginning is None else given.beginning.autocast.kinds
    used = {tensor.dtype for tensor in (*parameters, *tensors_in([given.arguments(), given.positional]))}
    if NARROW not in used | {dtype for _, on, dtype in autocast if on}:
        return False
    born: list[str] = []

    def visit(call: OpCall) -> Any:
        sound = not born and not any(map(_is_bad, tensors_in((call.args, call.kwargs))))
        sound = sound and all(map(_is_finite, items_in((call.args, call.kwargs), float)))
        result = call.run()
        if sound and any(tensor.dtype == NARROW and _is_bad(tensor) for tensor in tensors_in(result)):
            born.append(call.address.op)
        return result

    with aside(), left_alone(loaded.model), watched(loaded.model, Watch(visit)):
        run(loaded.model, given)
    return bool(born)


def _is_finite(number: float) -> bool:
    return number - number == 0


def _is_bad(tensor: torch.Tensor) -> bool:
    return unreadable(tensor) is None and is_bad(tensor)
