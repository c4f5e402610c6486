"""Which operator would be the first to overflow in a narrower dtype, and how far the others are from it: told by a pass
on wide numbers.

That a number is beyond a dtype says nothing of what becomes of it: a mask's sum may be, and softmax absorbs it. So what
is beyond is made infinite, as that dtype would have it, and the output decides: the first operator is the last of the
fewest, from the beginning on, that make it bad. Where none does, the output may still be another one, as of a norm
whose squares are infinite: that is held against what rounding makes of it. In 8 bits kernels take what a GEMM or an
attention is given, so those magnitudes are told; there is no pass in 8 bits to put to the test.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, main_output, run
from ..model.load import Loaded
from ..observe.watch import Address, OpCall, StopPass, Watch, watched
from ..origin.arithmetic import LOW, limit_of
from ..origin.counterfactual import kin_of
from ..origin.dimensions import locate
from ..origin.passes import Place
from ..values.figures import dtype_name, is_bad, tensors_in
from .noise import DRAWS, Noise, noise_of
from .passes import Largest, Overflow, Seen, Telling
from .shadow import CannotFollow

NARROW = torch.float16  # what the model is told that it runs in
RANGES = ("float16", "bfloat16")
EIGHT = ("float8_e4m3fn", "float8_e5m2")  # since torch 2.1
NEAR = 1e-4  # how far apart one element is in the pass on Shadows and in the plain one, at most, of its magnitude
SOUND, OVERFLOWS, ABSORBED = "sound", "overflows", "absorbed"
WRONG = "wrong"  # what is beyond the limit leaves the output finite, and moves it by more than rounding does
ORDER = (SOUND, ABSORBED, WRONG, OVERFLOWS)


@dataclass(frozen=True)
class First:
    """The first operator that would overflow, and its largest element."""

    seen: Seen
    largest: Optional[Largest]


@dataclass
class Forecast:
    """One input's pass. ``rows``: its operators, without the numbers of masks; ``weights``: the greatest magnitude of
    each parameter that is beyond a dtype.
    """

    telling: Telling
    output: str
    wide: Tensor
    rows: list[Seen]
    passes: int = 1

    @property
    def loaded(self) -> Loaded:
        return self.telling.loaded

    def first(self, limit: float) -> "Answer":
        """The first operator that would overflow, all beyond the limit from it on, and those that nothing bad follows
        from.
        """
        beyond = [row for row in self.rows if magnitude(row) >= limit]
        if not beyond:
            return Answer(SOUND)
        found = self.fewest(beyond, limit, is_bad)
        if found is not None:
            return self._answer(OVERFLOWS, found, beyond)
        noise = self._noise(limit)
        if noise is not None:
            wrong = self.fewest(beyond, limit, lambda output: not noise.judged(output).sound)
            if wrong is not None:
                output = self.output_with(beyond, len(beyond), limit)[0]
                return replace(self._answer(WRONG, wrong, beyond), apart=noise.judged(output).rmse, noise=noise.rmse)
        return Answer(ABSORBED, absorbed=beyond)

    @staticmethod
    def _answer(verdict: str, found: tuple[int, Optional[Largest]], beyond: list[Seen]) -> "Answer":
        at = found[0] - 1
        return Answer(verdict, First(beyond[at], found[1]), beyond[at:], beyond[:at])

    def _noise(self, limit: float) -> Optional[Noise]:
        """What rounding makes of the output; None where it cannot be told, as of a model that ends with something else
        each time it runs.
        """
        noise = noise_of(self.telling, self.output, self.wide)
        self.passes += DRAWS
        return noise if noise.rmse > 0 and noise.judged(self.output_with([], 0, limit)[0]).sound else None

    def fewest(
        self, beyond: list[Seen], limit: float, is_shown: Callable[[Tensor], bool]
    ) -> Optional[tuple[int, Optional[Largest]]]:
        """The fewest, from the beginning on, whose overflow shows in the output, with the last one's largest element;
        None where not even that of all does.
        """

        def asked(count: int) -> tuple[bool, Optional[Largest]]:
            output, largest = self.output_with(beyond, count, limit)
            return is_shown(output), largest

        found = asked(1)
        low, high = 0, 1  # that of the first ``low`` does not show, that of the first ``high`` does
        if not found[0]:
            low, high = 1, len(beyond)
            found = asked(high) if high > 1 else found
            if not found[0]:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            tried = asked(middle)
            if tried[0]:
                high, found = middle, tried
            else:
                low = middle
        return high, found[1]

    def output_with(self, beyond: list[Seen], count: int, limit: float) -> tuple[Tensor, Optional[Largest]]:
        """The output where the first ``count`` of them overflow, and the last one's largest element."""
        among = {row.address for row in beyond[:count]}
        wanted = beyond[count - 1].address if count else None
        self.passes += 1
        output, look = self.telling.run(Overflow(limit, -limit, among.__contains__), wanted)
        return main_output(output, self.output)[1], look.largest


