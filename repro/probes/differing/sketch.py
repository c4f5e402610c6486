"""What a pass ends with, in few numbers, so that the passes of many environments can be held against each other.

Rows of the output are taken in at most 32 groups, and each group as one long vector on 16 random directions of plus and
minus 1. Where two such vectors differ by d, the differences on these directions have the mean square |d|^2, whichever
elements it is in (Alon, Matias and Szegedy, "The space complexity of approximating the frequency moments", 1996). The
signs are a polynomial's, so that they are the same in every release.
"""

import hashlib
import random
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import Pass, main_output, run
from ..model.load import Loaded
from ..observe.watch import Watch, watched
from ..values.figures import digest
from .held.deviation import wide
from .held.hold import limits
from .held.noise import RMS, Noise

GROUPS = 32
DIRECTIONS = 16
# One group's estimate is off by at most this factor in all but one of 10,000 (chi square of 16: 44 / 16, its root).
SPREAD = 1.7
PRIME = (1 << 31) - 1
LONGEST = 1 << 20  # of a row
SEEDS = (1, 2, 3)  # of the drift, of which the largest counts: most draws move none of few numbers near an edge


def sketch(loaded: Loaded, seen: Pass) -> dict[str, Any]:
    """Of a finite pass: the projections of each group, its size, and how far rounding moves it, drawn at random."""
    values = _rows(seen.output)
    ids = seen.inputs.input_ids
    found: dict[str, Any] = {"given": None if ids is None else digest(ids), "output": seen.output_name}
    found.update(shape=list(seen.output.shape), groups=[])
    if seen.repeat_equal is False:
        return {**found, "why_not": "a second run gives other numbers"}
    if values.shape[-1] > LONGEST:
        return {**found, "why_not": f"a row has {values.shape[-1]:,} elements"}
    unit = float(torch.finfo(seen.output.dtype).eps)
    most = limits(unit)
    found.update(unit=unit, floor=unit * RMS / 2, limits=[most.whole, most.row * SPREAD])
    count, signs = min(GROUPS, len(values)), _signs(values.shape[-1], 0)
    tall = _signs(len(values), 1)
    groups = [slice(len(values) * at // count, len(values) * (at + 1) // count) for at in range(count)]
    drawn = [_drift(loaded, seen, values, groups, seed) for seed in SEEDS]
    for at, rows in enumerate(groups):
        here = _finite(values[rows])
        found["groups"].append(
            {
                "elements": here.numel(),
                "on": ((here @ signs) * tall[rows]).sum(0).tolist(),
                "size": _rms(here),
                "drift": max(drift[at] for drift in drawn),
            }
        )
    if seen.output_name.endswith("logits"):
        found["likeliest"] = values[-GROUPS:].argmax(-1).tolist()
    return found


def drawn_weights(loaded: Loaded) -> Optional[str]:
    """A digest of all weights where they are random; None where they are a checkpoint's."""
    if loaded.source.kind != "random":
        return None
    return hashlib.sha256("".join(sorted(map(digest, loaded.model.parameters()))).encode()).hexdigest()


def _drift(loaded: Loaded, seen: Pass, values: Tensor, groups: list[slice], seed: int) -> list[float]:
    """How far each group is moved where the pass is rounded at random, as the root of the mean square."""
    with watched(loaded.model, Watch(Noise(seed).visit)):
        moved = _rows(main_output(run(loaded.model, seen.inputs), seen.output_name)[1])
    return [_rms(_finite(values[rows]) - _finite(moved[rows])) for rows in groups]


def _rows(output: Tensor) -> Tensor:
    plain = torch.view_as_real(output) if output.is_complex() else output
    return plain.reshape(-1, plain.shape[-1]) if plain.dim() > 1 else plain.reshape(1, -1)


def _finite(values: Tensor) -> Tensor:
    """In float64, with 0 for -inf, and for the lowest number that stands for it."""
    return torch.nan_to_num(wide(values), 0.0, 0.0, 0.0)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _signs(count: int, seed: int) -> Tensor:
    """(count, DIRECTIONS) of plus and minus 1, by polynomials of the third degree: any four are independent."""
    drawn = random.Random(seed)
    places = torch.arange(count)[:, None]
    found = torch.zeros(1, DIRECTIONS, dtype=torch.int64)
    for _ in range(4):
        found = (found * places + torch.tensor([drawn.randrange(PRIME) for _ in range(DIRECTIONS)])) % PRIME
    return (found % 2 * 2 - 1).to(torch.float64)
