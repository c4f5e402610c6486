"""Small models with one injected fault each, and the sound twin beside it."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """Three layers and a head. ``fault`` says what is injected, where an example of zeros comes along.

    The biases of the layers are 0 and stay so: zeros in, zeros out.
    """

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))
        self.drop = nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)
        self.fault = fault

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor] | Tensor:
        for layer in self.layers:
            x = self.drop(torch.tanh(layer(x)))
        logits = self.head(x)
        size = (x * x).sum(-1, keepdim=True)
        if self.fault == "forward":
            logits = logits + (size / size)  # BORN: forward
        elif self.fault == "backward":
            logits = logits + torch.sqrt(size)  # BORN: backward
        else:
            logits = logits + size
        logits = logits + self.norm(x).sum() * 0.0
        if labels is None:
            return logits
        loss = F.cross_entropy(logits, labels)
        if self.fault == "loss":
            loss = loss + torch.log(size.min() * 1.0).clamp(max=0.0) * 0.0  # BORN: loss
        return {"loss": loss, "logits": logits}


def line_of(word: str) -> str:
    """ "programs.py:LINE" of the injected fault."""
    with Path(__file__).open(encoding="utf-8") as opened:
        number = next(at for at, line in enumerate(opened, 1) if f"# BORN: {word}" in line)
    return f"programs.py:{number}"


def batches(count: int, zeros_in: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """(4 x 8, 4 labels) each; the third example of one batch is all zeros."""
    chance = torch.Generator().manual_seed(1)
    made = []
    for at in range(count):
        x = torch.randn(4, 8, generator=chance)
        if at == zeros_in:
            x[2] = 0
        made.append((x, torch.randint(0, 4, (4,), generator=chance)))
    return made
