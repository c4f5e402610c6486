"""A recording of every operator inside one module call, from which any tensor can be had again as it was at any moment.

Tensors are kept by reference. Before an operator writes into memory, that memory is copied once, so that what was
read earlier stays what it was. Views are not writers: a value's writer is the last operator that wrote to its bytes.
Whether a result was bad is looked at when it is written: memory that is bad later, and that no operator wrote to in
between, was written by something that is no operator.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..values.figures import is_bad, is_float, is_wrapped, tensors_in
from ..values.nest import items_in, opened, rebuild
from .source import Place, short, source_place
from .watch import PLAIN, Address, OpCall, StopPass, Watch, watched


@dataclass
class Store:
    """One piece of memory. ``epoch`` counts the writes seen; ``snapshots`` holds the bytes as they were in an epoch
    that is over.
    """

    storage: Any
    device: torch.device
    epoch: int = 0
    snapshots: dict[int, Any] = field(default_factory=dict)
    writers: list[tuple[int, "Ref"]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Ref:
    """A tensor as it was at one moment: where its elements lie, and in which epoch of their memory.

    was_bad: of an operator's result, whether it held a NaN or Inf when the operator had just given it. nested: sizes,
    strides and offsets of the parts of a nested tensor; the Ref is then of all the memory behind it, in one dimension.
    """

    store: Store
    epoch: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    itemsize: int
    was_bad: Optional[bool] = None
    nested: Optional[tuple[Tensor, Tensor, Tensor]] = None

    def tensor(self) -> Tensor:
        """The values of that moment. Not to be written to."""
        storage = self.store.snapshots.get(self.epoch, self.store.storage)
        return torch.empty(0, dtype=self.dtype, device=self.store.device).set_(
            storage, self.offset, self.shape, self.stride
        )

    def as_given(self, values: Tensor) -> Tensor:
        """``values`` in the form in which the operator was given this tensor."""
        if self.nested is None:
            return values
        made: Tensor = torch._nested_view_from_buffer(values.contiguous(), *self.nested)
        return made

    def byte_of(self, index: list[int]) -> int:
        """Where an element begins; for a complex one, where the part begins that is not finite, if only one is not."""
        begin = (self.offset + sum(i * step for i, step in zip(index, self.stride))) * self.itemsize
        if self.dtype.is_complex and math.isfinite(self.tensor()[tuple(index)].real.item()):
            return begin + self.itemsize // 2
        return begin

    def index_of(self, byte: int) -> Optional[list[int]]:
        """The element that lies at ``byte`` of the memory (a complex one: at either of its parts), or None.

        For overlapping strides, the first such element.
        """
        if byte % (self.itemsize // 2 if self.dtype.is_complex else self.itemsize):
            return None
        rest = byte // self.itemsize - self.offset
        if rest < 0 or 0 in self.shape:
            return None
        index = [0] * len(self.shape)
        for dim in sorted(range(len(self.shape)), key=lambda d: -self.stride[d]):
            if self.stride[dim] > 0 and self.shape[dim] > 1:
                index[dim] = min(rest // self.stride[dim], self.shape[dim] - 1)
                rest -= index[dim] * self.stride[dim]
        return index if rest == 0 else None


@dataclass(frozen=True)
class Unread:
    """A tensor whose elements do not lie in plain memory: nested, sparse, quantised, or without any."""

    kind: str


@dataclass(frozen=True, eq=False)
class Op:
    """One operator call. In ``args`` and ``kwargs`` each tensor stands as a Ref (or as Unread); ``outputs`` are Refs in
    the order of the results.

    ``mutates``: the Refs, in their state before, of the memory that it wrote to. ``source``: "file.py:line" of the
    model's code, which is ``place``.
    """

    index: int
    address: Address
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Ref, ...]
    mutates: tuple[Ref, ...]
    source: Optional[str]
    place: Optional[Place] = None

    @property
    def code(self) -> Optional[str]:
        """The package that the source line belongs to."""
        return None if self.place is None else self.place.package

    def inputs(self) -> list[Ref]:
        return list(items_in((self.args, self.kwargs), Ref))

    def unread(self) -> list[Unread]:
        return list(items_in((self.args, self.kwargs), Unread))

    @property
    def base_name(self) -> str:
        return self.address.base_name


class Tape:
    """The recording. ``ops`` in order; ``exit_refs`` are the floating outputs of the call at which it stopped.

    complete: whether every operator was recorded. One that was not may have written anywhere.
    """

    def __init__(self) -> None:
        self.complete = True
        self.ops: list[Op] = []
        self.exit_refs: list[Ref] = []
        self._stores: dict[tuple[str, int], Store] = {}

    def ref(self, tensor: Tensor) -> Ref:
        """Where ``tensor`` is now; memory that was never met before is taken up as it is."""
        storage = tensor.untyped_storage()
        key = (str(tensor.device), storage.data_ptr())
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = Store(storage, tensor.device)
        if tensor.is_nested:
            whole = plain(tensor)
            parts: Any = tensor
            sizes, strides = parts._nested_tensor_size(), parts._nested_tensor_strides()
            nested = (sizes, strides, parts._nested_tensor_storage_offsets())
            shape, stride = tuple(whole.shape), (1,)
            return Ref(store, store.epoch, tensor.dtype, shape, stride, 0, tensor.element_size(), nested=nested)
        return Ref(
            store,
            store.epoch,
            tensor.dtype,
            tuple(tensor.shape),
            tuple(tensor.stride()),
            int(tensor.storage_offset()),
            tensor.element_size(),
        )

    def knows(self, tensor: Tensor) -> bool:
        return (str(tensor.device), tensor.untyped_storage().data_ptr()) in self._stores

    def kept(self, tensor: Tensor) -> Any:
        """Its Ref, or Unread."""
        kind = unreadable(tensor)
        return self.ref(tensor) if kind is None else Unread(kind)

    def visit(self, call: OpCall) -> Any:
        func, args, kwargs = call.func, call.args, call.kwargs
        kept_args = rebuild(args, Tensor, self.kept)
        kept_kwargs = rebuild(kwargs, Tensor, self.kept)
        written = [tensor for tensor in written_by(func, args, kwargs) if unreadable(tensor) is None]
        mutates = tuple(self.ref(tensor) for tensor in written)
        for ref in mutates:
            ref.store.snapshots.setdefault(ref.epoch, ref.store.storage.clone())
        result = call.run()
        for ref in mutates:
            ref.store.epoch = ref.epoch + 1
        index = len(self.ops)
        outputs: list[Ref] = []
        targets = [tensor for tensor in tensors_in(result) if unreadable(tensor) is None] or written
        for tensor in targets:
            fresh = tensor.numel() > 0 and not self.knows(tensor)
            ref = self.ref(tensor)
            if fresh:
                ref = replace(ref, was_bad=is_bad(plain(tensor)))
                ref.store.writers.append((index, ref))
            outputs.append(ref)
        for tensor in written:
            ref = replace(self.ref(tensor), was_bad=is_bad(plain(tensor)))
            ref.store.writers.append((index, ref))
        place = source_place()
        self.ops.append(
            Op(index, call.address, func, kept_args, kept_kwargs, tuple(outputs), mutates, short(place), place)
        )
        return result

    def writer(self, ref: Ref, index: list[int]) -> Optional[tuple[Op, Ref, list[int]]]:
        """The operator that last wrote the element, with its place in that operator's output; None for memory from
        outside.
        """
        byte = ref.byte_of(index)
        for position, written in reversed(ref.store.writers):
            if written.epoch <= ref.epoch:
                place = written.index_of(byte)
                if place is not None:
                    return self.ops[position], written, place
        return None


def unreadable(tensor: Tensor) -> Optional[str]:
    """Why the elements of a tensor cannot be read from its memory; None where they can."""
    if tensor.is_nested and not (tensor.layout is torch.strided and hasattr(tensor, "_nested_tensor_storage_offsets")):
        return "nested"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).replace("torch.", "")
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_meta:
        return "meta"
    return None if type(tensor) in PLAIN or _has_memory(tensor) else type(tensor).__name__


def _has_memory(tensor: Tensor) -> bool:
    """Whether there is any behind it: a tensor of a class of its own may only stand for others, as a sharded one."""
    try:
        tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def plain(tensor: Tensor) -> Tensor:
    """A tensor that can be read; of a nested one all the memory behind it, in one dimension."""
    if not tensor.is_nested:
        return tensor
    storage = tensor.untyped_storage()
    count = storage.nbytes() // tensor.element_size()
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, 0, (count,), (1,))


def written_by(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operator writes to, by its schema."""
    for position, argument in enumerate(func._schema.arguments if hasattr(func, "_schema") else ()):
        alias = argument.alias_info
        if alias is None or not alias.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        yield from tensors_in(value)


