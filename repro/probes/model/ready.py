"""A model that is in memory already, and the inputs that it is given, in the records that every step works with."""

import contextlib
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.resolve import Source
from ..machine.autocast import Autocast
from ..machine.chance import Chance
from ..values.figures import describe, tensors_in
from ..values.nest import rebuild
from .inputs import MASK, Inputs
from .kinds.facts import IDS
from .lent import Lent, Standing
from .load import Loaded, own_dtype

MEMORY = "memory"  # the kind of a source that is no file, and of inputs that nobody made


class Beginning:
    """What a pass of a module in memory draws from and may change: the random state, the module's buffers, attributes
    and inputs, as they were, and the autocast that it is in. Each pass begins with ``put``, so that all are alike.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, tensors: Iterable[Tensor] = ()) -> None:
        self.chance = Chance.taken()
        self.autocast = Autocast.taken()
        self.lent = Lent(tensors)
        self._model, self.own = model, dtype
        self._standing = Standing(model)
        self._buffers = [
            (module._buffers, name, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and not buffer.is_meta
        ]

    def put(self) -> None:
        """The module gets fresh buffers: its own may be part of a graph that the program has not gone back through.
        Under autocast each pass casts the weights itself, where an earlier one may have left them in its cache.
        """
        self.chance.put()
        torch.clear_autocast_cache()
        now = own_dtype(self._model) or self.own  # another one in an ablation: what had the module's goes along
        for held, name, values in self._buffers:
            held[name] = values.to(now, copy=True) if values.dtype == self.own else values.clone()
        self._standing.put(lambda tensor: tensor.to(now) if tensor.dtype == self.own else tensor)

    def put_buffers_back(self) -> None:
        """The module's own buffers hold again what they held."""
        with torch.no_grad():
            for held, name, values in self._buffers:
                now = held.get(name)
                if now is not None and now.shape == values.shape:
                    now.copy_(values)


@contextlib.contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Whatever passes are made inside, the module has its own buffers and what stood in its attributes afterwards, and
    the random state is as it was.
    """
    chance = Chance.taken()
    held = [(module._buffers, dict(module._buffers.items())) for module in model.modules()]
    standing = Standing(model)
    try:
        yield
    finally:
        standing.put_back()
        for buffers, before in held:
            for name, buffer in before.items():  # TorchScript's are no dict
                buffers[name] = buffer
        chance.put()
        torch.clear_autocast_cache()  # what a pass without gradients has cast belongs to no graph of the program's


@dataclass(frozen=True)
class Given(Inputs):
    """Inputs that somebody gave, exactly as they are.

    values: by the name of the argument; ids and mask stand in their own fields, which an ablation or a reduction
    changes. positional: those that the forward takes by place alone (``*args``). by_place: the names of those that were
    given by place, in order: hooks find them there. own: the model's dtype when they were
    given: inputs of that dtype go along where the model is brought to another one. gradients: whether they were
    recorded when the model was called. beginning: what each pass begins with.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] = ()
    by_place: tuple[str, ...] = ()
    own: torch.dtype = torch.float32
    gradients: bool = False
    beginning: Optional[Beginning] = None

    @property
    def is_cast(self) -> bool:
        return True

    def arguments(self, dtype: Optional[torch.dtype] = None) -> dict[str, Any]:
        given = {name: self._cast(value, dtype) for name, value in self.values.items()}
        return {**super().arguments(), **given, **dict(self.options)}

    def _cast(self, value: Any, dtype: Optional[torch.dtype]) -> Any:
        if dtype is None or not isinstance(value, Tensor) or value.dtype != self.own:
            return value
        return value.to(dtype)

    def call(self, model: nn.Module, given: Mapping[str, Any]) -> Any:
        lent = Lent(()) if self.beginning is None else self.beginning.lent
        autocast = Autocast() if self.beginning is None else self.beginning.autocast
        if self.beginning is not None:
            self.beginning.put()
        positional, named = lent.to_a_pass((self.positional, dict(given)))
        placed = list(itertools.takewhile(named.__contains__, self.by_place))
        positional = (*positional, *map(named.pop, placed))
        try:
            with torch.set_grad_enabled(self.gradients), autocast.again():
                return model(*positional, **named)
        finally:
            lent.put_back()

    def as_given(self, tensor: Tensor) -> Tensor:
        """The values of one of the tensors when the call was made."""
        return tensor if self.beginning is None else self.beginning.lent.as_given(tensor)

    def settled(self) -> "Given":
        """The same with the values of then, where the program has written to a tensor of its own since."""
        if self.beginning is None or self.beginning.lent.is_as_it_was:
            return self
        parts = (self.input_ids, self.attention_mask, dict(self.values), self.positional)
        ids, mask, values, positional = rebuild(parts, Tensor, self.as_given)
        return replace(self, input_ids=ids, attention_mask=mask, values=values, positional=positional)

    def of_a_model_in(self, own: torch.dtype) -> "Given":
        """The same, where this is the dtype that the model had when they were given."""
        if self.beginning is not None:
            self.beginning.own = own
        return replace(self, own=own)

    def record(self) -> dict[str, Any]:
        named = [*self.values.items(), *((f"argument {at}", value) for at, value in enumerate(self.positional))]
        rows = [(name, describe(self.as_given(tensor))) for name, value in named for tensor in tensors_in(value)]
        shown = [{"name": name, "shape": row["shape"], "dtype": row["dtype"], "made": "given"} for name, row in rows]
        ids = [] if self.input_ids is None or self.input_ids.shape[0] != 1 else self.input_ids[0].tolist()
        return {**super().record(), "seed": None, "input_ids": ids, "further": shown}


