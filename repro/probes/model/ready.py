"""A model that is in memory already, and the inputs that it is given, in the records that every step works with."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.resolve import Source
from ..values.figures import describe, is_float, tensors_in
from .inputs import IDS, Inputs
from .load import Loaded, dtype_of

MEMORY = "memory"  # the kind of a source that is no file, and of inputs that nobody made
MASK = "attention_mask"


@dataclass(frozen=True)
class Given(Inputs):
    """Inputs that somebody gave, exactly as they are.

    values: by the name of the argument; ids and mask stand in their own fields, which an ablation or a reduction
    changes. positional: those that the forward takes by place alone (``*args``). own: the model's dtype when they were
    given: inputs of that dtype go along where the model is brought to another one.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] = ()
    own: torch.dtype = torch.float32

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
        return model(*self.positional, **given)

    def record(self) -> dict[str, Any]:
        named = [*self.values.items(), *((f"argument {at}", value) for at, value in enumerate(self.positional))]
        rows = [(name, describe(tensor)) for name, value in named for tensor in tensors_in(value)]
        shown = [{"name": name, "shape": row["shape"], "dtype": row["dtype"], "seed": None} for name, row in rows]
        ids = [] if self.input_ids is None or self.input_ids.shape[0] != 1 else self.input_ids[0].tolist()
        return {**super().record(), "seed": None, "input_ids": ids, "further": shown}


def ready(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None
) -> tuple[Loaded, Given]:
    """A module in memory and one call of it, as what a loaded model and its inputs are to all steps.

    Nothing of the module is changed or copied.

    Raises:
        TypeError: the module's forward does not take such arguments; the message is Python's own.
    """
    values, positional = _by_name(model, args, dict(kwargs or {}))
    first = next((tensor for tensor in tensors_in(list(values.values()) + list(positional))), None)
    parameter = next(model.parameters(), None)
    floating = next((tensor for tensor in tensors_in([*values.values(), *positional]) if is_float(tensor)), None)
    dtype = dtype_of(model) if parameter is not None else torch.float32 if floating is None else floating.dtype
    device = parameter.device if parameter is not None else torch.device("cpu") if first is None else first.device
    config = getattr(model, "config", None)
    loaded = Loaded(
        model=model,
        class_name=type(model).__name__,
        source=Source(MEMORY, None),
        dtype=dtype,
        device=device,
        attn=getattr(config, "_attn_implementation", None),
        info={},
    )
    ids, mask = (_taken(values, name) for name in (IDS, MASK))
    return loaded, Given(None, MEMORY, ids, mask, values=values, positional=positional, own=dtype)


def _taken(values: dict[str, Any], name: str) -> Optional[Tensor]:
    """The (batch, seq) tensor of this name, which is then no more among the others; None where there is none."""
    value = values.get(name)
    if not isinstance(value, Tensor) or value.dim() != 2:
        return None
    del values[name]
    return value


def _by_name(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The arguments by name, as far as the forward names them; the rest by place."""
    parameters = inspect.signature(model.forward).parameters
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    if any(parameters[name].kind is inspect.Parameter.VAR_POSITIONAL for name in bound.arguments):
        return kwargs, args
    values: dict[str, Any] = {}
    positional: list[Any] = []
    for name, value in bound.arguments.items():
        kind = parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            values.update(value)
        elif kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            values[name] = value
    return values, tuple(positional)
