"""One operator of a recording run again on other inputs: repaired, scaled, moved a little, in its own dtype or in
float64. Every question about an operator is put through this.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..observe.tape import Op, Ref, plain, unreadable, written_by
from ..values.figures import is_float, scalar, tensors_in
from ..values.nest import items_in, rebuild

Tensors = Callable[[Ref, Tensor], Tensor]
Numbers = Callable[[float], float]

# By their schema: the arguments whose Python numbers take part in the arithmetic. A Tensor may be given as a number.
# A dimension, a size or a flag is no number of this kind.
ARITHMETIC = frozenset((
    "Tensor", "number", "float", "Optional[number]", "Optional[float]", "Optional[Tensor]", "List[number]",
    "List[float]", "Optional[List[float]]",
))  # fmt: skip

LOW = 0.85  # of the largest number of a dtype: a summand beyond it is a mask, as finfo.min is


def limit_of(dtype: torch.dtype) -> float:
    """The largest finite number of a floating dtype."""
    return float(torch.finfo(dtype).max)


class Again:
    """Runs ``op`` again on chosen inputs and looks at one element of what it gives.

    output: one of its results, or of the tensors that it writes to, as it is in the recording.
    """

    def __init__(self, op: Op, output: Ref, place: tuple[int, ...]) -> None:
        self.op, self.output, self.place = op, output, place
        results = [*op.outputs, *op.mutates]
        self._position = next((i for i, ref in enumerate(results) if ref is output or same_memory(ref, output)), 0)

    def value(
        self, tensors: Optional[Tensors] = None, numbers: Optional[Numbers] = None, wide: bool = False
    ) -> Optional[float]:
        """The element, or None where the operator cannot be run so.

        tensors: gives other values for each input. numbers: the same for each Python number of the arithmetic. wide:
        in float64 on the CPU, with every dtype that an argument names widened too.
        """
        if self.op.unread():
            return None
        args, kwargs = self._arguments(tensors, numbers, wide)
        try:
            with torch.no_grad(), warnings.catch_warnings(), _repeatable(self.op.func):
                warnings.simplefilter("ignore")  # the program has had them already
                results = [plain(t) for t in tensors_in(self.op.func(*args, **kwargs)) if unreadable(t) is None]
            written = [plain(t) for t in written_by(self.op.func, args, kwargs) if unreadable(t) is None]
            return scalar([*(results or written), *written][self._position], self.place)
        except Exception:  # noqa: BLE001 - no kernel for these inputs, or none for float64: there is no answer
            return None

    def numbers(self) -> list[float]:
        """The Python numbers of the arithmetic among its arguments."""
        return python_numbers(self.op.func, self.op.args, self.op.kwargs)

    def inputs(self) -> list[Ref]:
        """Its floating inputs, each once."""
        refs = {id(ref): ref for ref in self.op.inputs() if ref.dtype.is_floating_point or ref.dtype.is_complex}
        return list(refs.values())

    def _arguments(
        self, tensors: Optional[Tensors], numbers: Optional[Numbers], wide: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def make(ref: Ref) -> Tensor:
            values = given = ref.tensor().detach()
            if wide:
                values = _widened(values.cpu())
            if tensors is not None:
                values = tensors(ref, values)
            writes = any(same_memory(ref, other) for other in self.op.mutates)
            return ref.as_given(values.clone() if writes and values is given else values)

        args, kwargs = self.op.args, self.op.kwargs
        if numbers is not None:
            args, kwargs = _with_numbers(self.op.func, args, kwargs, numbers)
        args, kwargs = rebuild(args, Ref, make), rebuild(kwargs, Ref, make)
        return _on_cpu(self.op, args, kwargs) if wide else (args, kwargs)


def python_numbers(func: Any, args: Any, kwargs: Any) -> list[float]:
    """The Python numbers of the arithmetic among an operator's arguments."""
    found: list[float] = []

    def note(number: float) -> float:
        found.append(float(number))
        return number

    _with_numbers(func, args, kwargs, note)
    return found


def _with_numbers(func: Any, args: Any, kwargs: Any, numbers: Numbers) -> tuple[Any, Any]:
    """The arguments with other numbers in place of those that take part in the arithmetic."""

    def make(number: Any) -> Any:
        return number if isinstance(number, bool) else numbers(number)

    arguments = getattr(getattr(func, "_schema", None), "arguments", ())
    counted = [(argument.name, str(argument.type) in ARITHMETIC) for argument in arguments]
    names = {name for name, counts in counted if counts}
    placed = tuple(
        rebuild(item, (int, float), make) if at < len(counted) and counted[at][1] else item
        for at, item in enumerate(args)
    )
    return placed, {key: rebuild(item, (int, float), make) if key in names else item for key, item in kwargs.items()}


def same_memory(one: Ref, two: Ref) -> bool:
    """Whether both are the same view of the same memory, at whatever moment."""
    return one.store is two.store and (one.offset, one.shape, one.stride) == (two.offset, two.shape, two.stride)


@contextlib.contextmanager
def _repeatable(func: Any) -> Iterator[None]:
    """An operator that draws random numbers draws the same ones each time, and none of the program's."""
    if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _widened(values: Tensor) -> Tensor:
    if values.is_complex():
        return values.to(torch.complex128)
    return values.to(torch.float64) if is_float(values) else values.clone()


def _on_cpu(op: Op, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments with every dtype widened and every device the CPU; an operator that makes its result of numbers
    alone is told to make it in float64.
    """

    def widest(dtype: torch.dtype) -> torch.dtype:
        return torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else dtype

    def wide(tree: Any) -> Any:
        return rebuild(rebuild(tree, torch.dtype, widest), torch.device, lambda _: torch.device("cpu"))

    args, kwargs = wide(args), wide(kwargs)
    schema = getattr(op.func, "_schema", None)
    makes = op.outputs and op.outputs[0].dtype.is_floating_point and next(items_in(args, Tensor), None) is None
    if schema is not None and makes and any(a.name == "dtype" and a.kwarg_only for a in schema.arguments):
        kwargs["dtype"] = kwargs.get("dtype") or torch.float64
    return args, kwargs
