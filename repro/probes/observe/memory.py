"""Something known of each piece of memory, for as long as that lives."""

import weakref
from typing import Any, Callable, Generic, Optional, TypeVar

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .tape import unreadable

T = TypeVar("T")


class ByMemory(Generic[T]):
    """Values by the memory behind a tensor; views of one tensor have one value.

    An address alone would not do: once a tensor is freed, its address is given to another one, which may be made where
    no operator is seen (the scalar in ``x[:, 0] = 3.0``), and would then pass for the first. A weak reference to the
    storage tells them apart. A tensor whose elements cannot be read from its memory stands for itself.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[Tensor], bool], T]] = {}

    def get(self, tensor: Tensor) -> Optional[T]:
        """What was put there; None for memory of which nothing is known."""
        known = self._known.get(memory_of(tensor))
        return known[1] if known is not None and known[0](tensor) else None

    def put(self, tensor: Tensor, value: T) -> None:
        self._known[memory_of(tensor)] = (_same_as(tensor), value)


def memory_of(tensor: Tensor) -> int:
    """The address of the memory behind a tensor, for as long as that lives."""
    return id(tensor) if unreadable(tensor) else int(tensor.untyped_storage().data_ptr())


def _same_as(tensor: Tensor) -> Callable[[Tensor], bool]:
    """Whether another tensor at that place has the very memory of this one, which still lives."""
    if unreadable(tensor):
        itself: Any = weakref.ref(tensor)
        return lambda other: itself() is other
    storage = StorageWeakRef(tensor.untyped_storage())
    # Not expired: a storage of no bytes has the address 0, as all of them have.
    return lambda other: not storage.expired() and storage == StorageWeakRef(other.untyped_storage())
