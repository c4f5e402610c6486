"""One pass of the model as it runs in a narrow dtype, on wide numbers: the greatest magnitude of what each operator
gives in that dtype.

Views are not looked at, for they show what another operator made, nor is memory that was handed out unset. All
magnitudes are read back together when the pass has ended.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..model.forward import run
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..observe.memory import memory_of
from ..observe.source import source_line
from ..observe.tape import unreadable, written_by
from ..observe.watch import Address, OpCall, Watch, watched
from ..origin.walk import UNWRITTEN
from ..values.figures import tensors_in, unravel
from ..values.nest import items_in, rebuild
from .dressed import as_shadows
from .kernels import Held, held_by
from .shadow import CannotFollow, Shadow

# Operators whose inputs are what kernels take in 8 bits; what they give, and everything else, is wider.
EIGHT_BITS = frozenset((
    "mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
))  # fmt: skip
MOVES = frozenset(("embedding", "index", "index_select", "gather", "clone"))  # numbers stay what they are
RECENT = 8  # tensors whose magnitude is remembered: a layer gives one to several operators


@dataclass(frozen=True)
class Seen:
    """What one operator gave in the narrow dtype: the smallest and the largest number.

    ``taken``: the greatest magnitude of what a GEMM or an attention was given, None for any other operator. ``held``:
    the greatest partial sum that its kernel holds in the narrow dtype, where that is beyond it.
    """

    address: Address
    low: float
    high: float
    taken: Optional[float] = None
    held: Optional[Held] = None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def absmax(self) -> float:
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Largest:
    """The element of an operator's results that has the greatest magnitude, and the line that ran it."""

    value: float
    index: tuple[int, ...]
    shape: tuple[int, ...]
    output: int
    source: Optional[str]


@dataclass(frozen=True)
class Overflow:
    """What becomes of numbers beyond a limit: they are infinite, where ``among`` names the operator that gave them.

    high, low: from where on, upwards and downwards.
    """

    high: float
    low: float
    among: Callable[[Address], bool]

    def put(self, made: list[Tensor], held: Optional[Held]) -> None:
        for at, numbers in enumerate(made):
            numbers.masked_fill_(numbers >= self.high, math.inf)
            numbers.masked_fill_(numbers <= self.low, -math.inf)
            if held is not None and at == 0:
                numbers.masked_fill_(held.bad, math.nan)


@dataclass
class Look:
    """The visitor of one such pass.

    narrow, wide: the dtype that the model is told it has, and that of the numbers. overflow: what overflows in the
    pass; nothing where it is None. wanted: an operator whose largest element is looked up. noise: rounding that is
    drawn at random, in a pass that measures nothing. weights: the memory of the parameters, which are no activations.
    dressed: what the model holds in ``narrow`` are Shadows.
    """

    narrow: torch.dtype
    wide: torch.dtype
    overflow: Optional[Overflow] = None
    wanted: Optional[Address] = None
    largest: Optional[Largest] = None
    noise: Optional["Rounding"] = None
    weights: frozenset[int] = frozenset()
    dressed: bool = True
    _rows: list[tuple[Address, list[int], list[int], Optional[Held]]] = field(default_factory=list)
    _bounds: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _recent: list[tuple[Any, int, Tensor]] = field(default_factory=list)

    def visit(self, call: OpCall) -> Any:
        taken = [] if self.noise is not None else [*self._taken(call)]
        result = self._run(call)
        made = self._made(call, result)
        if not made:
            return result
        held = held_by(call, result, self.narrow) if self.noise is None else None
        if call.address == self.wanted and self.largest is None:
            self.largest = _largest(made)
        if self.noise is not None:
            for numbers in made:
                self.noise.moved(numbers)
            return result
        if self.overflow is not None:
            if self.overflow.among(call.address):
                self.overflow.put(made, held)
            made = [torch.nan_to_num(numbers, 0.0, 0.0, 0.0) for numbers in made]
        outputs = [self._measured(numbers) for numbers in made]
        self._rows.append((call.address, outputs, taken, held))
        return result

    def _run(self, call: OpCall) -> Any:
        """The operator; what it casts to the narrow dtype, or makes in it, is a Shadow of wide numbers."""
        fresh = next(items_in((call.args, call.kwargs), Shadow), None) is None
        if fresh and not self.dressed:
            if _gives_view(call):
                return call.run()  # of a weight or a buffer, which may be written to
            if not call.writes and call.address.base_name not in MOVES:
                call.args, call.kwargs = rebuild((call.args, call.kwargs), Tensor, self._shadowed)
                fresh = False
        cast = fresh and self.narrow in items_in((call.args, call.kwargs), torch.dtype)
        if cast:
            call.args = rebuild(call.args, torch.dtype, self._wide_dtype)
            call.kwargs = rebuild(call.kwargs, torch.dtype, self._wide_dtype)

        def shadowed(tensor: Tensor) -> Tensor:
            if isinstance(tensor, Shadow) or tensor.dtype not in (self.narrow, self.wide if cast else self.narrow):
                return tensor
            return tensor if unreadable(tensor) else Shadow(tensor.to(self.wide), self.narrow)

        return rebuild(call.run(), Tensor, shadowed)

    def _shadowed(self, tensor: Tensor) -> Tensor:
        narrow = tensor.dtype == self.narrow and not unreadable(tensor)
        return Shadow(tensor.to(self.wide), self.narrow) if narrow else tensor

    def _wide_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return self.wide if dtype == self.narrow else dtype

    def _taken(self, call: OpCall) -> Iterator[int]:
        """The bounds of what a GEMM or an attention is given that is no parameter."""
        if call.address.base_name not in EIGHT_BITS:
            return
        for tensor in tensors_in((call.args, call.kwargs)):
            if isinstance(tensor, Shadow) and tensor.numel() and memory_of(tensor.wide) not in self.weights:
                yield self._measured(tensor.wide)

    def _made(self, call: OpCall, result: Any) -> list[Tensor]:
        """The wide numbers that the operator wrote for results in the narrow dtype."""
        if call.address.base_name in UNWRITTEN:
            return []
        written = list(written_by(call.func, call.args, call.kwargs))
        if written:
            found = [tensor.wide for tensor in written if isinstance(tensor, Shadow) and tensor.numel()]
            self._recent.clear()  # below autograd no version is counted up that would tell of the change
            return found
        found = [tensor.wide for tensor in tensors_in(result) if isinstance(tensor, Shadow) and tensor.numel()]
        if not found:
            return []
        given = tensors_in((call.args, call.kwargs))
        memory = {memory_of(tensor.wide) for tensor in given if isinstance(tensor, Shadow)}
        return [numbers for numbers in found if memory_of(numbers) not in memory]

    def _measured(self, numbers: Tensor) -> int:
        """Where its bounds stand. A layer gives one tensor to several operators, each as another view."""
        key = (memory_of(numbers), numbers.storage_offset(), numbers.numel())
        for known, place, _ in self._recent:
            if known == key:
                return place
        self._bounds.append(torch.aminmax(numbers))
        self._recent = [*self._recent[-RECENT:], (key, len(self._bounds) - 1, numbers)]
        return len(self._bounds) - 1

    def seen(self) -> list[Seen]:
        """All operators in order; the one place where the device is waited for."""
        if not self._bounds:
            return []
        flat = torch.stack([bound for pair in self._bounds for bound in pair]).tolist()
        sizes = [math.nan if low != low else max(abs(low), abs(high)) for low, high in zip(flat[::2], flat[1::2])]
        return [
            Seen(
                address,
                min(flat[2 * place] for place in outputs),
                max(flat[2 * place + 1] for place in outputs),
                max((sizes[place] for place in taken), default=None),
                held,
            )
            for address, outputs, taken, held in self._rows
        ]


