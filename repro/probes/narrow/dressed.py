"""The model as from_pretrained loads it in a narrow dtype, on the numbers that it has."""

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.compat import kept_in_float32
from ..model.load import Loaded
from ..model.precision import buffers_in, check_takes_a_dtype, restored, set_config_dtype
from ..model.ready import MEMORY
from .shadow import Shadow


@contextlib.contextmanager
def as_shadows(loaded: Loaded, narrow: torch.dtype, rounded: Optional[torch.dtype] = None) -> Iterator[list[Shadow]]:
    """Its parameters and buffers that would be of the narrow dtype are Shadows while the context lasts. Gives the
    parameters.

    rounded: they have the numbers that this dtype holds.
    """
    check_takes_a_dtype(loaded.model)
    model = loaded.model
    made = _parameters(loaded, narrow, rounded)
    buffers = _buffers(loaded, narrow)
    with restored(model), _put_back(model):
        for path, module in model.named_modules():
            _swapped(module._parameters, made)
            if isinstance(module, nn.RNNBase):  # which keeps them in a list as well
                flat: Any = [made.get(id(weight), weight) for weight in module._flat_weights]
                module._flat_weights = flat
            for name, buffer in module._buffers.items():
                module._buffers[name] = buffers.get(f"{path}.{name}" if path else name, buffer)
        set_config_dtype(model, narrow)
        yield [tensor for tensor in made.values() if isinstance(tensor, Shadow)]


def _parameters(loaded: Loaded, narrow: torch.dtype, rounded: Optional[torch.dtype]) -> dict[int, Tensor]:
    """What stands for each floating parameter, by the parameter's id: one that is shared stays so."""
    kept = kept_in_float32(loaded.model, narrow)
    made: dict[int, Tensor] = {}
    for name, parameter in loaded.model.named_parameters():
        if parameter.is_floating_point():
            values = parameter.detach()
            if kept is not None and kept.search(name):
                made[id(parameter)] = values.to(torch.float32)
            else:
                numbers = values if rounded is None else values.to(rounded)
                made[id(parameter)] = Shadow(numbers.to(loaded.dtype), narrow)
    return made


def _swapped(held: dict[str, Any], made: dict[int, Tensor]) -> None:
    for name, tensor in held.items():
        held[name] = made.get(id(tensor), tensor)


@contextlib.contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    before = [(module._parameters, dict(module._parameters)) for module in model.modules()]
    flat = [(module, module._flat_weights) for module in model.modules() if isinstance(module, nn.RNNBase)]
    try:
        yield
    finally:
        for held, values in before:
            held.update(values)
        for module, weights in flat:
            module._flat_weights = weights


def _buffers(loaded: Loaded, narrow: torch.dtype) -> dict[str, Tensor]:
    """What stands for the buffers that ``in_dtype`` changes, by name, on the numbers that they have."""
    fresh = buffers_in(loaded, narrow)
    found = {}
    for name, buffer in loaded.model.named_buffers():
        new = _buffer(loaded, narrow, name, buffer, fresh.get(name)) if buffer.is_floating_point() else None
        if new is not None:
            found[name] = new
    return found


def _buffer(
    loaded: Loaded, narrow: torch.dtype, name: str, buffer: Tensor, fresh: Optional[Tensor]
) -> Optional[Tensor]:
    if fresh is not None:
        if fresh.dtype != narrow:
            return fresh
        here, there = buffer.to(torch.float32), fresh.to(torch.float32)
        same = torch.allclose(here, there, rtol=torch.finfo(narrow).eps, atol=0.0)  # else they follow from the dtype
        return Shadow(buffer if same else fresh.to(buffer.dtype), narrow)
    goes = name in loaded.from_file or (loaded.source.kind == MEMORY and loaded.config is None)
    return Shadow(buffer, narrow) if goes and buffer.dtype == loaded.dtype else None
