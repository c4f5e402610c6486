"""A function of somebody's own that gives a module, or a module and what it is called with.

``FILE.py:function`` or ``package.module:function``. It is run here once, with seeded random numbers, and its folder is
on the path of modules as that of a script would be.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...checkpoint import pickled
from ...checkpoint.files import list_weights
from ...checkpoint.resolve import CannotResolve
from ...observe.source import is_inner
from ...observe.watch import inside
from ...protocol.failures import in_words
from ...values.figures import same_values, tensors_in
from ...values.nest import rebuild
from ..compat import CannotLoad
from ..inputs import Inputs
from ..load import Loaded, bring, file_tensors, own_dtype, pick_device
from ..ready import ready

SEED = 0
FORMS = "module, (module, inputs) or (module, inputs, optimizer)"


@dataclass(frozen=True)
class Made:
    """What a factory gave. ``inputs`` is None where it gave a module alone; ``optimizer`` where it gave none."""

    loaded: Loaded
    inputs: Optional[Inputs]
    optimizer: Optional[torch.optim.Optimizer]


def make(case: dict[str, Any]) -> Made:
    """The module of ``case["factory"]`` in evaluation mode, on its device and in its dtype, with the weights of
    ``case["model"]`` where that is a file or a folder.

    Raises:
        CannotResolve: there is no such file, module or function.
        CannotLoad: the function raises, or gives something else; or the weights cannot be read.
    """
    name = os.path.basename(str(case["factory"]))
    module, inputs, optimizer = _given(str(case["factory"]))
    module = inside(module)
    _first_call(module, inputs, name)
    kinds, rows = _weights(module, case)
    device = pick_device(case.get("device")) if case.get("device") else None
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else None
    own = own_dtype(module) or next((item.dtype for item in tensors_in(inputs) if item.is_floating_point()), None)
    bring(module, dtype)
    module.eval()
    if device is not None or dtype is not None:
        module.to(device=device, dtype=dtype)
        inputs = rebuild(inputs, Tensor, lambda item: _moved(item, device, dtype, own))
    if inputs is None and getattr(module, "config", None) is None and not case.get("inputs"):
        kind = type(module).__name__
        raise CannotLoad(
            f"{name} gives a {kind} alone, and what it takes is not known. Return its inputs beside it: "
            "(module, tensor), (module, (tensor, ...)) or (module, {'argument': tensor, ...}), or give --inputs."
        )
    args, kwargs = _call(inputs)
    try:
        loaded, made = ready(module, args, kwargs) if inputs is not None else (ready_alone(module), None)
    except TypeError as error:
        raise CannotLoad(f"{type(module).__name__} does not take the inputs of {name}: {error}") from error
    loaded.info.update(kinds)
    loaded.from_file.update(rows)
    return Made(loaded, made, optimizer)


def _first_call(module: nn.Module, inputs: Any, name: str) -> None:
    """Call a lazily initialised module once, as its program would: its parameters have no shape before.

    Raises:
        CannotLoad: its inputs are not known, or it refuses them.
    """
    named: Iterator[tuple[str, Any]] = module.named_parameters()
    lazy = [key for key, parameter in named if is_lazy(parameter)]
    if not lazy:
        return
    if inputs is None:
        raise CannotLoad(
            f"{name} gives a module whose {lazy[0]} is made at its first call. Return its inputs beside it."
        )
    args, kwargs = _call(rebuild(inputs, Tensor, Tensor.clone))
    try:
        with torch.no_grad():
            module.eval()(*args, **kwargs)
    except Exception as error:
        raise CannotLoad(
            f"The first call of the module of {name}, which makes {lazy[0]}, raised {_placed(error)}"
        ) from error


def module_of(name: str) -> nn.Module:
    """The module alone, as the factory gives it.

    Raises:
        CannotResolve, CannotLoad: as ``make`` does.
    """
    return _given(name)[0]


def _given(factory: str) -> tuple[nn.Module, Any, Optional[torch.optim.Optimizer]]:
    function, name = _found(factory), os.path.basename(factory)
    torch.manual_seed(SEED)
    try:
        given = function()
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{name} raised {_placed(error)}") from error
    return _parts(name, given)


def ready_alone(module: nn.Module) -> Loaded:
    """A module whose inputs are made as for any model of its configuration."""
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    return ready(module, (), dict.fromkeys(needed))[0]


def _found(name: str) -> Callable[[], Any]:
    """The function of this name."""
    place, _, wanted = name.rpartition(":")
    if not place or not wanted:
        raise CannotResolve(f"{name!r} is no factory: expected FILE.py:function or package.module:function.")
    module = _from_file(place) if place.endswith(".py") else _imported(name, place)
    function = getattr(module, wanted, None)
    if not callable(function):
        near = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise CannotResolve(f"{place} has no function {wanted!r} (it has: {near or 'none'}).")
    return function


def _from_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise CannotResolve(f"There is no file {path}. Check the path of the factory.")
    stem = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(stem, path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module  # as an import would: classes are looked up there by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{os.path.basename(path)} raised {_placed(error)}") from error
    return module


def _imported(name: str, place: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise CannotResolve(
                f"{sys.executable} has no module {place}, nor has the current folder. Give FILE.py:function, "
                "or --python the interpreter that has it."
            ) from error
        raise CannotLoad(f"{place} needs the package {error.name}, which {sys.executable} does not have.") from error
    except (Exception, SystemExit) as error:
        raise CannotLoad(f"{place} raised {_placed(error)}") from error


def _placed(error: BaseException) -> str:
    """What was raised, in words, and the line of somebody's own code where it was."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_inner(frame.filename)]
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return in_words(error) + where


