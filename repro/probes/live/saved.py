"""A step that went bad, on disk: its batches, the random state and the weights, so that it can be made again."""

import json
import os
import pickle
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.opening import check_is_file, open_foreign
from ..machine.chance import Chance
from ..model.lent import PLAIN
from ..model.ready import ready
from ..protocol.failures import one_line
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
            kept[name] = _on_cpu(rebuild(value, Tensor, given.as_given))
        else:
            left_out.add(name)
    return {
        "inputs": kept,
        "positional": _on_cpu(rebuild(list(given.positional), Tensor, given.as_given)),
        "by_place": list(given.by_place),
        "back": _on_cpu(call.back),
        "gradients": given.gradients,
        "chance": None if given.beginning is None else given.beginning.chance.plain(),
    }


def _on_cpu(nest: Any) -> Any:
    return rebuild(nest, Tensor, lambda tensor: tensor.detach().cpu().clone())


def _of(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype), "sha256": digest(tensor)}


class NoStep(Exception):
    """The folder holds no step that can be made again. The message says why."""


def read(folder: str, model: nn.Module) -> tuple[dict[str, Any], list[Call], Bad]:
    """What ``save`` wrote: what it says of the step, its calls, and what was bad. The model has the step's weights and
    mode afterwards.

    Raises:
        NoStep: a file is missing or of another shape, or the weights are not the model's.
    """
    try:
        with open_foreign(os.path.join(folder, STEP)) as opened:
            told = json.loads(opened.read())
        rows = _loaded(os.path.join(folder, DATA))
        phase, what, training = str(told["phase"]), str(told["what"]), bool(told["training"])
        weights = os.path.join(folder, WEIGHTS)
        state = _loaded(weights) if os.path.exists(weights) else None
        if state is not None:
            model.load_state_dict(state)
        else:
            _check_weights(model, told["weights"])
        model.train(training)
        calls = [_call_of(model, row) for row in rows]
    except NoStep:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise NoStep(f"{folder}: {type(error).__name__}: {one_line(str(error), 500)}") from error
    if not calls:
        raise NoStep(f"{folder} holds no call of the model, so there is nothing to make again.")
    return told, calls, Bad(what, phase, calls[-1], told.get("parameter"))


def _loaded(path: str) -> Any:
    check_is_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_weights(model: nn.Module, said: dict[str, dict[str, Any]]) -> None:
    state = model.state_dict()
    for name, row in said.items():
        if name not in state or digest(state[name]) != row["sha256"]:
            raise NoStep(f"The model's {name} is not that of the step: it has another SHA-256.")


def _call_of(model: nn.Module, row: dict[str, Any]) -> Call:
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def there(nest: Any) -> Any:
        return rebuild(nest, Tensor, lambda tensor: tensor.to(device))

    named, placed = there(row["inputs"]), row.get("by_place", ())
    args = (*there(row["positional"]), *(named.pop(name) for name in placed if name in named))
    loaded, given = ready(model, args, named)
    if given.beginning is not None and row["chance"] is not None:
        given.beginning.chance = Chance.read(row["chance"])
    return Call(loaded, replace(given, gradients=bool(row["gradients"])), there(row["back"]))
