"""A step that went bad, on disk: its batches, the random state and the weights, so that it can be made again."""

import json
import os
from collections.abc import Iterable
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.ready import PLAIN
from ..values.figures import digest, dtype_name
from ..values.nest import rebuild
from .again import Bad, Call

STEP, DATA, WEIGHTS = "step.json", "step.pt", "weights.pt"
LARGEST = 8 << 30  # bytes of weights that are saved; of larger ones only the digest is


def save(folder: str, model: nn.Module, calls: Iterable[Call], bad: Bad, number: Optional[int]) -> None:
    """Write ``step.json`` (what and when), ``step.pt`` (inputs, the gradients that came back, the random state of each
    call) and ``weights.pt`` into ``folder``, which exists.

    All of it can be read by ``torch.load(weights_only=True)``.

    Raises:
        OSError: it cannot be written.
    """
    chosen = [bad.call] if bad.phase == "forward" and bad.call is not None else list(calls)
    left_out: set[str] = set()
    data = [_call(call, left_out) for call in chosen]
    torch.save(data, os.path.join(folder, DATA))
    state = model.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values() if isinstance(tensor, Tensor))
    if size <= LARGEST:
        plain = {name: tensor.detach().cpu() for name, tensor in state.items() if isinstance(tensor, Tensor)}
        torch.save(plain, os.path.join(folder, WEIGHTS))
    told = {
        "schema": 1,
        "step": number,
        "phase": bad.phase,
        "what": bad.what,
        "parameter": bad.name,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "training": model.training,
        "calls": len(data),
        "left_out": sorted(left_out),
        "weights": {name: _of(tensor) for name, tensor in state.items() if isinstance(tensor, Tensor)},
        "torch": torch.__version__,
    }
    with open(os.path.join(folder, STEP), "w", encoding="utf-8") as opened:
        json.dump(told, opened, indent=1)


def _call(call: Call, left_out: set[str]) -> dict[str, Any]:
    given = call.given
    kept = {}
    for name, value in given.arguments().items():
        if isinstance(value, PLAIN):
            kept[name] = _on_cpu(value)
        else:
            left_out.add(name)
    return {
        "inputs": kept,
        "positional": _on_cpu(list(given.positional)),
        "back": _on_cpu(call.back),
        "gradients": given.gradients,
        "chance": None if given.beginning is None else given.beginning.chance.plain(),
    }


def _on_cpu(nest: Any) -> Any:
    return rebuild(nest, Tensor, lambda tensor: tensor.detach().cpu().clone())


def _of(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype), "sha256": digest(tensor)}