def _parts(name: str, given: Any) -> tuple[nn.Module, Any, Optional[torch.optim.Optimizer]]:
    row = given if isinstance(given, (tuple, list)) else (given,)
    if not 1 <= len(row) <= 3 or not isinstance(row[0], nn.Module):
        raise CannotLoad(f"{name} gives {_said(given)}: expected {FORMS}.")
    inputs = row[1] if len(row) > 1 else None
    if not (inputs is None or isinstance(inputs, (Mapping, tuple, list, Tensor))):
        raise CannotLoad(f"{name} gives inputs of type {type(inputs).__name__}: expected a dict, a tuple or a tensor.")
    optimizer = row[2] if len(row) > 2 else None
    if not (optimizer is None or isinstance(optimizer, torch.optim.Optimizer)):
        raise CannotLoad(f"{name} gives a {type(optimizer).__name__} where an optimizer was expected.")
    return row[0], dict(inputs) if isinstance(inputs, Mapping) else inputs, optimizer


def _said(given: Any) -> str:
    if isinstance(given, (tuple, list)):
        return f"a {type(given).__name__} of {', '.join(type(item).__name__ for item in given) or 'nothing'}"
    return f"a {type(given).__name__}" if given is not None else "nothing"


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the module is called with, by place and by name."""
    if isinstance(inputs, dict):
        return (), inputs
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return tuple(inputs or ()), {}


def _moved(
    tensor: Tensor, device: Optional[torch.device], dtype: Optional[torch.dtype], own: Optional[torch.dtype]
) -> Tensor:
    """Where the module is; and in its dtype, if it had that before the module was brought to another one."""
    wanted = dtype if dtype is not None and tensor.dtype == own else None
    return tensor.to(device=device or tensor.device, dtype=wanted or tensor.dtype)


def _weights(module: nn.Module, case: dict[str, Any]) -> tuple[dict[str, list[Any]], dict[str, tuple[str, str]]]:
    """The weights of MODEL, loaded into the module: which keys did not fit, and where each value is in a file."""
    place = case.get("model")
    if place is None or place == case["factory"]:
        return {}, {}
    path = os.path.expanduser(str(place))
    found = list(_stored(path))
    if not found:
        raise CannotLoad(f"{place} holds no weights: expected .safetensors, .bin, .pt or .pth.")
    own = module.state_dict()
    fits = {key: value for _, key, value in found if key not in own or own[key].shape == value.shape}
    missing, unexpected = module.load_state_dict(fits, strict=False)
    other = [
        (key, list(value.shape), list(own[key].shape)) for _, key, value in found if key in own and key not in fits
    ]
    now = module.state_dict()
    rows = {key: (file, key) for file, key, value in found if key in fits and key in own and _same(now[key], value)}
    rows = {key: row for key, row in rows.items() if row[0].endswith(".safetensors")}
    missing = [key for key in missing if key not in {name for name, _, _ in other}]
    return {"missing_keys": list(missing), "unexpected_keys": list(unexpected), "mismatched_keys": other}, rows


def _same(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and same_values(one, two)


def _stored(path: str) -> Any:
    """(file, key, tensor) of each tensor that a file or a folder holds."""
    if os.path.isdir(path):
        if list_weights(path).names:
            yield from file_tensors(path)
            return
        names = [name for name in sorted(os.listdir(path)) if name.endswith((".safetensors", ".bin", ".pt", ".pth"))]
        for name in names:
            yield from _stored(os.path.join(path, name))
        return
    if not os.path.isfile(path):
        raise CannotResolve(f"There is no file or folder {path}. Check the path.")
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                yield path, key, opened.get_tensor(key)
        return
    try:
        state = pickled.load(path, "cpu")
    except Exception as error:
        raise CannotLoad(f"{path} cannot be read as a state_dict: {in_words(error)}") from error
    for key, value in _state_dict(state).items():
        if isinstance(value, Tensor):
            yield path, key, value


def _state_dict(state: Any) -> dict[str, Any]:
    """The tensors by name: the file's own dict, or the one that it keeps under a usual name."""
    if isinstance(state, Mapping):
        for name in ("state_dict", "model_state_dict", "model", "module", "params"):
            if isinstance(state.get(name), Mapping):
                return dict(state[name])
        return dict(state)
    raise CannotLoad(f"it holds a {type(state).__name__}, and a state_dict was expected")
