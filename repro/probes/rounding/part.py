"""A part of an operator's call that stands for the whole: fewer rows, columns, heads or elements, of which each is
computed from the same numbers.

What is small is taken whole. Of the rest the part is drawn by the call's address, so that a second run draws the same.
"""

import math
import random
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..reduce.program import functional
from ..values.figures import tensors_in, unravel
from ..values.nest import rebuild
from . import attention

SMALL = 1 << 14
"""Elements that are held against float64 for one call; also the weights of a product, eight times as many."""
ROWS = 32
"""Rows of a product, or of what works row by row."""
POINTWISE = getattr(torch.Tag, "pointwise", None)
COPIES = frozenset(("clone", "_to_copy", "copy", "where", "fill", "masked_fill", "zero"))  # they have no tag
PRODUCTS = {"mm": (0, 1, None), "bmm": (0, 1, None), "addmm": (1, 2, 0), "baddbmm": (1, 2, 0)}  # left, right, added
ROWWISE = {"_softmax": 1, "_log_softmax": 1, "mean": 1, "sum": 1, "native_layer_norm": 1, "linalg_vector_norm": 2}

ONCE = frozenset(
    (
        *(*PRODUCTS, *ROWWISE, *COPIES, "convolution", "native_group_norm", "native_batch_norm", "embedding", "cat"),
        *("var", "std", "var_mean"),
    )
) - {"_log_softmax"}
"""Operators of which each result of 16 bits is computed in float32 and rounded once, as those are that work element by
element. Any other may round inside: fused attention keeps its probabilities in 16 bits (Dao, FlashAttention-2), a whole
transformer layer each of its steps, the CPU's log-softmax its sum of exponentials (ATen/native/cpu/SoftMaxKernel.cpp),
and what is added up in the result's own memory is rounded each time."""

PYTORCHS = ("aten", "prims")
"""Namespaces of PyTorch's own operators."""

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A call of its own: ``func`` with these arguments gives what ``take`` takes out of the program's results.

    take: from the operator's floating results to those of the part. place: from (result, index in the part's) to the
    index in the operator's. length: how many numbers each result is made of. formula: whether ``func`` is a formula of
    the kit. undefined: where the operator's result is a matter of its definition. Of a whole call ``is_whole``.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    take: Callable[[list[Tensor]], list[Tensor]]
    place: Callable[[int, Index], Index]
    length: int
    formula: bool = False
    undefined: Optional[Tensor] = None
    is_whole: bool = False

    @property
    def name(self) -> str:
        """ "mm" of "aten::mm"; empty for a formula of the kit."""
        return "" if self.formula else str(self.func._schema.name.split("::")[-1])  # type: ignore[attr-defined]

    @property
    def device(self) -> str:
        """Of its tensors."""
        return next((tensor.device.type for tensor in tensors_in((self.args, self.kwargs))), "cpu")

    @property
    def is_foreign(self) -> bool:
        """Whether the operator is of a library of its own."""
        return not self.formula and str(self.func._schema.name).split("::")[0] not in PYTORCHS  # type: ignore[attr-defined]

    @property
    def rounds_once(self) -> bool:
        """Whether the operator is known to compute a result of 16 bits in float32."""
        if self.formula:
            return False
        return self.name in ONCE or (POINTWISE is not None and POINTWISE in self.func.tags)  # type: ignore[attr-defined]


def part_of(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seed: str, results: Optional[list[Tensor]], small: float
) -> Optional[Part]:
    """A part of this call; None where it is too large and no part of it is known.

    results: the operator's, where it has run; None before one that writes to its arguments. small: elements that are
    taken whole.
    """
    again = functional(func)
    if again is None:
        return None
    name = func._schema.name.split("::")[-1].rstrip("_")
    draw = random.Random(seed)
    if attention.is_attention(func):
        return _of_attention(func, args, kwargs, draw, small)
    tensors = list(tensors_in((args, kwargs)))
    size = sum(tensor.numel() for tensor in tensors) + sum(tensor.numel() for tensor in results or ())
    if name == "embedding" and not kwargs and size > small:
        return _of_embedding(again, args, draw)
    if size <= small:
        return _whole(again, args, kwargs, tensors, results)
    if name in PRODUCTS:
        return _of_product(again, name, args, kwargs, draw, results, small)
    if name in COPIES or (POINTWISE is not None and POINTWISE in func.tags):
        return _of_elements(again, args, kwargs, draw)
    if name == "convolution" and len(args) == 9 and not args[6] and args[8] == 1:
        return _of_channels(again, args, kwargs, draw, small)
    if name in ROWWISE:
        found = _of_rows(again, name, args, kwargs, draw)
        if found is not None:
            return found
    return _whole(again, args, kwargs, tensors, results) if size <= 64 * small else None