def _gives_view(call: OpCall) -> bool:
    """Whether the operator gives a view of an argument, and writes nothing."""
    schema = getattr(call.func, "_schema", None)
    returns = () if schema is None or schema.is_mutable else schema.returns
    return any(given.alias_info is not None for given in returns)


def _largest(made: list[Tensor]) -> Largest:
    """The finite element of the greatest magnitude."""
    sizes = [torch.nan_to_num(numbers.abs(), 0.0, 0.0) for numbers in made]
    output = max(range(len(made)), key=lambda at: float(sizes[at].max()))
    shape = tuple(made[output].shape)
    index = unravel(int(sizes[output].reshape(-1).argmax()), shape)
    return Largest(float(made[output][tuple(index)]), tuple(index), shape, output, source_line())


@dataclass(frozen=True)
class Rounding:
    """Rounding to a dtype, drawn at random."""

    dtype: torch.dtype
    drawn: torch.Generator

    def moved(self, numbers: Tensor) -> None:
        """Moves each number by at most half a unit in the last place that it would have in the dtype."""
        info = torch.finfo(self.dtype)
        _, exponents = torch.frexp(numbers)
        unit = torch.ldexp(torch.full_like(numbers, info.eps), exponents - 1).clamp_(min=info.tiny * info.eps)
        drawn = torch.rand(numbers.shape, generator=self.drawn, device=numbers.device, dtype=numbers.dtype)
        numbers.add_((drawn - 0.5) * unit.masked_fill_(numbers == 0, 0.0))


@dataclass(frozen=True)
class Telling:
    """An input of a model, as it runs in ``narrow``, told from numbers of ``wide``.

    loaded: in ``wide``. dressed: its weights are told to be narrow; else they are so already, and each is widened where
    an operator takes it, so that no two copies of the model are held.
    """

    loaded: Loaded
    inputs: Inputs
    narrow: torch.dtype
    wide: torch.dtype
    dressed: bool = True

    def run(
        self,
        overflow: Optional[Overflow] = None,
        wanted: Optional[Address] = None,
        noise: Optional[Rounding] = None,
    ) -> tuple[Any, Look]:
        """The model's output in such a pass, and what was looked at.

        Raises:
            CannotFollow: the narrow run cannot be told from wide numbers.
            Exception: what the model's own code raises.
        """
        look = Look(self.narrow, self.wide, overflow, wanted, noise=noise, dressed=self.dressed)
        watch = Watch(look.visit, own=Shadow)
        with self._weights(noise) as weights:
            look.weights = frozenset(memory_of(weight.wide) for weight in weights)
            with watched(self.loaded.model, watch):
                output = run(self.loaded.model, self.inputs)
        if watch.trouble is not None:
            raise CannotFollow(watch.trouble)
        return output, look

    def _weights(self, noise: Optional[Rounding]) -> Any:
        rounded = None if noise is None else noise.dtype
        return as_shadows(self.loaded, self.narrow, rounded) if self.dressed else contextlib.nullcontext([])