@dataclass(frozen=True)
class Answer:
    """What becomes of one dtype's overflows. ``beyond``: the operators from the first that shows on; ``absorbed``:
    those before. ``apart``: where the output is wrong, how far (RMSE), and ``noise``, how far rounding moves it.
    """

    verdict: str
    first: Optional[First] = None
    beyond: list[Seen] = field(default_factory=list)
    absorbed: list[Seen] = field(default_factory=list)
    apart: Optional[float] = None
    noise: Optional[float] = None


def look_at(loaded: Loaded, seen: Pass, narrow: torch.dtype = NARROW) -> Forecast:
    """The pass of an input whose output is good.

    Raises:
        CannotFollow: the pass cannot be made on Shadows, or does not end with what the plain one ends with.
    """
    telling = Telling(loaded, seen.inputs, narrow, loaded.dtype)
    output, look = telling.run()
    name, actual = main_output(output, seen.output_name)
    if is_bad(actual) or actual.shape != seen.output.shape:
        raise CannotFollow(f"told that it runs in {dtype_name(narrow)}, the model computes something else")
    rows = look.seen()
    found = Forecast(telling, name, seen.output, rows)
    high, low = smallest_beyond(narrow), -LOW * limit_of(narrow)
    masks = {row.address for row in rows if not row.finite or (row.low <= low and row.high < high)}
    if masks:
        found.passes += 1
        output, again = telling.run(Overflow(math.inf, low, masks.__contains__))
        if not is_bad(main_output(output, name)[1]):
            found.rows = again.seen()  # softmax takes them for what they are: the numbers of no operator
        else:
            found.rows = [row for row in rows if row.finite]
    return found


def smallest_beyond(dtype: torch.dtype) -> float:
    """The smallest number that is rounded to infinity: half a unit in the last place beyond the largest."""
    info = torch.finfo(dtype)
    return float(info.max) + 2.0 ** math.floor(math.log2(info.max)) * float(info.eps) / 2


def dtypes_here() -> list[torch.dtype]:
    """The narrow dtypes that this PyTorch has."""
    return [getattr(torch, name) for name in (*RANGES, *EIGHT) if hasattr(torch, name)]


def forecast(loaded: Loaded, passes: list[Pass]) -> dict[str, Any]:
    """The payload of the forecast step.

    Raises:
        CannotFollow: it cannot be told; the message says why.
    """
    looks = [look_at(loaded, seen) for seen in passes]
    rows = []
    for dtype in dtypes_here():
        if dtype == loaded.dtype:
            continue
        told = [of_dtype(look, dtype) for look in looks]
        worst = max(range(len(told)), key=lambda at: (ORDER.index(told[at][0]["verdict"]), _size(told[at][0])))
        row, first = told[worst]
        if first is not None:
            row["first"].update(_element(looks[worst], first))
        rows.append({**row, "prompt": worst})
    return {
        "dtypes": rows,
        "operators": len(looks[0].rows),
        "passes": sum(look.passes for look in looks),
        "dtype": dtype_name(loaded.dtype),
    }


def _size(row: dict[str, Any]) -> float:
    return max(item["absmax"] for item in (row["largest"], row["first"], {"absmax": 0.0}) if item is not None)


