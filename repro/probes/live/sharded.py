"""A model whose weights FSDP2 has shared out among processes: what these agree on, and all weights in each for a while.

A pass of such a model needs every process, so none can repeat one alone. At the optimiser's step all of them are there:
each says whether it saw anything bad, and if one did, all gather the whole weights. From then on each repeats its own
calls by itself, without the others, and the first in order that finds an origin answers for all.
"""

import contextlib
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.load import dtype_of
from ..values.nest import rebuild

PHASES = ("forward", "backward", "optimizer")  # the earliest explains the others
FIRST = "FullyShardedDataParallel"  # FSDP1's class, whose weights are plain tensors
ALONE = "the model is sharded over several processes, and this one cannot repeat a step alone"
LATER = f"{ALONE}; all of them do it together where each comes to the optimizer's step with its gradients"
GATHERING = 1.25  # of the weights' size: what gathering them needs at most, with room for one module's buffer


def is_sharded(tensor: Any) -> bool:
    return type(tensor).__name__ == "DTensor" or hasattr(tensor, "device_mesh")


def needs_others(model: nn.Module) -> bool:
    """Whether a pass of the model needs other processes."""
    held: list[Any] = [*filter(is_sharded, model.parameters())]
    first: list[Any] = [part for part in model.modules() if type(part).__name__ == FIRST]
    return any(one.device_mesh.size() > 1 for one in held) or any(part.world_size > 1 for part in first)


def is_split(model: nn.Module) -> bool:
    """Whether one process cannot repeat its pass alone, as plain tensors in its own memory."""
    return any(map(is_sharded, model.parameters())) or needs_others(model)


def local_of(tensor: Any) -> Any:
    """The part of a tensor that lies in this process; what is no sharded tensor, as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor


class Casts:
    """What FSDP2 casts around a module. In a pass that brings the model to another dtype, that dtype counts."""

    def __init__(self, policy: Any, module: nn.Module) -> None:
        self._policy, self._module = policy, module
        self.cast_forward_inputs = policy.cast_forward_inputs

    @property
    def param_dtype(self) -> Optional[torch.dtype]:
        return None if self._policy.param_dtype is None else dtype_of(self._module)

    @property
    def output_dtype(self) -> Optional[torch.dtype]:
        wanted: Optional[torch.dtype] = self._policy.output_dtype
        return wanted if self.param_dtype == self._policy.param_dtype else None


class Together:
    """The processes that hold one model. Every method but ``of`` is called by all of them, in the same order."""

    def __init__(self, model: nn.Module, mesh: Any) -> None:
        self._model, self._mesh = model, mesh
        self._is_one = mesh.size() == 1
        self.rank = 0 if self._is_one else int(torch.distributed.get_rank())

    @classmethod
    def of(cls, model: nn.Module) -> "Optional[Together]":
        """None where no weight is sharded, or where it is not by FSDP2 over one and the same processes."""
        held: list[Any] = [*filter(is_sharded, model.parameters())]
        meshes = {parameter.device_mesh for parameter in held}
        if len(meshes) != 1 or not _parts(model):
            return None
        return cls(model, meshes.pop())

    def any(self, mine: bool) -> bool:
        """Whether it is so in one of them."""
        if self._is_one:
            return mine
        flag = torch.full((1,), float(mine), device=self._mesh.device_type)
        for dim in range(self._mesh.ndim):
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._mesh.get_group(dim))
        return bool(flag.item())

    def gathered(self, mine: Any) -> "dict[int, Any]":
        """What each of them has, plain data, by its rank."""
        rows = [(self.rank, mine)]
        for dim in range(0 if self._is_one else self._mesh.ndim):
            group = self._mesh.get_group(dim)
            parts: list[Any] = [None] * torch.distributed.get_world_size(group)
            torch.distributed.all_gather_object(parts, rows, group=group)
            rows = [row for part in parts for row in part]
        return dict(sorted(rows))

    @contextlib.contextmanager
    def whole(self) -> Iterator[Optional[str]]:
        """The model has all its weights in each process, and its passes need no other. Gives why not, where that is so:
        the same in each.
        """
        refused = next(filter(None, self.gathered(self._without_room()).values()), None)
        if refused is not None:
            yield refused
            return
        states = {part._get_fsdp_state(): part for part in _parts(self._model)}
        before = [(state, state._training_state, state._mp_policy) for state in states]
        try:
            for part in _parts(self._model):
                part.reshard()  # what an earlier pass has left is from before the optimizer's step
                part.unshard()
            for state, part in states.items():
                # As while a checkpointed layer is computed again: inputs are cast, and nothing is gathered or reduced.
                state._training_state = type(state._training_state).PRE_BACKWARD
                state._mp_policy = Casts(state._mp_policy, part)
            split = any(map(is_sharded, self._model.parameters()))
            yield "its weights are split in another way as well, which FSDP does not gather" if split else None
        finally:
            for state, training, policy in before:
                state._training_state, state._mp_policy = training, policy
            for part in _parts(self._model):
                part.reshard()

    def _without_room(self) -> Optional[str]:
        if self._mesh.device_type != "cuda":
            return None
        size = sum(one.numel() * one.element_size() for one in self._model.parameters() if is_sharded(one))
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        free = torch.cuda.mem_get_info()[0] + kept
        if free > size * GATHERING:
            return None
        return f"the whole weights have {size:,} bytes, and process {self.rank} has {free:,} free to gather them"


def is_taken_over(model: nn.Module) -> bool:
    """Whether FSDP2 has the weights of any of its modules."""
    return bool(_parts(model))


def _parts(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "unshard") and hasattr(module, "_get_fsdp_state")]


def of_this_process(optimizer: Any, names: Mapping[int, str]) -> "tuple[Any, dict[int, str]]":
    """An optimizer of the same class and settings, on the parts of parameters, gradients and state that lie in this
    process, in the very same memory; and the names of its parameters by their identity. names: those of the given one.
    """
    local = copy(optimizer)
    parts: dict[int, nn.Parameter] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            part = parts[id(parameter)] = nn.Parameter(local_of(parameter.detach()), parameter.requires_grad)
            part.grad = None if parameter.grad is None else local_of(parameter.grad)
    local.param_groups = [
        {**group, "params": [parts[id(one)] for one in group["params"]]} for group in local.param_groups
    ]
    kept = ((parts[id(one)], values) for one, values in optimizer.state.items() if id(one) in parts)
    local.state = {part: rebuild(values, Tensor, local_of) for part, values in kept}
    return local, {id(part): names[known] for known, part in parts.items() if known in names}
