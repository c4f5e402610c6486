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
from ..values.figures import any_bad_in, is_bad, tensors_in
from ..values.nest import items_in
from .sharded import is_split

NARROW = torch.float16


def overflows_inside(loaded: Loaded, given: Given) -> bool:
    """One more pass, where anything of it is in float16: whether an operator makes a NaN or Inf of finite numbers."""
    parameters = list(loaded.model.parameters())
    if is_split(loaded.model):  # its passes are made by all processes
        return False
    autocast = () if given.beginning is None else given.beginning.autocast.kinds
    used = {tensor.dtype for tensor in (*parameters, *tensors_in([given.arguments(), given.positional]))}
    if NARROW not in used | {dtype for _, on, dtype in autocast if on}:
        return False
    born: list[str] = []

    def visit(call: OpCall) -> Any:
        nest = (call.args, call.kwargs)
        sound = not born and not any_bad_in([*filter(_is_read, tensors_in(nest)), *items_in(nest, float)])
        result = call.run()
        made = (tensor for tensor in tensors_in(result) if tensor.dtype == NARROW and _is_read(tensor))
        if sound and any(map(is_bad, made)):
            born.append(call.address.op)
        return result

    with aside(), left_alone(loaded.model), watched(loaded.model, Watch(visit)):
        run(loaded.model, given)
    return bool(born)


def _is_read(tensor: torch.Tensor) -> bool:
    return unreadable(tensor) is None
