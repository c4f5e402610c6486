"""The process as it was found, after code has run in it that may change anything: a user's script."""

import contextlib
import functools
import os
import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
import torch.nn.modules.module as modules
import torch.utils._device

from .environment import flushes_denormals

Restore = Callable[[], Any]


@contextlib.contextmanager
def put_back(folder: str) -> Iterator[None]:
    """Everything below is as before when the block ends, however it ends. folder: where the script lies."""
    restores = [*_python(), *_settings(), *_hooks()]
    known = set(sys.modules)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            _forget(known, folder)
            for restore in restores:
                restore()


def _python() -> Iterator[Restore]:
    """What the interpreter holds: streams, arguments, paths, the main module, variables, folder, random state."""
    for name in ("argv", "path", "stdin", "stdout", "stderr"):
        value = getattr(sys, name)
        kept = list(value) if isinstance(value, list) else value
        yield functools.partial(_replace, name, value, kept)
    main = sys.modules["__main__"]
    yield lambda: sys.modules.__setitem__("__main__", main)
    variables = dict(os.environ)
    yield lambda: _put_variables(variables)
    folder = os.getcwd()
    yield lambda: os.chdir(folder)
    state = random.getstate()
    yield lambda: random.setstate(state)


def _replace(name: str, value: Any, kept: Any) -> None:
    """The same object with the same items: others hold it."""
    if isinstance(value, list):
        value[:] = kept
    setattr(sys, name, value)


def _put_variables(variables: dict[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


def _settings() -> Iterator[Restore]:
    """PyTorch's settings that change numbers, and how it prints them."""
    threads, dtype, precision = torch.get_num_threads(), torch.get_default_dtype(), torch.get_float32_matmul_precision()
    debug, grad, state = torch.get_deterministic_debug_mode(), torch.is_grad_enabled(), torch.get_rng_state()
    # torch 2.0 cannot be asked for its default device; the kit sets none.
    denormals, device = flushes_denormals(), getattr(torch.utils._device, "CURRENT_DEVICE", None)
    yield lambda: torch.set_num_threads(threads)
    yield lambda: torch.set_default_dtype(dtype)
    yield lambda: torch.set_float32_matmul_precision(precision)
    yield lambda: torch.set_deterministic_debug_mode(debug)
    yield lambda: torch.set_grad_enabled(grad)
    yield lambda: torch.set_rng_state(state)
    yield lambda: torch.set_flush_denormal(denormals)
    yield lambda: torch.set_default_device(device)
    printing = vars(torch._tensor_str.PRINT_OPTS)
    yield functools.partial(_refill, printing, dict(printing))


def _hooks() -> Iterator[Restore]:
    """The hooks for all modules of the process."""
    for held in vars(modules).values():
        if isinstance(held, OrderedDict):
            yield functools.partial(_refill, held, dict(held))


def _refill(held: dict[Any, Any], kept: dict[Any, Any]) -> None:
    held.clear()
    held.update(kept)


def _forget(known: set[str], folder: str) -> None:
    """Drop the modules that the script imported from its own folder, so that another run of it runs them again.

    A library is none of them, also where an environment lies in that folder.
    """
    fresh = set(sys.modules) - known
    own = {name for name in fresh if "." not in name and _folder_of(sys.modules[name]) == folder}
    for name in fresh:
        if name.split(".")[0] in own:
            del sys.modules[name]


def _folder_of(module: Any) -> Optional[str]:
    """The folder in which a top-level module or package is found."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    return os.path.dirname(os.path.dirname(file) if hasattr(module, "__path__") else file)