def is_view(call: OpCall, result: Tensor) -> bool:
    """Whether a result is another view of what the operator was given."""
    try:
        place = result.untyped_storage().data_ptr()
        return any(
            given.untyped_storage().data_ptr() == place
            for given in tensors_in((call.args, call.kwargs))
            if type(given) in PLAIN and given.layout is torch.strided
        )
    except (RuntimeError, NotImplementedError):  # no memory of its own that could be told
        return True


def record(model: nn.Module, run: Callable[[], Any], begin: tuple[str, int], end: tuple[str, int]) -> Tape:
    """Run the model and record from the start of call ``begin`` (module, call number) to the end of call ``end``,
    then stop.
    """
    tape = Tape()
    watch = Watch(tape.visit)
    watch.active = False

    def entered(name: str, index: int) -> None:
        if (name, index) == begin:
            watch.active = True

    def left(name: str, index: int, output: Any) -> None:
        if (name, index) == end and watch.active:
            watch.active = False
            tape.exit_refs = [tape.ref(tensor) for tensor in output_tensors(output) if unreadable(tensor) is None]
            raise StopPass

    watch.entered, watch.left = entered, left
    with watched(model, watch):
        run()
    tape.complete = not watch.unseen
    return tape


def output_tensors(output: Any) -> list[Tensor]:
    """The floating tensors of a module's output; the judged ones of a model's output first."""
    found = [
        tensor
        for tensor in tensors_in(opened(output, Tensor))
        if is_float(tensor) and not is_wrapped(tensor) and tensor.numel()
    ]
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        found.sort(key=lambda tensor: tensor is not logits)
    return found
