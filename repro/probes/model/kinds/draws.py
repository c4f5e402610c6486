"""How one input beside the token ids is made, what it then is, and what stands for it among the token ids."""

import math
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import torch
from torch import Tensor

from ...values.figures import dtype_name, is_float

Shape = tuple[int, ...]

NORMAL, WHOLE, ONES, EXACT, ORDERED = "normal", "whole", "ones", "exact", "ordered"
TOKENS = -1  # in a shape: as many as there are token ids
KINDS = {1: "picture", 2: "video", 3: "sound"}
MOST_VALUES = 512  # numbers of one input that travel in the record


@dataclass(frozen=True)
class Further:
    """One input beside the token ids.

    seed, made: "normal" numbers, or "whole" ones ``below`` a bound, come from a generator of their own, "ones" and
    "exact" ones from none, and then the seed is None; so it is with what is read from a file ("file", "image",
    "audio"). stored: its dtype there. by_token: its second dimension has a place for each token id.
    """

    name: str
    tensor: Tensor
    seed: Optional[int]
    made: str = NORMAL
    below: int = 0
    by_token: bool = False
    stored: Optional[str] = None

    def at(self, positions: Union[slice, list[int]]) -> "Further":
        """The same for the tokens at these positions."""
        return replace(self, tensor=self.tensor[:, positions]) if self.by_token else self

    def record(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.tensor.shape),
            "dtype": dtype_name(self.tensor.dtype),
            "seed": self.seed,
        }
        if self.made != NORMAL:
            row["made"] = self.made
        if self.made == WHOLE:
            row["below"] = self.below
        if self.stored is not None:
            row["stored"] = self.stored
        if self.made in (EXACT, "file") and self.tensor.numel() <= MOST_VALUES:
            row["values"] = plain(self.tensor.tolist())
        return row


def plain(values: Any) -> Any:
    """A nest of numbers; those that are not finite as words."""
    if isinstance(values, list):
        return [plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return str(values)
    return values


@dataclass(frozen=True)
class Draw:
    """A recipe for one input.

    made: as in ``Further``; "ordered" are ``groups`` numbers from 0 to below the bound, each no larger than the one
    ``groups / 2`` behind it, as the corners of a box are. dtype: where it is not the model's own.
    """

    name: str
    shape: Shape
    made: str = NORMAL
    below: int = 0
    values: Any = None
    dtype: Optional[torch.dtype] = None

    @property
    def by_token(self) -> bool:
        return TOKENS in self.shape

    def further(self, seed: int, dtype: torch.dtype, device: torch.device, tokens: int) -> Further:
        """The input itself, drawn on the CPU in float32 or int64, then cast."""
        shape = tuple(tokens if size == TOKENS else size for size in self.shape)
        generator = torch.Generator().manual_seed(seed)
        drawn, made = True, self.made
        if self.made == NORMAL:
            tensor = torch.randn(shape, generator=generator)
        elif self.made == WHOLE:
            tensor = torch.randint(0, max(self.below, 1), shape, generator=generator)
        elif self.made == ORDERED:
            tensor, made = _ordered(torch.rand(shape, generator=generator) * self.below, self.dtype), EXACT
        else:
            drawn = False
            tensor = torch.ones(shape) if self.made == ONES else torch.tensor(self.values).reshape(shape)
        own = self.dtype or (tensor.dtype if self.made == WHOLE else dtype)
        tensor = tensor.to(device=device, dtype=own)
        return Further(self.name, tensor, seed if drawn else None, made, self.below, self.by_token)


def _ordered(corners: Tensor, dtype: Optional[torch.dtype]) -> Tensor:
    if dtype is not None and not dtype.is_floating_point:
        corners = corners.floor()
    half = corners.shape[-1] // 2
    one, two = corners[..., :half], corners[..., half:]
    return torch.cat([torch.minimum(one, two), torch.maximum(one, two)], dim=-1)


@dataclass(frozen=True)
class Mark:
    """``count`` times the token ``id``, between ``before`` and ``after``, in front of the text: what stands for a
    picture or a sound among the ids. kind: its number in an input of token types.
    """

    id: int
    count: int
    before: Optional[int] = None
    after: Optional[int] = None
    kind: int = 1

    @property
    def ids(self) -> list[int]:
        ends = [[] if end is None else [end] for end in (self.before, self.after)]
        return [*ends[0], *[self.id] * self.count, *ends[1]]

    @property
    def words(self) -> list[str]:
        """What is shown in place of each of these tokens."""
        name = f"<{KINDS[self.kind]}>"
        ends = [[] if end is None else [f"<{word}>"] for end, word in ((self.before, "begin"), (self.after, "end"))]
        return [*ends[0], *[name] * self.count, *ends[1]]


@dataclass(frozen=True)
class Part:
    """Inputs that go together, and what stands for them among the ids."""

    draws: tuple[Draw, ...]
    marks: tuple[Mark, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(draw.name for draw in self.draws)


@dataclass(frozen=True)
class Takes:
    """What a model is given: token ids or not, and more beside them; ``types`` names inputs that tell the tokens of a
    picture from those of a text; ``without`` is what it takes too and is not given.
    """

    ids: bool = True
    parts: tuple[Part, ...] = ()
    types: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs beside the ids."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(mark for part in self.parts for mark in part.marks)


IDS_ALONE = Takes()


def token_types(name: str, ids: Tensor, marks: tuple[Mark, ...]) -> Further:
    """1 for each token that stands for a picture (2 for a video), 0 for all others."""
    types = torch.zeros_like(ids)
    for mark in marks:
        types[ids == mark.id] = mark.kind
    return Further(name, types, None, EXACT, by_token=True)


def cast(tensor: Tensor, dtype: Optional[torch.dtype]) -> Tensor:
    """In ``dtype``, where it holds floating numbers."""
    return tensor if dtype is None or not is_float(tensor) else tensor.to(dtype)
