"""What the oracles look with: plain torch, and nothing of the code under test."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def tensors(value: object) -> Iterator[torch.Tensor]:
    """All floating tensors in a value of lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def finite(value: object) -> bool:
    """Whether every number in it is."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors(value))
