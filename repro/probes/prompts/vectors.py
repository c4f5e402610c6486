"""Steering vectors: the mean difference between the two sides of sound pairs, layer by layer, at the last token.

As contrastive activation addition takes them (Rimsky et al., Steering Llama 2 via Contrastive Activation Addition,
2024). Pairs of which a side failed are left out and counted: what is lost is stated, never filled in.
"""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .batches import Example

SIDES = ("positive", "negative")


class Steering:
    """Sums over sound pairs; a pair whose sides lie in two batches waits for the other side."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = list(layers)
        self._sum: Optional[Tensor] = None
        self._waiting: dict[int, tuple[str, Optional[Tensor]]] = {}
        self.used = 0
        self.lost: list[int] = []

    def take(self, example: Example, residual: Optional[Tensor]) -> None:
        """One side of a pair: (layer, hidden), each layer's output at its last token; None where it is not sound."""
        if example.side not in SIDES:
            return
        own = None if residual is None else residual.to(torch.float64)
        other = self._waiting.pop(example.index, None)
        if other is None:
            self._waiting[example.index] = (str(example.side), own)
        else:
            self._pair(example.index, str(example.side), own, other[1])

    def _pair(self, index: int, side: str, own: Optional[Tensor], other: Optional[Tensor]) -> None:
        if own is None or other is None:
            self.lost.append(index)
            return
        difference = own - other if side == "positive" else other - own
        self._sum = difference if self._sum is None else self._sum + difference
        self.used += 1

    def save(self, path: str) -> dict[str, Any]:
        """Write one float32 vector for each layer. Nothing is written where no pair is sound."""
        lost = sorted([*self.lost, *self._waiting])
        found = {"path": None, "used": self.used, "lost": len(lost), "lost_pairs": lost}
        if self._sum is None:
            return found
        from safetensors.torch import save_file

        mean = (self._sum / self.used).to(torch.float32)
        metadata = {"format": "pt", "pairs_used": str(self.used), "pairs_lost": str(len(lost)), "token": "last"}
        save_file({name: mean[at].contiguous() for at, name in enumerate(self._layers)}, path, metadata=metadata)
        return {**found, "path": path}