def ready(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None
) -> tuple[Loaded, Given]:
    """A module in memory and one call of it, as what a loaded model and its inputs are to all steps.

    Nothing of the module is changed or copied but its buffers.

    Raises:
        TypeError: the module's forward does not take such arguments; the message is Python's own.
    """
    values, positional, by_place = _by_name(model, args, dict(kwargs or {}))
    tensors = list(tensors_in([*values.values(), *positional]))
    held = next(itertools.chain(model.parameters(), tensors), None)
    device = torch.device("cpu") if held is None else held.device
    dtype = own_dtype(model) or next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    loaded = Loaded(
        model=model,
        class_name=type(model).__name__,
        source=Source(MEMORY, None),
        dtype=dtype,
        device=device,
        attn=getattr(getattr(model, "config", None), "_attn_implementation", None),
        info={},
    )
    ids, mask = (_taken(values, name) for name in (IDS, MASK))
    given = Given(
        None, MEMORY, ids, mask, values=values, positional=positional, by_place=by_place, own=dtype,
        gradients=torch.is_grad_enabled(), beginning=Beginning(model, dtype, tensors),
    )  # fmt: skip
    return loaded, given


def _taken(values: dict[str, Any], name: str) -> Optional[Tensor]:
    """The (batch, seq) tensor of this name, which is then no more among the others; None where there is none."""
    value = values.get(name)
    if not isinstance(value, Tensor) or value.dim() != 2:
        return None
    del values[name]
    return value


def _by_name(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Any, ...], tuple[str, ...]]:
    """The arguments by name, as far as the forward names them; the rest by place; the names of those that were given by
    place all the same.
    """
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # TorchScript keeps its own
        return kwargs, args, ()
    bound = signature.bind(*args, **kwargs)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    if any(kinds[name] is inspect.Parameter.VAR_POSITIONAL for name in bound.arguments):
        return kwargs, args, ()
    values: dict[str, Any] = {}
    positional: list[Any] = []
    by_place: list[str] = []
    for name, value in bound.arguments.items():
        if kinds[name] is inspect.Parameter.VAR_KEYWORD:
            values.update(value)
        elif kinds[name] is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            values[name] = value
            if len(positional) + len(by_place) < len(args):
                by_place.append(name)
    return values, tuple(positional), tuple(by_place)
