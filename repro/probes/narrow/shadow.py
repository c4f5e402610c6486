"""Tensors that say they are of a narrow dtype and hold wide numbers: the model runs as it does in that dtype, with its
casts and its branches, and nothing overflows.

The dtype of an operator's result is asked of PyTorch itself: the operator is run on tensors without memory that have
the dtypes of its arguments. It depends on little, so most operators of a model ask nothing that is not known yet.
"""

from collections.abc import Iterator
from typing import Any, Optional

import torch
from torch import Tensor

from ..observe.tape import written_by
from ..values.figures import tensors_in
from ..values.nest import items_in, rebuild

HALF_TO_FLOAT = ("_softmax", "_log_softmax")  # their last argument makes them cast as well, which float32 refuses
Dtypes = tuple[Optional[torch.dtype], ...]


class CannotFollow(Exception):
    """The narrow run cannot be told from wide numbers. The message says why."""


class Shadow(Tensor):
    """``wide`` holds the numbers; dtype, shape and device are those of the tensor that it stands for."""

    wide: Tensor

    @staticmethod
    def __new__(cls, wide: Tensor, dtype: torch.dtype) -> "Shadow":
        make: Any = Tensor._make_wrapper_subclass
        shadow: Shadow = make(
            cls, wide.shape, strides=wide.stride(), storage_offset=wide.storage_offset(), dtype=dtype,
            device=wide.device, layout=wide.layout, requires_grad=False,
        )  # fmt: skip
        shadow.wide = wide.detach()
        return shadow

    def __init__(self, wide: Tensor, dtype: torch.dtype) -> None:
        """``__new__`` has made all of it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Shadow({self.wide!r}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _Call(func, args, kwargs or {}).result()


class _Call:
    """One operator on wide numbers."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._func, self._args, self._kwargs = func, args, kwargs
        shadow = next(items_in((args, kwargs), Shadow))
        self._narrow, self._dtype = shadow.dtype, shadow.wide.dtype
        self._owners: dict[int, Tensor] = {}  # whose numbers a wide tensor has
        self._held: list[Tensor] = []  # so that no two of them have one id

    def result(self) -> Any:
        """What the operator gives; what is narrow in the true run comes as a Shadow.

        Raises:
            CannotFollow: it reads the bits of its arguments, or gives an argument another shape.
        """
        if self._func is torch.ops.aten.view.dtype:
            raise CannotFollow("the model reads the bits of a number: it views a tensor as another dtype")
        dtypes = iter(result_dtypes(self._func, self._args, self._kwargs))
        args = rebuild(rebuild(self._args, Tensor, self._wide), torch.dtype, self._wide_dtype)
        kwargs = rebuild(rebuild(self._kwargs, Tensor, self._wide), torch.dtype, self._wide_dtype)
        if self._func.__name__.split(".")[0] in HALF_TO_FLOAT:
            args = (*args[:2], False)
        if self._func.__name__.split(".")[0].rstrip("_") == "nan_to_num":
            args, kwargs = self._replaced(args, kwargs)
        found = self._func(*args, **kwargs)
        if self._func._schema.is_mutable:
            self._write_back()
        return rebuild(found, Tensor, lambda tensor: self._outer(tensor, next(dtypes, None)))

    def _replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Of nan_to_num: infinity becomes the largest number of the narrow dtype, where no other one is given."""
        info = torch.finfo(self._narrow)
        given = {**dict(zip(("nan", "posinf", "neginf"), args[1:])), **kwargs}
        for name, value in (("posinf", info.max), ("neginf", info.min)):
            given[name] = value if given.get(name) is None else given[name]
        return args[:1], given

    def _wide(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, Shadow):
            inner = tensor.wide
        elif tensor.dtype == self._narrow:
            inner = tensor.to(self._dtype)
        else:
            return tensor
        self._owners[id(inner)] = tensor
        self._held.append(inner)
        return inner

    def _wide_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return self._dtype if dtype == self._narrow else dtype

    def _outer(self, tensor: Tensor, dtype: Optional[torch.dtype]) -> Tensor:
        owner = self._owners.get(id(tensor))
        if owner is not None:
            if owner.shape != tensor.shape:
                raise CannotFollow(f"{self._func} gives its argument another shape in place")
            return owner
        if not tensor.is_floating_point() or dtype is None:
            return tensor
        if dtype == self._narrow:
            return Shadow(tensor if tensor.dtype == self._dtype else tensor.to(self._dtype), dtype)
        return tensor if tensor.dtype == dtype else tensor.to(dtype)

    def _write_back(self) -> None:
        """What is no Shadow was given to the operator as a copy; where that was written to, so is the tensor."""
        written = {id(tensor) for tensor in written_by(self._func, self._args, self._kwargs)}
        for inner in self._held:
            owner = self._owners[id(inner)]
            if id(owner) in written and not isinstance(owner, Shadow):
                owner.copy_(inner)


_known: dict[Any, Dtypes] = {}


def result_dtypes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dtypes:
    """The dtype of each tensor that the operator gives for arguments of these dtypes, in order; None for one that is
    not floating.
    """
    key = (func, tuple(_traits((args, kwargs))))
    if key not in _known:
        _known[key] = _asked(func, args, kwargs)
    return _known[key]


def _traits(nest: Any) -> Iterator[Any]:
    """What the dtype of a result can depend on."""
    if isinstance(nest, Tensor):
        yield nest.dtype, nest.dim() == 0
    elif isinstance(nest, dict):
        yield tuple(nest)
        for item in nest.values():
            yield from _traits(item)
    elif isinstance(nest, (list, tuple)):
        for item in nest:
            yield from _traits(item)
    else:
        yield nest if isinstance(nest, (bool, torch.dtype)) else type(nest)


def _asked(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dtypes:
    def without_memory(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    def on_meta(nest: Any) -> Any:
        return rebuild(rebuild(nest, Tensor, without_memory), torch.device, lambda _: torch.device("meta"))

    try:
        given = tensors_in(func(*on_meta(args), **on_meta(kwargs)))
        return tuple(tensor.dtype if tensor.is_floating_point() else None for tensor in given)
    except Exception:  # noqa: BLE001 - an operator whose shape follows from values has no answer without these
        floats = [tensor.dtype for tensor in tensors_in((args, kwargs)) if tensor.is_floating_point()]
        widest = floats[0] if len(set(floats)) == 1 else torch.promote_types(*floats[:2]) if floats else None
        return (widest,) * len(func._schema.returns)