def _whole(again: Any, args: Any, kwargs: Any, tensors: list[Tensor], results: Optional[list[Tensor]]) -> Part:
    return Part(
        again, args, kwargs, lambda given: given, lambda _, index: index, _length(tensors, results), is_whole=True
    )


def _length(tensors: list[Tensor], results: Optional[list[Tensor]]) -> int:
    """How many numbers a result is made of, at most: the largest input's for each, or a whole last dimension."""
    made = max((tensor.numel() for tensor in results or ()), default=0)
    largest = max((tensor.numel() for tensor in tensors), default=1)
    last = max((tensor.shape[-1] for tensor in tensors if tensor.dim()), default=1)
    return max(1, last, largest // made if made else 1)


def _chosen(draw: random.Random, count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` numbers, in order, and at least three where it is not one; then the first and the last
    are among them.
    """
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [draw.randrange(count)]
    return sorted({0, count - 1, *draw.sample(range(1, count - 1), max(1, wanted - 2))})


def _of_product(
    again: Any, name: str, args: Any, kwargs: Any, draw: random.Random, results: Optional[list[Tensor]], small: float
) -> Part:
    """Some rows and columns, each over its whole length; of a batch of products, some.

    The column of each row's largest result is among them: that is the token that a model says.
    """
    at_left, at_right, at_added = PRODUCTS[name]
    left, right = args[at_left], args[at_right]
    shape = (*left.shape[:-1], right.shape[-1])
    batch = _chosen(draw, shape[0], ROWS // 4) if len(shape) == 3 else None
    rows = _chosen(draw, shape[-2], ROWS)
    columns = set(_chosen(draw, shape[-1], max(ROWS, int(8 * small) // max(1, left.shape[-1] * len(batch or "1")))))
    if results is not None and shape[-1] > len(columns):
        made = results[0] if batch is None else results[0][batch]
        largest = made.index_select(-2, torch.tensor(rows, device=made.device)).argmax(-1)
        columns |= set(largest.reshape(-1).tolist()[:ROWS])
    column = sorted(columns)

    def cut(tensor: Tensor, dims: tuple[tuple[int, list[int]], ...]) -> Tensor:
        tensor = tensor if batch is None else tensor[batch]
        for dim, kept in dims:
            if tensor.shape[dim] != len(kept):
                tensor = _selected(tensor, dim, torch.tensor(kept, device=tensor.device))
        return tensor

    both = ((-2, rows), (-1, column))
    new = list(args)
    new[at_left], new[at_right] = cut(left, both[:1]), cut(right, both[1:])
    if at_added is not None:
        new[at_added] = cut(args[at_added].expand(shape), both)

    def place(_: int, index: Index) -> Index:
        inner = (rows[index[-2]], column[index[-1]])
        return inner if batch is None else (batch[index[0]], *inner)

    return Part(again, tuple(new), kwargs, lambda given: [cut(given[0], both)], place, left.shape[-1])


def _selected(tensor: Tensor, dim: int, kept: Tensor) -> Tensor:
    """Rows or columns; of a transposed matrix those that lie in one piece are read as such."""
    if tensor.dim() == 2 and tensor.stride(0) == 1 and dim == -1:
        return tensor.t().index_select(0, kept).t()
    return tensor.index_select(dim, kept)


def _of_elements(again: Any, args: Any, kwargs: Any, draw: random.Random) -> Optional[Part]:
    """Some elements of what works element by element. Tensors of no dimension stay: they do not take part in the
    result's dtype.
    """
    tensors = list(tensors_in((args, kwargs)))
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    count = math.prod(shape)
    wanted = min(SMALL // 4, count)
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    flat = torch.cat([torch.tensor([0, count - 1]), torch.randint(count, (wanted,), generator=generator)])
    places, rest = [], flat
    for size in reversed(shape):
        places.append(rest % size)
        rest = rest // size
    where = tuple(reversed(places))

    def cut(tensor: Tensor) -> Tensor:
        return tensor if tensor.dim() == 0 else tensor.expand(shape)[tuple(at.to(tensor.device) for at in where)]

    if all(tensor.dim() == 0 for tensor in tensors):
        return None
    new = rebuild((args, kwargs), Tensor, cut)
    return Part(
        again,
        new[0],
        {key: value for key, value in new[1].items() if key != "memory_format"},
        lambda given: [cut(tensor) if tensor.shape == shape else tensor for tensor in given],
        lambda _, index: tuple(int(at[index[0]]) for at in where),
        1,
    )


def _of_embedding(again: Any, args: Any, draw: random.Random) -> Part:
    """The rows of some ids."""
    weight, ids = args[0], args[1].reshape(-1)
    kept = torch.tensor(_chosen(draw, ids.numel(), max(1, SMALL // max(1, weight.shape[-1]))), device=ids.device)
    shape = tuple(args[1].shape)

    def place(_: int, index: Index) -> Index:
        return (*unravel(int(kept[index[0]]), shape), index[1])

    def take(given: list[Tensor]) -> list[Tensor]:
        return [given[0].reshape(-1, weight.shape[-1])[kept]]

    return Part(again, (weight[ids[kept]], torch.arange(len(kept), device=ids.device)), {}, take, place, 1)


def _of_channels(again: Any, args: Any, kwargs: Any, draw: random.Random, small: float) -> Part:
    """Some channels of a convolution's result, of the first examples."""
    given, weight, bias = args[:3]
    length = weight[0].numel()
    each = max(1, given[0].numel() // max(1, given.shape[1]))
    channels = _chosen(draw, weight.shape[0], max(2, int(8 * small) // max(1, each)))
    kept = torch.tensor(channels, device=weight.device)
    new = (given[:1], weight[kept], None if bias is None else bias[kept], *args[3:])
    return Part(
        again,
        new,
        kwargs,
        lambda made: [made[0][:1].index_select(1, kept)],
        lambda _, index: (0, channels[index[1]], *index[2:]),
        length,
    )


def _of_rows(again: Any, name: str, args: Any, kwargs: Any, draw: random.Random) -> Optional[Part]:
    """Some rows of what works along the last dimension alone."""
    given = args[0]
    dims = args[ROWWISE[name]] if len(args) > ROWWISE[name] else None
    along = dims if isinstance(dims, (list, tuple)) else [dims]
    last = given.shape[-1] if name == "native_layer_norm" else given.dim() - 1
    if given.dim() < 2 or list(along) not in ([last], [-1]) or (name == "native_layer_norm" and len(args) < 4):
        return None
    shape = given.shape[:-1]
    rows = _chosen(draw, math.prod(shape), max(ROWS // 4, SMALL // max(1, given.shape[-1])))
    kept = torch.tensor(rows, device=given.device)

    def take(made: list[Tensor]) -> list[Tensor]:
        return [
            tensor.reshape((-1,) if tensor.dim() < given.dim() else (math.prod(shape), -1))[kept] for tensor in made
        ]

    def place(_: int, index: Index) -> Index:
        return (*unravel(rows[index[0]], shape), *index[1:])

    new = list(args)
    new[0] = given.reshape(-1, given.shape[-1])[kept]
    if name != "native_layer_norm":
        new[ROWWISE[name]] = 1 if dims is along[0] else [1]
    return Part(again, tuple(new), kwargs, take, place, given.shape[-1])


def _of_attention(func: Any, args: Any, kwargs: Any, draw: random.Random, small: float) -> Optional[Part]:
    """Some examples and heads of a fused attention; None where an argument says what is not known here."""
    given = attention.arguments(func, args, kwargs)
    if given is None:
        return None
    query, key = given["query"], given["key"]
    each = query.shape[2] * (key.shape[2] + query.shape[3]) + key.shape[2] * (key.shape[3] + given["value"].shape[3])
    wanted = max(1, int(4 * small) // max(1, each))
    heads = _chosen(draw, query.shape[1], min(query.shape[1], wanted))
    examples = _chosen(draw, query.shape[0], max(1, wanted // len(heads)))
    cut = attention.part(given, examples, heads)
    undefined = attention.masked_rows(cut)
    named = {name: cut[name] for name in (*attention.NAMES, "mask", "is_causal", "scale")}
    return Part(
        attention.formula,
        (),
        named,
        lambda made: [made[0][examples][:, heads]],
        lambda _, index: (examples[index[0]], heads[index[1]], *index[2:]),
        key.shape[2] + query.shape[3],
        formula=True,
        undefined=undefined,
    )
