"""What a program begins its backward passes at: the loss, which its own code may have made behind every model."""

import functools
from typing import Any, Callable

import torch
from torch import Tensor

Hears = Callable[[Tensor, Callable[[], None]], None]
"""Is given a loss, and runs the backward pass."""

_HEARING: list[Hears] = []
_PLAIN: list[Any] = []  # PyTorch's own function, and what stands for it, while there is one that hears


def hear(hears: Hears) -> None:
    """From here on it is told of each single number at which ``Tensor.backward`` or ``torch.autograd.backward`` begins
    with no gradient given, and runs the pass.
    """
    if not _HEARING:
        plain = torch.autograd.backward
        _PLAIN[:] = [plain, _heard(plain)]
        torch.autograd.backward = _PLAIN[1]
    _HEARING.append(hears)


def hear_no_more(hears: Hears) -> None:
    """PyTorch's function is put back with the last one; not where somebody else has put another there since, which
    calls ours: that one then does nothing of its own.
    """
    if hears in _HEARING:
        _HEARING.remove(hears)
    if not _HEARING and _PLAIN and torch.autograd.backward is _PLAIN[1]:
        torch.autograd.backward = _PLAIN[0]


def _heard(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        run = functools.partial(plain, tensors, grad_tensors, *args, **kwargs)
        if grad_tensors is None and isinstance(tensors, Tensor) and tensors.numel() == 1:
            for hears in _HEARING:
                run = functools.partial(hears, tensors, run)
        run()

    return backward
