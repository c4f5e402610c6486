"""What a program in this process may change, kept as it is now, and put back in the same objects.

Modules (parameters, buffers, gradients, modes, plain attributes), optimizers, schedulers and scalers, tensors, arrays
and generators of random numbers, also inside of lists, tuples and dicts; the random state of PyTorch, NumPy and
Python; and the settings of the process that decide what is computed.
"""

import collections
import random
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor, nn

from ..machine.chance import Chance

SIMPLE = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device)
PLAIN = (Tensor, nn.Parameter, nn.Buffer) if hasattr(nn, "Buffer") else (Tensor, nn.Parameter)


class State:
    """Everything as it is when this is made. Each piece of memory is copied once, on its own device.

    unchanged: tensors that are known to be written to by nobody.
    """

    def __init__(self, things: Iterable[Any] = (), unchanged: Iterable[Tensor] = ()) -> None:
        self._undo: list[Callable[[], Any]] = []
        self._met: dict[int, Any] = {}  # with the object itself, which keeps its number from being used again
        self._copied = {tensor.untyped_storage().data_ptr() for tensor in unchanged if type(tensor) in PLAIN}
        for thing in things:
            if not self._keep(thing) and hasattr(thing, "__dict__"):
                self._container(vars(thing))
        self._last = [Chance.taken().put, *_settings()]

    def put_back(self) -> None:
        """As it was. Random state and settings come last: what is copied here changes none of them."""
        with torch.no_grad():
            for undo in self._undo:
                undo()
        for undo in self._last:
            undo()

    def _keep(self, thing: Any) -> bool:
        """Whether its kind is one that is kept."""
        if isinstance(thing, SIMPLE) or id(thing) in self._met:
            return True
        self._met[id(thing)] = thing
        if isinstance(thing, Tensor):
            self._tensor(thing)
        elif isinstance(thing, (dict, list, set, collections.deque)):
            self._container(thing)
        elif isinstance(thing, tuple):
            for item in thing:
                self._keep(item)
        elif isinstance(thing, torch.Generator):
            self._undo.append(partial(thing.set_state, thing.get_state()))
        elif isinstance(thing, random.Random):
            self._undo.append(partial(thing.setstate, thing.getstate()))
        elif _is_array(thing):
            self._undo.append(partial(_write, thing, thing.copy()))
        elif _holds_state(thing):
            self._container(vars(thing))
        else:
            del self._met[id(thing)]
            return False
        return True

    def _container(self, held: Any) -> None:
        items = dict(held) if isinstance(held, dict) else list(held)
        self._undo.append(partial(_refill, held, items))
        for item in list(held.values()) if isinstance(held, dict) else list(held):
            self._keep(item)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            return
        if type(tensor) in PLAIN and tensor.layout == torch.strided and not tensor.is_nested:
            storage = tensor.untyped_storage()
            if storage.nbytes() and storage.data_ptr() not in self._copied:
                self._copied.add(storage.data_ptr())
                self._undo.append(partial(_write_storage, storage, storage.clone()))
            if not tensor.is_inference():
                self._undo.append(partial(_lie_again, tensor, tensor.data))
        else:  # a tensor of several parts, or one with a class of its own
            alias = tensor.detach()
            self._undo.append(partial(alias.copy_, alias.clone()))
        if tensor.is_leaf and not tensor.is_inference():
            self._keep(tensor.grad)
            self._undo.append(partial(_as_leaf, tensor, tensor.requires_grad, tensor.grad))


def _refill(held: Any, items: Any) -> None:
    if isinstance(held, dict):  # by its base class: some refuse to be changed as a whole
        kind: Any = collections.OrderedDict if isinstance(held, collections.OrderedDict) else dict
        kind.clear(held)
        kind.update(held, items)
        return
    held.clear()
    held.update(items) if isinstance(held, set) else held.extend(items)


def _write_storage(storage: Any, values: Any) -> None:
    if storage.nbytes() != values.nbytes():
        storage.resize_(values.nbytes())
    storage.copy_(values)


def _lie_again(tensor: Tensor, alias: Tensor) -> None:
    """In the memory where it lay, in the same shape and dtype: a program may have given it other data."""

    def place(item: Tensor) -> tuple[Any, ...]:
        return item.data_ptr(), item.dtype, item.shape, item.stride(), item.device

    if place(tensor) != place(alias):
        tensor.data = alias


def _as_leaf(tensor: Tensor, requires_grad: bool, grad: Any) -> None:
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)
    if tensor.grad is not grad:
        tensor.grad = grad


def _is_array(thing: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray)


def _write(array: Any, values: Any) -> None:
    if array.flags.writeable:
        array[...] = values


def _holds_state(thing: Any) -> bool:
    """Whether it is an object whose attributes are what a program changes: a module, optimizer, scheduler, scaler, or a
    cache of keys and values.
    """
    if isinstance(thing, type) or not hasattr(thing, "__dict__"):
        return False
    return all(hasattr(thing, name) for name in ("state_dict", "load_state_dict")) or hasattr(thing, "get_seq_length")


def _settings() -> list[Callable[[], Any]]:
    """The settings of the process that change numbers, or what is recorded of them."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    return [
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        partial(torch.use_deterministic_algorithms, deterministic, warn_only=warn_only),
        partial(torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        partial(torch._C._set_grad_enabled, torch.is_grad_enabled()),
        partial(_set_threads, threads),
    ]


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