def of_dtype(look: Forecast, dtype: torch.dtype) -> tuple[dict[str, Any], Optional[First]]:
    """What one input's pass says of one dtype, and the first operator that would overflow in it."""
    limit, name = limit_of(dtype), dtype_name(dtype)
    beyond_limit = smallest_beyond(dtype)
    row: dict[str, Any] = {"dtype": name, "limit": limit, "verdict": SOUND, "first": None, "modules": [], "absorbed": 0}
    row["weights"] = weights_beyond(look.loaded, beyond_limit, matrices=name in EIGHT)
    if name in EIGHT:
        taken = [replace(seen, low=-seen.taken, high=seen.taken) for seen in look.rows if seen.taken is not None]
        beyond = [seen for seen in taken if seen.absmax >= beyond_limit]
        within = [seen for seen in taken if seen.absmax < beyond_limit]
        first = First(beyond[0], None) if beyond else None
    else:
        told = look.first(beyond_limit)
        first, beyond = told.first, told.beyond
        within = [seen for seen in look.rows if magnitude(seen) < beyond_limit]
        row.update(verdict=told.verdict, absorbed=len(told.absorbed), apart=told.apart, noise=told.noise)
    if first is not None:
        row["verdict"] = WRONG if row["verdict"] == WRONG else OVERFLOWS
        row["first"] = _operator(look.loaded, first.seen, limit)
        row["modules"] = _modules(beyond)
    largest = max(within, key=lambda seen: seen.absmax, default=None)
    row["largest"] = None if largest is None else _operator(look.loaded, largest, limit)
    if row["weights"]:
        row["verdict"] = OVERFLOWS
    return row, first


def weights_beyond(loaded: Loaded, limit: float, matrices: bool) -> list[str]:
    """The parameters with a number that the dtype does not hold.

    matrices: of more than one dimension only, which is what a GEMM in 8 bits takes.
    """
    if limit > limit_of(loaded.dtype):
        return []
    return [name for name, (size, dims) in _weights(loaded).items() if size >= limit and (dims > 1 or not matrices)]


def _weights(loaded: Loaded) -> dict[str, tuple[float, int]]:
    """The greatest magnitude of each parameter, and how many dimensions it has."""
    named = [(name, p.detach()) for name, p in loaded.model.named_parameters() if p.is_floating_point() and p.numel()]
    bounds = [torch.stack(torch.aminmax(tensor)).abs().max() for _, tensor in named]
    sizes = torch.stack([bound.float() for bound in bounds]).tolist() if bounds else []
    return {name: (size, tensor.dim()) for (name, tensor), size in zip(named, sizes)}


def _modules(beyond: list[Seen]) -> list[dict[str, Any]]:
    """All modules with an operator beyond the limit, in order, with its greatest magnitude."""
    found: dict[str, float] = {}
    for seen in beyond:
        found[seen.address.module] = max(found.get(seen.address.module, 0.0), magnitude(seen))
    return [{"module": module, "absmax": size} for module, size in found.items()]


def magnitude(seen: Seen) -> float:
    """Of the result, or of the partial sum that is held."""
    return seen.absmax if seen.held is None else max(seen.absmax, seen.held.value)


def _operator(loaded: Loaded, seen: Seen, limit: float) -> dict[str, Any]:
    size, address = magnitude(seen), seen.address
    return {
        **address.record(loaded.model),
        "absmax": size,
        "ratio": limit / size if size > 0 else None,
        "partial_sum": seen.held is not None,
    }


def _element(look: Forecast, first: First) -> dict[str, Any]:
    """Where in the result the largest element is, and which token's and channel's it is."""
    largest = first.largest
    if largest is None:
        return {}
    where = _place(look, first.seen.address, largest)
    located = locate(look.loaded.model, look.telling.inputs, where)
    return {"source": largest.source, "element": list(largest.index), "value": largest.value, **located}


def _place(look: Forecast, address: Address, largest: Largest) -> Optional[Place]:
    """The operator in the model's own pass, where it may be another call of its kind: casts do not run there."""
    found: list[Address] = []

    def visit(call: OpCall) -> Any:
        result, here = call.run(), call.address
        if (here.module, here.call_index, here.op) == (address.module, address.call_index, address.op):
            tensor = next((tensor for tensor in tensors_in(result) if tuple(tensor.shape) == largest.shape), None)
            if tensor is not None and abs(float(tensor[largest.index]) - largest.value) <= NEAR * abs(largest.value):
                found.append(here)
                raise StopPass
        return result

    model = look.loaded.model

    def again() -> Any:
        return run(model, look.telling.inputs)

    with watched(model, Watch(visit)):
        again()
    kin = kin_of(model, again, found[0]) if found else None
    return None if kin is None else Place(kin, largest.output, largest.shape, largest.index)
