"""A step that went bad, on disk: its batches, the random state, the weights, and for a fault of the optimizer's own
step its state and gradients, so that it can be made again.
"""

import json
import os
import pickle
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.opening import check_is_file, open_foreign
from ..machine.autocast import Autocast
from ..machine.chance import Chance
from ..model.lent import PLAIN
from ..model.ready import left_alone, ready
from ..protocol.failures import one_line
from ..values.figures import digest, dtype_name, tensors_in
from ..values.nest import rebuild
from .again import Bad, Call
from .find import Found
from .sharded import is_sharded, is_taken_over

STEP, DATA, WEIGHTS, OPTIMIZER = "step.json", "step.pt", "weights.pt", "optimizer.pt"
LARGEST = 8 << 30  # bytes of weights that are saved; of larger ones only the digest is; the same of an optimizer


def save(
    folder: str, model: nn.Module, calls: Iterable[Call], bad: Bad, number: Optional[int], optimizer: Any = None
) -> None:
    """Write ``step.json`` (what and when), ``step.pt`` (inputs, the gradients that came back, the random state of each
    call), ``weights.pt`` and, for a fault of the optimizer's own step, ``optimizer.pt`` into ``folder``, which exists.

    All of it can be read by ``torch.load(weights_only=True)``.

    Raises:
        OSError: it cannot be written.
    """
    chosen = [bad.call] if bad.phase == "forward" and bad.call is not None else list(calls)
    left_out: set[str] = set()
    data = [_call(call, left_out) for call in chosen]
    torch.save(data, os.path.join(folder, DATA))
    state = _state_of(model)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size <= LARGEST:
        plain = {name: tensor.detach().cpu() for name, tensor in state.items()}
        torch.save(plain, os.path.join(folder, WEIGHTS))
    told = {
        "schema": 1,
        "step": number,
        "phase": bad.phase,
        "what": bad.what,
        "parameter": bad.name,
        "kind": bad.kind,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "training": model.training,
        "calls": len(data),
        "left_out": sorted(left_out),
        "weights": {name: _of(tensor) for name, tensor in state.items()},
        "torch": torch.__version__,
        "optimizer": None if bad.phase != "optimizer" else _keep_optimizer(folder, model, optimizer),
    }
    with open(os.path.join(folder, STEP), "w", encoding="utf-8") as opened:
        json.dump(told, opened, indent=1)


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict. Of a model that FSDP2 has taken over, those that lie in its modules now: its own
    state dict shares them out again. What is shared out is not here.
    """
    if not is_taken_over(model):
        named = model.state_dict()
    else:
        named = dict(model.named_parameters(remove_duplicate=False))
        for path, module in model.named_modules(remove_duplicate=False):
            kept = {
                name: held for name, held in module._buffers.items() if name not in module._non_persistent_buffers_set
            }
            named.update({f"{path}.{name}" if path else name: held for name, held in kept.items()})
    return {name: held for name, held in named.items() if isinstance(held, Tensor) and not is_sharded(held)}


def save_call(folder: str, found: Found) -> None:
    """A bad call of a module, as a step with one call: its buffers are those with which it began.

    Raises:
        OSError: it cannot be written.
    """
    model, given = found.loaded.model, found.given.settled()
    call = Call(found.loaded, given)
    with left_alone(model):
        if given.beginning is not None:
            given.beginning.put()
        save(folder, model, [call], Bad(f"the output of {found.loaded.class_name}", "forward", call), None)


def _keep_optimizer(folder: str, model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Write the optimizer's state and the gradients; what is said of it, with the reason where it is not written."""
    if optimizer is None:
        return {"saved": False, "why": "the guard was given no optimizer"}
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kind = type(optimizer)
    told: dict[str, Any] = {"saved": False, "class": kind.__name__}
    tensors = list(tensors_in([list(optimizer.state.values()), [parameter.grad for parameter in parameters]]))
    told["bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if getattr(torch.optim, kind.__name__, None) is not kind:
        return {**told, "why": f"{kind.__module__}.{kind.__name__} is none of torch.optim's own optimizers"}
    if any(map(is_sharded, parameters)):
        return {**told, "why": "its state is shared out among several processes"}
    if not all(id(parameter) in named for parameter in parameters):
        return {**told, "why": "it has parameters that the model does not hold"}
    if told["bytes"] > LARGEST:
        return {**told, "why": f"state and gradients have {told['bytes']:,} bytes, and {LARGEST:,} are saved at most"}
    plain = {
        "groups": [
            {**group, "params": [named[id(parameter)] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ],
        "state": {named[id(key)]: _on_cpu(dict(values)) for key, values in optimizer.state.items()},
        "gradients": {named[id(item)]: _on_cpu(item.grad) for item in parameters if item.grad is not None},
    }
    torch.save(plain, os.path.join(folder, OPTIMIZER))
    return {**told, "saved": True}


def _optimizer_of(folder: str, model: nn.Module, told: dict[str, Any]) -> Any:
    """The optimizer as it was saved, on the model's parameters, which get their gradients.

    Raises:
        NoStep: it was not saved; the message says why.
    """
    if not told.get("saved"):
        raise NoStep(f"{folder} has no state of the optimizer, so its step cannot be made again: {told.get('why')}.")
    kind = getattr(torch.optim, str(told["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise NoStep(f"{folder}: this PyTorch has no optimizer of the name {told['class']!r}.")
    held, plain = dict(model.named_parameters()), _loaded(os.path.join(folder, OPTIMIZER))
    groups = [{**group, "params": [held[name] for name in group["params"]]} for group in plain["groups"]]
    making: Any = kind
    optimizer = making(groups, lr=groups[0]["lr"])
    for name, values in plain["state"].items():
        optimizer.state[held[name]] = _beside(held[name], values)
    for name, gradient in plain["gradients"].items():
        held[name].grad = gradient.to(held[name].device)
    return optimizer


def _beside(parameter: Tensor, values: Any) -> Any:
    """The state of a parameter, where that is; a count of steps stays on the CPU, as optimizers keep it."""
    return rebuild(values, Tensor, lambda item: item.to(parameter.device) if item.dim() else item)


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
        "autocast": None if given.beginning is None else given.beginning.autocast.plain(),
    }


def _on_cpu(nest: Any) -> Any:
    return rebuild(nest, Tensor, lambda tensor: tensor.detach().cpu().clone())


def _of(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype), "sha256": digest(tensor)}


class NoStep(Exception):
    """The folder holds no step that can be made again. The message says why."""


def read(folder: str, model: nn.Module) -> tuple[dict[str, Any], list[Call], Bad, Any]:
    """What ``save`` wrote: what it says of the step, its calls, what was bad, and the optimizer where its own step is
    at fault. The model has the step's weights and mode afterwards, and the gradients where there is an optimizer.

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
        kept = told.get("optimizer") if phase == "optimizer" else None
        optimizer = None if kept is None else _optimizer_of(folder, model, kept)
    except NoStep:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise NoStep(f"{folder}: {type(error).__name__}: {one_line(str(error), 500)}") from error
    if not calls and optimizer is None:
        raise NoStep(f"{folder} holds no call of the model, so there is nothing to make again.")
    kind = told.get("kind")
    return (
        told,
        calls,
        Bad(what, phase, calls[-1] if calls else None, told.get("parameter"), kind=kind),
        optimizer,
    )


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
    if given.beginning is not None and row.get("autocast") is not None:
        given.beginning.autocast = Autocast.read(row["autocast"])
    return Call(loaded, replace(given, gradients=bool(row["gradients"])), there(row["back"]))
