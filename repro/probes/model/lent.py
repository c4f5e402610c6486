"""What a call was given and what it begins with, kept as it was: a module may work in place on its inputs, and keep a
state in its attributes; the pass that is made again must be given what the first one was.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

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
    if tensor.is_meta or has_no_memory(tensor):
        return tensor
    copied = tensor.detach().clone()
    return copied.requires_grad_() if tensor.requires_grad else copied


def has_no_memory(tensor: Tensor) -> bool:
    """Whether the memory behind a tensor was given back, as FSDP1 does between two passes: a read of it ends the
    process.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or not tensor.numel():
        return False
    return tensor.untyped_storage().nbytes() == 0


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


OWN = frozenset(vars(nn.Module()))  # of every module: its parameters, buffers, modules, hooks and mode
MOST = 10_000  # items of a container that is kept
ATTRIBUTE = re.compile(r"self\.(\w+)")


class Standing:
    """What modules keep in plain attributes from one call to the next: the state of a recurrent network, a counter, a
    list that grows. Names, switches and objects are left alone: these are settings.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [
            (vars(module), {name: value for name, value in vars(module).items() if name not in OWN and _stands(value)})
            for module in model.modules()
            if not isinstance(module, torch.jit.ScriptModule)
        ]
        self._scripted = list(_scripted(model))
        self._copies: list[Any] = _copies([[values for _, values in self._held], [row[2] for row in self._scripted]])

    def put(self, cast: Callable[[Tensor], Tensor]) -> None:
        """They hold what they held, in memory of their own. cast: brings a tensor to the dtype that the model has by
        now.
        """
        plain, scripted = _copies(self._copies, cast)
        for (now, _), values in zip(self._held, plain):
            _put(now, values)
        for (module, name, _), value in zip(self._scripted, scripted):
            module._c.setattr(name, value)

    def put_back(self) -> None:
        """They have the very objects again that they had."""
        for now, values in self._held:
            _put(now, values)
        for module, name, value in self._scripted:
            module._c.setattr(name, value)


def _stands(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not isinstance(value, nn.Parameter)
    if type(value) in NESTS:
        return len(value) <= MOST
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _put(now: dict[str, Any], values: dict[str, Any]) -> None:
    """Where another value stands in an attribute, or one in an attribute that there was not, put that right."""
    for name in [name for name, value in now.items() if name not in OWN and name not in values and _stands(value)]:
        del now[name]
    for name, value in values.items():
        if name not in now or (now[name] is not value and _stands(now[name])):
            now[name] = value


def _copies(nest: Any, cast: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """Containers and tensors anew; what stands at several places stays one."""
    made: dict[int, Any] = {}

    def copied(item: Any) -> Any:
        if id(item) in made:
            return made[id(item)]
        if isinstance(item, Tensor):
            found: Any = item if isinstance(item, nn.Parameter) else _copy(cast(item))
        elif type(item) is dict:
            found = {key: copied(value) for key, value in item.items()}
        elif type(item) in NESTS:
            found = type(item)(copied(value) for value in item)
        else:
            return item
        made[id(item)] = found
        return found

    return copied(nest)


def _scripted(model: nn.Module) -> Iterator[tuple[Any, str, Tensor]]:
    """(module, name, value) of the tensors that TorchScript modules keep beside their parameters and buffers."""
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            continue
        inner: Any = module
        known = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
        code = "".join(inner._c._get_method(name).code for name in inner._c._method_names())
        for name in dict.fromkeys(ATTRIBUTE.findall(code)):
            value = inner._c.getattr(name) if name not in known and inner._c.hasattr(name) else None
            if isinstance(value, Tensor):
                yield module, name, value
