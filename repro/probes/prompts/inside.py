"""Which module gives a token's row its first bad value: an embedding before the layers, or a module inside the first
bad one.

A layer's output says where attention has carried a bad value as well. So the modules that come before, and those inside
the layer, are looked at in the order in which they end: the first with a bad row has the token whose own row it is. A
module that was given the bad row did not make it: the code around it did, which is that of the module it lies in.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..observe.screen import blocks
from ..values.figures import is_float, tensors_in, widen
from .batches import Batch, Enough, forward, in_decoder


@dataclass(frozen=True)
class Call:
    """One call of a module that gives a row for each token. bad: (batch, seq), whether a row holds a NaN or Inf, on the
    CPU; given: the same of the rows that it was given. decoder: whether the tokens are those of an encoder-decoder's
    decoder. outside: of all layers.
    """

    module: str
    bad: Tensor
    given: Tensor
    decoder: bool
    outside: bool


def calls_of(model: nn.Module, batch: Batch, layers: Sequence[str], first: Sequence[int], whole: bool) -> list[Call]:
    """The calls outside of all layers, and inside those that are bad first; ``first`` are their numbers in ``layers``.
    One more pass, which ends behind the last of these layers, unless the ``whole`` of it is wanted.

    Where only some of a model's layers are looked at, those between a bad one and the sound one before belong to it.
    """
    every = blocks(model)
    opened = {name for at in first for name in _between(every, layers, at)}
    closed = tuple(name + "." for name in every if name not in opened)
    names = {
        id(module): name
        for name, module in model.named_modules()
        if name and not (name + ".").startswith(closed or ("\0",))
    }
    last = layers[max(first)] if first else None
    found: list[tuple[str, Tensor, Optional[Tensor], bool]] = []
    taken: dict[str, Optional[Tensor]] = {}

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:  # now: the module may write in place
            taken[name] = _any_rows(tensors_in((args, kwargs)), batch)

        return hook

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            rows = next((rows for rows in (_rows(t, batch) for t in tensors_in(output)) if rows is not None), None)
            if rows is not None:
                found.append((name, rows, taken.get(name), _is_decoders(name, args, batch)))
            if name == last and not whole:
                raise Enough

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_pre_hook(before(name), with_kwargs=True) for name in names.values()]
    handles += [modules[name].register_forward_hook(hook_for(name)) for name in names.values()]
    with _hooks(handles), contextlib.suppress(Enough):
        forward(model, batch)
    shape, inner = batch.mask.shape, tuple(name + "." for name in every)
    none = torch.zeros(shape, dtype=torch.bool)
    return [
        Call(
            name,
            rows.expand(shape).cpu(),
            none if given is None else given.expand(shape).cpu(),
            decoder,
            not (inner and (name + ".").startswith(inner)),
        )
        for name, rows, given, decoder in found
    ]


def _any_rows(tensors: Iterable[Tensor], batch: Batch) -> Optional[Tensor]:
    """Whether a token's row is bad in any of the tensors; None where none of them has rows of tokens."""
    found: Optional[Tensor] = None
    for tensor in tensors:
        rows = _rows(tensor, batch)
        if rows is not None:
            found = rows if found is None else found | rows
    return found


def maker_of(model: nn.Module, call: Call, row: int, column: int) -> Optional[str]:
    """The module that gives the row its first bad value, where ``call`` is the first that has it; None for code of the
    model's own, outside of all its modules.
    """
    path = call.module
    if not bool(call.given[row, column]):
        return path
    while path:
        path = path.rpartition(".")[0]
        if path and not isinstance(model.get_submodule(path), (nn.ModuleList, nn.ModuleDict)):
            return path
    return None


def _between(every: list[str], layers: Sequence[str], at: int) -> list[str]:
    """The layer, and those of the model before it that nobody looked at."""
    if layers[at] not in every:
        return [layers[at]]
    end = every.index(layers[at])
    before = every.index(layers[at - 1]) if at and layers[at - 1] in every else -1
    return every[before + 1 : end + 1]


@contextlib.contextmanager
def _hooks(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(tensor: Tensor, batch: Batch) -> Optional[Tensor]:
    """Whether each token's row is bad: (batch or 1, seq); None where the tensor has no row for each token.

    Positions are embedded once for all examples, and experts are fed all tokens in one line.
    """
    size, length = batch.mask.shape
    if not is_float(tensor):
        return None
    if tensor.dim() >= 3 and tensor.shape[0] in (1, size) and tensor.shape[1] == length:
        rows = tensor.detach().flatten(2)
    elif tensor.dim() == 2 and tensor.shape[0] == size * length:
        rows = tensor.detach().reshape(size, length, -1)
    else:
        return None
    return ~torch.isfinite(widen(rows)).all(-1)


def _is_decoders(name: str, args: Any, batch: Batch) -> bool:
    """An embedding that both sides share has no side in its path: what it is given tells."""
    if batch.decoder_ids is None or in_decoder(name):
        return batch.decoder_ids is not None
    ids = args[0] if args and isinstance(args[0], Tensor) else None
    return ids is not None and ids.shape == batch.decoder_ids.shape and bool((ids == batch.decoder_ids).all())


def first_of(calls: Sequence[Call], row: int, wanted: Tensor, own: Tensor) -> Optional[tuple[int, int]]:
    """The number of the first call with a bad row among an example's tokens, and the column of that row.

    wanted: (seq,), the rows that are bad in the layer's output; own: (seq,), the tokens that count. A call whose bad
    rows do not stay bad is none: what it gives is absorbed, as the -inf of a router's mask is.
    """
    for number, call in enumerate(calls):
        bad = call.bad[row] & own
        if bool(bad.any()) and not bool((bad & ~wanted).any()):
            return number, int(bad.nonzero()[0, 0])
    return None
