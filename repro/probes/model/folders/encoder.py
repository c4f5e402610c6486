"""A sentence encoder of the package sentence-transformers: what follows its transformer, module by module.

Source: https://github.com/UKPLab/sentence-transformers, ``sentence_transformers/models``: Pooling, Dense, Normalize,
LayerNorm. They are small and computed here; the model's output then has a ``sentence_embedding`` too.
"""

import os
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...checkpoint import limits
from ...checkpoint.files import load_pickle
from ...checkpoint.opening import read_json, shown
from ...checkpoint.resolve import MODULES
from ..compat import CannotLoad
from ..load import Loaded, opened

EMBEDDING = "sentence_embedding"
PREFIX = "pooling_mode_"
MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
SMALLEST = 1e-9  # by which the library keeps a mean over no token from dividing by zero


class Pooling(nn.Module):
    """One vector of all tokens: (batch, seq, hidden) and the mask, to (batch, modes * hidden)."""

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        wide = mask.unsqueeze(-1).expand(hidden.shape).to(hidden.dtype)
        found = []
        for mode in self.modes:
            if mode == "cls_token":
                found.append(hidden[:, 0])
            elif mode == "max_tokens":
                found.append(hidden.masked_fill(wide == 0, -1e9 if hidden.dtype == torch.float32 else -1e4).amax(1))
            elif mode == "lasttoken":
                last = mask.shape[1] - 1 - mask.flip(1).to(torch.int64).argmax(1)
                found.append(hidden[torch.arange(hidden.shape[0], device=hidden.device), last])
            else:
                weight = wide
                if mode == "weightedmean_tokens":
                    steps = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
                    weight = wide * steps[None, :, None]
                count = weight.sum(1).clamp(min=SMALLEST)
                found.append((hidden * weight).sum(1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count))
        return torch.cat(found, 1)


class Dense(nn.Module):
    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.activation_function = linear, activation

    def forward(self, vector: Tensor) -> Tensor:
        found: Tensor = self.activation_function(self.linear(vector))
        return found


class Normalize(nn.Module):
    def forward(self, vector: Tensor) -> Tensor:
        return nn.functional.normalize(vector, p=2, dim=1)


def put_behind(loaded: Loaded, folder: str) -> str:
    """The modules behind the transformer, run at the end of its forward pass; what they are, in words.

    Raises:
        CannotLoad: one of them is of a kind that is not known here.
    """
    rows = read_json(os.path.join(folder, MODULES), limits.CONFIG_BYTES)
    chain: list[nn.Module] = []
    for row in rows[1:]:
        kind, name = str(row.get("type", "")).rpartition(".")[2], os.path.basename(str(row.get("path", "")))
        place = os.path.join(folder, name)
        module = _module(loaded, kind, place)
        loaded.model.add_module(name.replace(".", "_") or kind, module.to(loaded.device))
        chain.append(module)

    def behind(_owner: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> Any:
        hidden = output["last_hidden_state"] if "last_hidden_state" in output else output[0]
        mask = given.get("attention_mask")
        vector = chain[0](hidden, torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask)
        for module in chain[1:]:
            vector = module(vector)
        output[EMBEDDING] = vector
        return output

    if chain:
        loaded.model.register_forward_hook(behind, with_kwargs=True)
    return " and ".join(type(module).__name__ for module in chain)


def _module(loaded: Loaded, kind: str, place: str) -> nn.Module:
    if kind == "Normalize":
        return Normalize()
    settings = _settings(place)
    if kind == "Pooling":
        modes = tuple(mode for mode in MODES if settings.get(PREFIX + mode))
        if modes:
            return Pooling(modes)
    if kind == "Dense":
        linear = nn.Linear(settings["in_features"], settings["out_features"], bool(settings.get("bias", True)))
        name = str(settings.get("activation_function", "torch.nn.Tanh")).rpartition(".")[2]
        activation = getattr(nn, name, None)
        if isinstance(activation, type) and issubclass(activation, nn.Module):
            dense = Dense(linear, activation())
            _fill(loaded, dense, place)
            return dense.to(loaded.dtype)
    raise CannotLoad(
        f"The sentence encoder has a module {kind or shown(kind)} ({os.path.basename(place)}) that only the package"
        " sentence-transformers runs. Give a script that does."
    )


def _settings(place: str) -> dict[str, Any]:
    try:
        found = read_json(os.path.join(place, "config.json"), limits.CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise CannotLoad(f"{place}/config.json cannot be read: {error}.") from None
    return found if isinstance(found, dict) else {}


def _fill(loaded: Loaded, module: nn.Module, place: str) -> None:
    path = _weights(place)
    held = {}
    if path is not None and path.endswith(".bin"):
        held = load_pickle(path, "cpu")
    elif path is not None:
        read = opened(path)
        held = {name: read(name) for name in module.state_dict()}
    if path is None or set(held) != set(module.state_dict()):
        raise CannotLoad(f"{place} has no weights of its linear layer (model.safetensors, pytorch_model.bin).")
    module.load_state_dict(held)
    inside = os.path.basename(place).replace(".", "_")
    loaded.from_file.update({f"{inside}.{name}": (path, name) for name in held})


def _weights(place: str) -> Optional[str]:
    paths = [os.path.join(place, name) for name in ("model.safetensors", "pytorch_model.bin")]
    return next((path for path in paths if os.path.isfile(path)), None)
