"""Whether a value that overflowed inside, and was swallowed, makes a finite output wrong.

Each operator behind it may be right on what it is given: exp(-inf) is 0, 1/inf is 0, and a mask of -inf is meant. So
the pass is made again on wide numbers, in which nothing overflows, and the two ends are held against each other: what
rounding does not explain is the overflow's, if the wide pass with that overflow alone put in ends as the run did.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, main_output, run
from ..model.load import Loaded
from ..observe.source import excerpt
from ..observe.tape import record
from ..observe.watch import Address
from ..origin.arithmetic import limit_of
from ..origin.counterfactual import kin_of
from ..origin.dimensions import locate
from ..origin.passes import Place
from ..origin.record import code_of
from ..protocol.failures import in_words
from ..values.figures import describe, dtype_name, is_bad
from .forecast import Forecast, magnitude, smallest_beyond
from .noise import Agreement, Noise, noise_of, rmse
from .passes import Largest, Telling

WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float64, torch.float32: torch.float64}
"""What holds numbers beyond each dtype's largest; those of bfloat16 end where float32's do."""
DROWNED = 0.25
"""Of the output's size: where rounding moves it by more, nothing can be told."""
SOUND, WRONG, OPEN = "sound", "wrong", "open"


@dataclass(frozen=True)
class Swallowed:
    """What became of values that were born not finite in ``dtype``.

    verdict: SOUND where the output is what wide numbers give but for rounding, WRONG where it is not and an overflow is
    the cause, OPEN with the reason where that could not be told. address, largest: the operator that overflows first of
    those that show in the output, with its largest element.
    """

    dtype: torch.dtype
    verdict: str
    reason: str
    agreement: Optional[Agreement] = None
    address: Optional[Address] = None
    largest: Optional[Largest] = None


def asked(loaded: Loaded, seen: Pass, dtype: torch.dtype) -> Swallowed:
    """Of one pass, in which something of this dtype was born NaN or infinite, and whose output is finite."""
    wide = WIDER.get(dtype)
    if wide is None or loaded.quantised is not None:
        return Swallowed(dtype, OPEN, "the model cannot be run on wider numbers")
    if seen.repeat_equal is False:
        return Swallowed(dtype, OPEN, "a second run gives other numbers")
    try:
        return _asked(Telling(loaded, seen.inputs, dtype, wide, dressed=False), seen)
    except Exception as error:  # noqa: BLE001 - the model's own code, which may look at its tensors in any way
        return Swallowed(dtype, OPEN, f"the run cannot be told from wider numbers: {in_words(error)}")


def _asked(telling: Telling, seen: Pass) -> Swallowed:
    dtype, name = telling.narrow, dtype_name(telling.wide)
    output, look = telling.run()
    end, wide = main_output(output, seen.output_name)
    if is_bad(wide) or wide.shape != seen.output.shape:
        return Swallowed(dtype, OPEN, f"in {name} the output is not finite, or has another shape")
    limit = smallest_beyond(dtype)
    told = Forecast(telling, end, wide, look.seen())
    beyond = [row for row in told.rows if magnitude(row) >= limit]
    overflowed = told.output_with(beyond, len(beyond), limit)[0]
    if beyond and not is_bad(overflowed) and rmse(overflowed, wide) <= _unnoticed(wide, dtype):
        return Swallowed(dtype, SOUND, f"with and without it the output is the same in {name}")
    noise = noise_of(telling, end, wide)
    found = noise.judged(seen.output)
    if noise.rmse > DROWNED * _rms(wide):
        return Swallowed(dtype, OPEN, f"rounding alone moves the output by {noise.rmse:.3g} (RMSE)", found)
    if found.sound:
        return Swallowed(dtype, SOUND, _words(found, telling), found)
    if not beyond:
        return Swallowed(dtype, OPEN, f"{_words(found, telling)}, and nothing is beyond {dtype_name(dtype)}", found)
    if not _is_alike(noise, overflowed, seen.output):
        why = f"{_words(found, telling)}, and what is beyond {dtype_name(dtype)} does not explain it"
        return Swallowed(dtype, OPEN, why, found)
    first = told.fewest(beyond, limit, lambda output: not noise.judged(output).sound)
    if first is None:
        return Swallowed(dtype, OPEN, f"{_words(found, telling)}, and no operator's overflow shows by itself", found)
    return Swallowed(dtype, WRONG, _words(found, telling), found, beyond[first[0] - 1].address, first[1])


def _unnoticed(wide: Tensor, dtype: torch.dtype) -> float:
    """What a rounding of the output to the dtype by itself makes at least."""
    return _rms(wide) * float(torch.finfo(dtype).eps) / 8


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _is_alike(noise: Noise, overflowed: Tensor, actual: Tensor) -> bool:
    """Whether the wide pass with all that overflows ends as the run did, but for rounding."""
    return not is_bad(overflowed) and replace(noise, wide=overflowed.to(noise.wide.dtype)).judged(actual).sound


def _words(found: Agreement, telling: Telling) -> str:
    apart = f"the output differs from {dtype_name(telling.wide)}'s by {found.rmse or 0.0:.3g} (RMSE)"
    return f"{apart}, where rounding makes {found.noise:.3g}"


def origin_of(loaded: Loaded, seen: Pass, found: Swallowed) -> dict[str, Any]:
    """The origin's record of a WRONG one, with the keys of that of a NaN."""
    address, largest = found.address, found.largest
    assert address is not None and largest is not None
    again = functools.partial(run, loaded.model, seen.inputs)
    call = (address.module, address.call_index)
    op = next((op for op in record(loaded.model, again, call, call).ops if op.address == address), None)
    kin = kin_of(loaded.model, again, address)
    place = None if kin is None else Place(kin, largest.output, largest.shape, largest.index)
    wide = dtype_name(WIDER[found.dtype])
    return {
        **address.record(loaded.model),
        "mechanism": "overflow",
        **locate(loaded.model, seen.inputs, place),
        "source": largest.source,
        "code": code_of(loaded.model, address.module),
        "excerpt": None if op is None else excerpt(op.place),
        "element": list(largest.index),
        "value": math.copysign(math.inf, largest.value),
        "inputs": [] if op is None else [describe(ref.tensor()) for ref in op.inputs()],
        "output": {"dtype": dtype_name(found.dtype), "shape": list(largest.shape)},
        "reference_value": largest.value,
        "reference": {"value": largest.value, "dtype": wide, "scope": "model"},
        "limit": limit_of(found.dtype),
        "note": f"it is swallowed inside, and {found.reason}",
        "confirmed": True,
        "confirmed_by": "widened",
    }
