"""Which tensors of a checkpoint are quantised, and their values where these are one multiplication away.

What decides is what the file holds and what the model wants: numbers of a byte or less, or packed integers, where the
model has floating weights or none of that name. The configuration only gives the method its name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...values.figures import is_float, widen

EXPONENT_BIAS = 127  # of E8M0, a scale that is only an exponent: 2 ** (byte - 127). OCP Microscaling Formats 1.0, 5.4.1


def settings_in(config: Any) -> dict[str, Any]:
    """The configuration's quantization_config as plain data; empty where there is none."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return {}
    found = found.to_dict() if hasattr(found, "to_dict") else found
    return dict(found) if isinstance(found, Mapping) else {}


def method_in(settings: Mapping[str, Any]) -> Optional[str]:
    """ "fp8", "gptq", ...: how a quantization_config says that the weights were quantised; None where there is none."""
    if not settings:
        return None
    found = settings.get("quant_method") or settings.get("format") or "method not named"
    return str(getattr(found, "value", found))


def is_narrow(tensor: Tensor) -> bool:
    """Whether its numbers cannot be a model's weights as they stand: whole numbers, or floats of a byte or less."""
    if tensor.dtype == torch.bool or tensor.is_complex():
        return False
    return not tensor.is_floating_point() or tensor.element_size() < 2


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a tensor as PyTorch makes it, not one that a library wraps."""
    return type(tensor) in (Tensor, nn.Parameter, getattr(nn, "Buffer", Tensor))


def held_narrow(model: nn.Module, settings: Mapping[str, Any]) -> Optional[str]:
    """The first weight that is quantised in memory, and cannot be taken to another dtype; None where all are plain."""
    for name, tensor in model.named_parameters():
        if not is_plain(tensor) or (is_narrow(tensor) and tensor.numel() > 1):
            return name
    if not settings:
        return None
    for name, buffer in model.named_buffers():  # GPTQ and AWQ keep packed weights in buffers
        if buffer.dim() >= 2 and (not is_plain(buffer) or is_narrow(buffer)):
            return name
    return None


def module_of(key: str) -> str:
    """ "a.b." of "a.b.weight"."""
    return key[: key.rfind(".") + 1]


@dataclass(frozen=True)
class Arithmetic:
    """How a stored tensor gives its weight: times the one beside it whose name ends in ``scale``, or divided by it."""

    scale: str
    divide: bool


def arithmetics(key: str, beside: Iterable[str]) -> list[Arithmetic]:
    """Those that are possible for ``key``, given the names of the file's tensors beside it."""
    found = []
    for name in beside:
        if name.startswith(key):  # "a.weight" and "a.weight_scale_inv"
            found.append(Arithmetic("+" + name[len(key) :], False))
        elif module_of(name) == module_of(key):
            found.append(Arithmetic(name[len(module_of(key)) :], False))
    return [*found, *(Arithmetic(each.scale, True) for each in found)]


def scale_key(key: str, how: Arithmetic) -> str:
    return key + how.scale[1:] if how.scale.startswith("+") else module_of(key) + how.scale


def dequantised(stored: Tensor, scale: Tensor, how: Arithmetic, block: Any) -> Optional[Tensor]:
    """The weight in float32; None where the scale's shape does not fit.

    stored: (..., rows, columns). scale: one number, one for each row, or one for each block of rows and columns.
    block: (rows, columns) of a block, for shapes that it does not divide.
    """
    if stored.element_size() != 1 or stored.dtype == torch.uint8:  # packed: the shape is not the weight's
        return None
    factors = (scale.to(torch.float32) - EXPONENT_BIAS).exp2() if scale.dtype == torch.uint8 else widen(scale)
    grid = _grid(factors, stored, block)
    if grid is None:
        return None
    wide = widen(stored)
    return wide / grid if how.divide else wide * grid


def _grid(factors: Tensor, stored: Tensor, block: Any) -> Optional[Tensor]:
    """The scale of each element."""
    if factors.numel() == 1:
        return factors.reshape(())
    if stored.dim() < 2:
        return factors if factors.shape == stored.shape else None
    rows = stored.shape[-2]
    if factors.dim() == 1 and stored.dim() == 2 and len(factors) == rows:
        factors = factors.reshape(rows, 1)
    if factors.dim() != stored.dim() or factors.shape[:-2] != stored.shape[:-2]:
        return None
    sizes = block if isinstance(block, (list, tuple)) and len(block) == 2 else (None, None)
    for axis, size in ((-2, sizes[0]), (-1, sizes[1])):
        length, parts = stored.shape[axis], factors.shape[axis]
        if parts in (1, length):
            continue
        wide = length // parts if length % parts == 0 else size
        if not isinstance(wide, int) or -(-length // wide) != parts:
            return None
        factors = factors.repeat_interleave(wide, dim=axis).narrow(axis, 0, length)
    return factors


def groups(keys: Iterable[str]) -> Iterator[list[str]]:
    """The parts of each quantised weight together: those of one module, or of one name before its last "_"."""
    found: dict[str, list[str]] = {}
    for key in keys:
        stem, _, last = key.rpartition("_")
        found.setdefault(stem if last in ("blocks", "scales") else module_of(key), []).append(key)
    yield from found.values()


def close(actual: Tensor, expected: Tensor) -> bool:
    """The same numbers but for the last digit of ``actual``'s dtype: where the library rounds on the way is not known.

    NaN counts as equal to NaN.
    """
    if actual.shape != expected.shape or not is_float(actual):
        return False
    one, two = widen(actual), widen(expected.to(actual.dtype))
    near = (one - two).abs() <= 2 * torch.finfo(actual.dtype).eps * two.abs()
    return bool((near | (one == two) | (torch.isnan(one) & torch.isnan(two))).all())
