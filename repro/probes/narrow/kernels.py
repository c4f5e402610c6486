"""Which kernels hold partial sums in the narrow dtype, asked of the kernels that are here: each is given numbers whose
sum, or sum of squares or of exponentials, is beyond float16 on the way to a result that is not.

Most accumulate in float32. A mean on the CPU did not before PyTorch 2.1, nor does log_softmax today.
"""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..observe.watch import OpCall
from ..values.figures import is_bad, tensors_in
from ..values.nest import rebuild
from .shadow import Shadow

LONG, LARGE = 4096, 300.0  # so many of such: 1.2 million, beyond float16; each by itself is far within
FLAT = 70_000  # exponentials of equal numbers are 1: so many are beyond float16


@dataclass(frozen=True)
class Family:
    """asked: the kernel on numbers that tell. partial: the greatest partial sum that there can be, of wide arguments;
    the same arguments as the operator's.
    """

    asked: Callable[[Callable[..., Tensor]], Tensor]
    partial: Callable[..., Tensor]


def _both(make: Callable[..., Tensor]) -> Tensor:
    """(1, 2 LONG): a row whose sum is 0, by way of a large one."""
    return make([LARGE] * LONG + [-LARGE] * LONG).reshape(1, -1)


def _ones(make: Callable[..., Tensor]) -> Tensor:
    return make([1.0] * 2 * LONG).reshape(-1, 1)


def _zero(make: Callable[..., Tensor]) -> Tensor:
    return make([0.0]).reshape(1, 1)


def _mean(numbers: Tensor, *rest: Any, **_: Any) -> Tensor:
    wanted = rest[0] if rest and rest[0] else list(range(numbers.dim()))
    return numbers.abs().sum(wanted)


def _sum(numbers: Tensor, *rest: Any, **_: Any) -> Tensor:
    return _mean(numbers, *rest)


def _squares(numbers: Tensor, order: Any = 2, dim: Any = None, *_: Any, **__: Any) -> Tensor:
    return numbers.abs().pow(float(order)).sum(dim or list(range(numbers.dim())))


def _exponentials(numbers: Tensor, dim: Any, *_: Any, **__: Any) -> Tensor:
    dims = [dim] if isinstance(dim, int) else list(dim)
    return (numbers - numbers.amax(dims, keepdim=True)).exp().sum(dims)


def _products(one: Tensor, other: Tensor, *_: Any, **__: Any) -> Tensor:
    return one.abs() @ other.abs()


def _added(_: Tensor, one: Tensor, other: Tensor, *__: Any, **___: Any) -> Tensor:
    return _products(one, other)


FAMILIES = {
    "sum": Family(lambda make: _both(make).sum(1), _sum),
    "mean": Family(lambda make: make([LARGE] * LONG).reshape(1, -1).mean(1), _mean),
    "linalg_vector_norm": Family(lambda make: torch.linalg.vector_norm(make([LARGE] * 4)), _squares),
    "_softmax": Family(lambda make: torch.softmax(make([0.0] * FLAT).reshape(1, -1), -1) * 0, _exponentials),
    "_log_softmax": Family(lambda make: torch.log_softmax(make([0.0] * FLAT).reshape(1, -1), -1), _exponentials),
    "logsumexp": Family(lambda make: torch.logsumexp(make([0.0] * FLAT).reshape(1, -1), 1), _exponentials),
    "mm": Family(lambda make: torch.mm(_both(make), _ones(make)), _products),
    "addmm": Family(lambda make: torch.addmm(_zero(make), _both(make), _ones(make)), _added),
    "bmm": Family(lambda make: torch.bmm(_both(make)[None], _ones(make)[None]), _products),
    "baddbmm": Family(lambda make: torch.baddbmm(_zero(make)[None], _both(make)[None], _ones(make)[None]), _added),
}


@dataclass(frozen=True)
class Held:
    """The greatest partial sum of an operator whose kernel holds it in the narrow dtype, where that makes its result
    bad, and where in that it does: a mask of the result's shape.
    """

    value: float
    bad: Tensor


_narrow: dict[tuple[str, torch.dtype, str], bool] = {}


def holds_narrow(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel of this name ends with a bad number of partial sums beyond float16."""
    key = (name, dtype, device.type)
    if key not in _narrow:

        def make(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=dtype, device=device)

        try:
            with torch.no_grad():
                _narrow[key] = is_bad(FAMILIES[name].asked(make))
        except (RuntimeError, AttributeError):  # no such kernel here
            _narrow[key] = False
    return _narrow[key]


def held_by(call: OpCall, result: Any, dtype: torch.dtype) -> Optional[Held]:
    """What the operator's kernel holds in ``dtype`` and makes its result bad by; None where it holds nothing, or all of
    it stays within.

    The operator is run in that dtype, on its own inputs.
    """
    name = call.address.base_name
    if name not in FAMILIES:
        return None
    given = [tensor for tensor in tensors_in((call.args, call.kwargs)) if isinstance(tensor, Shadow)]
    if not given or not holds_narrow(name, dtype, given[0].device):
        return None

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.wide.to(dtype) if isinstance(tensor, Shadow) else tensor

    args, kwargs = rebuild(call.args, Tensor, rounded), rebuild(call.kwargs, Tensor, rounded)
    wide = next(tensors_in(result), None)
    if wide is None or any(map(is_bad, tensors_in((args, kwargs, wide)))):
        return None  # it was given what is beyond the dtype, or gives that by itself
    bad = ~torch.isfinite(next(tensors_in(call.func(*args, **kwargs))))
    if not bool(bad.any()):
        return None
    given_wide = rebuild(call.args, Tensor, lambda tensor: tensor.wide if isinstance(tensor, Shadow) else tensor)
    return Held(float(FAMILIES[name].partial(*given_wide, **call.kwargs).max()), bad)
