"""What a call was given, kept as it was: a module may work in place on its inputs, and the pass that is made again must
be given what the first one was.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

PLAIN = (Tensor, bool, int, float, str, bytes, list, tuple, dict, torch.dtype, torch.device, type(None))
NESTS = (list, tuple, dict)  # exactly these: what is built on them may do more than hold


@dataclass
class _Kept:
    """A tensor of the program, and its values when it was given. version: how often it had been written to then; None
    where that does not tell whether it has been since.
    """

    own: Tensor
    version: Optional[int]
    values: Tensor

    @property
    def is_as_it_was(self) -> bool:
        return self.version is not None and self.own._version == self.version


class Lent:
    """The tensors that a call was given.

    A pass gets the program's own ones as long as nobody has written to them, so that their memory is what it was; a
    copy of the values from then on.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._kept = {id(tensor): _kept(tensor) for tensor in tensors}
        self._lent: list[_Kept] = []

    @property
    def is_as_it_was(self) -> bool:
        """Whether nobody has written to any of them."""
        return all(kept.is_as_it_was for kept in self._kept.values())

    def as_given(self, tensor: Tensor) -> Tensor:
        """Its values when the call was made. Not to be written to."""
        kept = self._kept.get(id(tensor))
        return tensor if kept is None or kept.own is not tensor or kept.is_as_it_was else kept.values

    def to_a_pass(self, nest: Any) -> Any:
        """The nest with what a pass may write to: one tensor that stands at several places stays one."""
        return _rebuilt(nest, self._tensor, {})

    def put_back(self) -> None:
        """The program's own tensors, which a pass had, hold again what they held."""
        for kept in self._lent:
            if not kept.is_as_it_was:
                kept.version = None  # copies from now on
                with torch.no_grad():
                    kept.own.detach().copy_(kept.values)
        self._lent.clear()

    def _tensor(self, tensor: Tensor) -> Tensor:
        kept = self._kept.get(id(tensor))
        if kept is not None and kept.own is tensor and kept.is_as_it_was:
            self._lent.append(kept)
            return tensor
        return _copy(tensor if kept is None or kept.own is not tensor else kept.values)


def _kept(tensor: Tensor) -> _Kept:
    return _Kept(tensor, None if tensor.is_inference() else tensor._version, _copy(tensor))


def _copy(tensor: Tensor) -> Tensor:
    """Of its own memory and no graph."""
    if tensor.is_meta:
        return tensor
    copied = tensor.detach().clone()
    return copied.requires_grad_() if tensor.requires_grad else copied


def _rebuilt(nest: Any, make: Callable[[Tensor], Tensor], made: dict[int, Tensor]) -> Any:
    if isinstance(nest, Tensor):
        if id(nest) not in made:
            made[id(nest)] = make(nest)
        return made[id(nest)]
    if type(nest) is dict:
        return {key: _rebuilt(item, make, made) for key, item in nest.items()}
    if type(nest) in NESTS:
        return type(nest)(_rebuilt(item, make, made) for item in nest)
    return nest if isinstance(nest, PLAIN) and not isinstance(nest, NESTS) else _own(nest)


def _own(value: Any) -> Any:
    """A copy of what a pass would change, such as a key-value cache; the value itself where it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - an object of the program's own, which may refuse for any reason
        return value
