"""Values of a tensor by a rule that a short script can write down: a constant, a closed form, a seed, a few elements.

A rule is plain data, as it travels to the host, which writes the same rule as an expression of torch.
"""

import base64
import itertools
import math
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..values.figures import dtype_name, is_float, unravel, widen
from .patterns import Rule, closed_form
from .patterns import made as pattern
from .trials import Trials, ddmin

ELEMENTS = 12  # explicit elements beyond a constant that a reader still takes in
LISTED = 64  # elements that are written out
BYTES = 12_288  # of a tensor that is packed into the script: some 16,000 characters
SEEDS = (0, 1, 2)
DIGITS_KEPT = 6  # characters of a single value that need not be made shorter
SMALLER = 1024  # by which a row of one value is made smaller
DIGITS = (1, 2, 3)  # significant digits that a value is first rounded to


def make(rule: Rule, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor that a rule stands for, on the CPU."""
    kind, count = rule["kind"], math.prod(shape)
    if kind == "constant":
        return torch.full(shape, rule["value"], dtype=dtype)
    if kind == "linspace":
        return torch.linspace(rule["start"], rule["end"], count).reshape(shape).to(dtype)
    if kind == "normal":
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(rule["seed"]))
        return (rule["mean"] + rule["std"] * drawn).to(dtype)
    if kind == "elements":
        made = torch.full(shape, rule["base"], dtype=dtype)
        for index, value in rule["elements"]:
            made[tuple(index)] = value
        return made
    if kind in ("steps", "span", "band"):
        return pattern(rule, shape, dtype)
    if kind == "list":
        return torch.tensor(rule["values"], dtype=dtype).reshape(shape)
    packed = torch.frombuffer(bytearray(base64.b64decode(rule["base64"])), dtype=dtype)
    return packed.reshape(shape).clone()  # in memory of torch's own, which is aligned


def constant(value: Any) -> Rule:
    return {"kind": "constant", "value": value}


def whole(tensor: Tensor) -> Rule:
    """The tensor as it is: listed where it is short, else its bytes."""
    dense = tensor.detach().cpu().contiguous()
    if dense.numel() == 1 and not dense.is_complex():
        return constant(dense.reshape(()).item())
    if dense.numel() <= LISTED and not dense.is_complex():
        return {"kind": "list", "values": dense.reshape(-1).tolist()}
    raw = dense.reshape(-1).view(torch.uint8) if dense.dtype != torch.bool else dense.reshape(-1).to(torch.uint8)
    return {"kind": "bytes", "base64": base64.b64encode(bytes(raw.tolist())).decode()}


def fits(tensor: Tensor) -> bool:
    """Whether ``whole`` of it is short enough for a script."""
    return tensor.numel() <= LISTED or tensor.numel() * tensor.element_size() <= BYTES


def simplest(
    tensor: Tensor,
    holds: Callable[[Rule], bool],
    trials: Trials,
    what: str,
    rows: Optional[tuple[int, ...]] = None,
    made_by: Optional[Rule] = None,
) -> Optional[Rule]:
    """The first rule, from the simplest on, with which the fault holds; None where it needs more values than a script
    should have.

    rows: of weights, the rows that may do by themselves: those of the channel in which the fault is. None: the tensor
    is no weight. made_by: the rule that the values have already; only simpler ones are tried.
    """

    def tried(rule: Rule) -> bool:
        return trials.ask("{}: {}".format(what, rule["kind"]), lambda: holds(rule))

    kind = None if made_by is None else made_by["kind"]
    for rule in itertools.chain(_plain_rules(tensor, rows is not None), _rows(tensor, rows or ())):
        if rule["kind"] == kind:
            return made_by
        if tried(rule):
            return rule
    found = None if kind == "elements" else _fewest_elements(tensor, tried)
    if found is not None or made_by is not None:
        return found or made_by
    own = closed_form(tensor) or (whole(tensor) if fits(tensor) else None)
    return own if own is not None and (trials.over or tried(own)) else None  # these are the values that it has


def _plain_rules(tensor: Tensor, weights: bool) -> Iterator[Rule]:
    """Constants, then a closed form, then seeds. For a matrix of weights other constants than 0 come last: equal
    weights make all channels equal, and so put the fault into all of them.
    """
    if tensor.numel() == 0:
        yield constant(0)
        return
    if tensor.is_complex():
        return
    if tensor.numel() == 1 and (not is_float(tensor) or len(f"{tensor.item():.9g}") <= DIGITS_KEPT):
        yield from () if is_float(tensor) else (constant(0), constant(1))
        yield constant(tensor.item())  # what the model had there says more than a rounder number
        return
    if tensor.dtype == torch.bool:
        yield from (constant(True), constant(False))
        return
    if not is_float(tensor):
        yield from (constant(0), constant(1))
        return
    wide = widen(tensor.detach().cpu())
    wide = wide[torch.isfinite(wide)]
    if wide.numel() == 0:
        yield constant(tensor.reshape(-1)[0].item())
        return
    low, high, mean = float(wide.min()), float(wide.max()), float(wide.mean())
    largest = high if abs(high) >= abs(low) else low
    limit = float(torch.finfo(tensor.dtype).max)
    typical = rounded_to(float(wide.abs().mean()), 1)
    rounded = [rounded_to(value, digits) for value in (mean, largest) for digits in DIGITS]
    values = dict.fromkeys([0.0, 1.0, -1.0, typical, -typical, *rounded, largest])
    constants = [constant(value) for value in values if abs(value) <= limit]
    spread = rounded_to(float(wide.std()), 1) if wide.numel() > 1 else 0.0
    center = 0.0 if abs(mean) < spread / 10 else rounded_to(mean, 2)
    drawn = [{"kind": "normal", "seed": seed, "mean": center, "std": spread} for seed in SEEDS]
    if weights and tensor.dim() == 2 and tensor.numel() > LISTED:
        yield from [constants[0], *drawn, *constants[1:]]
        return
    yield from constants
    yield {"kind": "linspace", "start": rounded_to(low, 3), "end": rounded_to(high, 3)}
    yield from drawn


def _rows(tensor: Tensor, rows: tuple[int, ...]) -> Iterator[Rule]:
    """One row of one value, all else zero: what is written to a single channel."""
    for row in rows if tensor.dim() == 2 and is_float(tensor) else ():
        if row < tensor.shape[0]:
            largest = float(widen(tensor[row].detach()).abs().max())
            # Where a norm follows, its size does not matter, and beside plain weights a large one overflows by itself.
            for value in (rounded_to(largest, 1), rounded_to(largest / SMALLER, 1)):
                for signed in (value, -value):
                    yield {"kind": "elements", "base": 0.0, "elements": [[[row], signed]]}


def _fewest_elements(tensor: Tensor, tried: Callable[[Rule], bool]) -> Optional[Rule]:
    """A constant with a few explicit elements, those of largest distance from it; None where a few do not do."""
    flat = tensor.detach().cpu().reshape(-1)
    if flat.is_complex():
        return None
    for base in _bases(flat):
        distance = flat != base if not is_float(flat) else (widen(flat) - base).abs()
        order = torch.argsort(distance.to(torch.float32), descending=True, stable=True)[:ELEMENTS].tolist()
        picks = [[unravel(at, tuple(tensor.shape)), flat[at].item()] for at in order]

        def rule_of(chosen: list[Any], base: Any = base) -> Rule:
            return {"kind": "elements", "base": base, "elements": sorted(chosen)}

        if not tried(rule_of(picks)):
            continue
        picks = ddmin(picks, lambda chosen: tried(rule_of(chosen)))
        for at, (index, value) in enumerate(picks):
            for digits in DIGITS if is_float(flat) else ():
                shorter = [*picks[:at], [index, rounded_to(value, digits)], *picks[at + 1 :]]
                if rounded_to(value, digits) != value and tried(rule_of(shorter)):
                    picks = shorter
                    break
        return rule_of(picks)
    return None


def _bases(flat: Tensor) -> list[Any]:
    """What most elements may be."""
    if flat.dtype == torch.bool:
        return [True, False]
    if not is_float(flat):
        return [0]
    return [0.0, 1.0]


def rounded_to(value: Any, digits: int) -> float:
    """``value`` with so many significant digits."""
    return float(f"{value:.{digits - 1}e}") if math.isfinite(value) else value


def described(name: str, tensor: Tensor, rule: Rule, layout: Any = None) -> dict[str, Any]:
    """A tensor of a script as it travels to the host."""
    return {
        "name": name,
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "values": rule,
        "layout": layout,
    }
