"""Which place of a picture, a sound or a series an element of an operator's result belongs to, by experiment.

The configuration and the shapes give ways in which the places of a result may lie in an input: patches in rows, the
pixels of a map, frames. Each is put to the test: the input is changed within one place alone, and the result must
change there rather than elsewhere; this is asked of the own place and of others far from it. What no experiment shows
has no name.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor, nn

from ..model.compat import config_parts
from ..model.inputs import Inputs
from ..model.kinds.draws import KINDS
from ..model.kinds.facts import Facts
from ..model.kinds.marks import TYPES, token_of
from ..values.figures import finite_mask, is_float, widen
from .passes import Passes, Place

PATCH, SPECTRUM, MAP, PIXEL, FRAME, SAMPLE, STEP, STRETCH, SPECIAL = (
    "patch",
    "spectrogram patch",
    "map",
    "pixel",
    "frame",
    "sample",
    "step",
    "stretch",
    "special",
)
MOST_SPECIAL = 8  # tokens beside the patches: of the class, of distillation, registers
MOST_WAYS = 12  # ways that are put to the test
MOST_PLACES, FEWEST_PLACES = 8, 5  # places that are asked of one way
CORNERS = 4
CLEARLY = 1.5  # times what is seen crosswise


@dataclass(frozen=True)
class Way:
    """How the places of a result may lie in an input.

    axes: for each axis of the place, the dimension of the input and how many places lie along it. dims: the dimensions
    of the result: one for each axis, or one in which the places follow each other, behind ``offset`` others.
    """

    part: str
    kind: str
    axes: tuple[tuple[int, int], ...]
    dims: tuple[int, ...]
    offset: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.axes)

    @property
    def is_flat(self) -> bool:
        return len(self.dims) == 1

    def cell(self, index: tuple[int, ...]) -> Optional[tuple[int, ...]]:
        """The place of an element of the result; None for one of the others."""
        if not self.is_flat:
            return tuple(index[dim] for dim in self.dims)
        number = index[self.dims[0]] - self.offset
        return _unravel(number, self.sizes) if 0 <= number < math.prod(self.sizes) else None


def find_place(model: nn.Module, inputs: Inputs, place: Place) -> Optional[tuple[dict[str, Any], tuple[int, ...]]]:
    """The record of an element's place in an input that is no text, and the result's dimensions that say so; None where
    no way holds.
    """
    passes = Passes(model, inputs, place)
    given = passes.given()
    ways = [way for name, value in given.items() for way in _ways(model, name, value, place.shape)]
    before = passes.result(given) if ways else None
    if before is None:
        return None
    best, found = CLEARLY, None
    for way in ways[:MOST_WAYS]:
        clear = _clearness(passes, way, before, best)
        best, found = (clear, way) if clear > best else (best, found)
    return None if found is None else (_record(found, place.index), found.dims)


def in_input(name: str, tensor: Tensor, index: tuple[int, ...]) -> Optional[dict[str, Any]]:
    """The record of an element of an input itself; None where an element of such an input is no place."""
    axes = _axes_of(name, tensor)
    if axes is None or len(index) != tensor.dim():
        return None
    kind, dims = axes
    dims = tuple(dim % tensor.dim() for dim in dims)
    sizes = [int(tensor.shape[dim]) for dim in dims]
    return {"kind": kind, "of": name, "index": [index[dim] for dim in dims], "shape": sizes}


def of_tokens(model: nn.Module, part: str, inputs: Inputs, token: int, length: int) -> Optional[dict[str, Any]]:
    """The record of a place along the input that is as long as the result: no word for text, except for a token that
    stands for something else.
    """
    if part == "input_ids":
        ids = [] if inputs.input_ids is None or is_float(inputs.input_ids) else inputs.input_ids[0].tolist()
        facts = Facts(model)
        marks = {token_of(facts, kind): KINDS[TYPES[kind]] for kind in TYPES}
        kind = marks.get(ids[token]) if token < len(ids) else None
        if kind is None:
            return None
        same = [at for at, id_ in enumerate(ids) if id_ == ids[token]]
        return {"kind": f"{kind} token", "of": part, "index": [same.index(token)], "shape": [len(same)]}
    kind = _kind_of(part)
    return None if kind is None else {"kind": kind, "of": part, "index": [token], "shape": [length]}


def _kind_of(name: str) -> Optional[str]:
    if name.startswith("decoder_input_values") or name == "input_features":
        return FRAME
    return {"input_values": FRAME, "past_values": STEP, "states": STEP}.get(name)


def _axes_of(name: str, tensor: Tensor) -> Optional[tuple[str, tuple[int, ...]]]:
    """What an element of an input is a place of, and the dimensions that say where."""
    if name.startswith("pixel_values") and tensor.dim() >= 4:
        return PIXEL, (-2, -1)
    if name == "input_values":
        return (SAMPLE, (-1,)) if tensor.dim() == 2 or tensor.shape[1] == 1 else None
    if name in ("past_values", "states") and tensor.dim() > 1:
        return STEP, (1,)
    return None


def _ways(model: nn.Module, name: str, value: Any, shape: tuple[int, ...]) -> Iterator[Way]:
    if not isinstance(value, Tensor) or not is_float(value) or value.dim() < 2:
        return
    if name.startswith("pixel_values"):
        if value.dim() >= 4:
            yield from _patches(model, name, value, shape)
            yield from _maps(name, value, shape)
        else:  # patches in rows already
            yield from _along(name, PATCH, value, shape)
    elif name in ("flattened_patches", "input_features", "input_values", "past_values", "decoder_input_values"):
        if name.startswith("input_") and value.dim() == 3:
            yield from _of_a_spectrogram(model, name, value, shape)
        yield from _along(name, _kind_of(name) or PATCH, value, shape)


def _patches(model: nn.Module, name: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[Way]:
    """Patches that follow each other, in the grids that the configuration's patch sizes give."""
    height, width = int(value.shape[-2]), int(value.shape[-1])
    grids = list(dict.fromkeys(_grids(model, height, width)))
    frames = int(value.shape[1]) if value.dim() == 5 else 0
    depths = [frames // size for size in _sizes(model, "tubelet_size") if frames and size] if frames else []
    for dim, count in enumerate(shape):
        for high, wide in grids:
            flat: tuple[tuple[int, int], ...] = ((-2, high), (-1, wide))
            ways = [((1, deep), *flat) for deep in dict.fromkeys([*depths, frames]) if deep > 1] + [flat]
            for axes in ways:
                more = count - math.prod(size for _, size in axes)
                if 0 <= more <= MOST_SPECIAL and count - more > 3:
                    for offset in dict.fromkeys((more, 0)):
                        yield Way(name, PATCH, axes, (dim,), offset)


def _of_a_spectrogram(model: nn.Module, name: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[Way]:
    """Patches of (1, frames, bands), which may overlap, band after band: an audio spectrogram transformer's."""
    frames, bands = int(value.shape[1]), int(value.shape[2])
    sizes, strides = _sizes(model, "patch_size"), (_sizes(model, "frequency_stride"), _sizes(model, "time_stride"))
    for size, high, wide in zip(sizes, *strides):
        if not (0 < size <= min(frames, bands) and high > 0 and wide > 0):
            continue
        axes = ((2, (bands - size) // high + 1), (1, (frames - size) // wide + 1))
        for dim, count in enumerate(shape):
            more = count - math.prod(number for _, number in axes)
            if 0 <= more <= MOST_SPECIAL:
                yield Way(name, SPECTRUM, axes, (dim,), more)


def _grids(model: nn.Module, height: int, width: int) -> Iterator[tuple[int, int]]:
    for size in _sizes(model, "patch_size", "patch_sizes"):
        if 0 < size <= min(height, width):
            yield height // size, width // size
    for side in range(2, 65):  # a convolution's map that was made flat
        if height == width and height % side == 0:
            yield side, side


def _sizes(model: nn.Module, *names: str) -> list[int]:
    found = []
    for part in config_parts(getattr(model, "config", None)):
        for name in names:
            value = getattr(part, name, None)
            found += [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, int)]
    return found


def _maps(name: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[Way]:
    """The rows and columns of a map."""
    height, width = int(value.shape[-2]), int(value.shape[-1])
    for dim in reversed(range(len(shape) - 1)):
        high, wide = shape[dim], shape[dim + 1]
        if 1 < high <= height and 1 < wide <= width and math.ceil(height / high) == math.ceil(width / wide):
            kind = PIXEL if (high, wide) == (height, width) else MAP
            yield Way(name, kind, ((-2, high), (-1, wide)), (dim, dim + 1))


def _along(name: str, kind: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[Way]:
    """One axis, from one end of the input to the other."""
    first = 0 if kind == PATCH and value.dim() == 2 else 1
    series = int(value.shape[2]) if kind == STEP and value.dim() == 3 else 1
    for at, rows in enumerate(shape):  # several series, one behind the other
        if series > 1 and rows % series == 0 and 3 < rows // series <= int(value.shape[1]):
            yield Way(name, _of_steps(rows // series, value), ((2, series), (1, rows // series)), (at,))
    for dim, at in itertools.product(range(first, value.dim()), range(len(shape))):
        count, size = shape[at], int(value.shape[dim])
        if 3 < count <= size:
            named = SAMPLE if name == "input_values" and value.dim() == 2 and count == size else kind
            named = _of_steps(count, value) if kind == STEP else named
            yield Way(name, named, ((dim, count),), (at,))


def _of_steps(count: int, series: Tensor) -> str:
    """What a place of a series is: one step of it, or several that lie side by side."""
    return STEP if count == series.shape[1] else STRETCH


def _clearness(passes: Passes, way: Way, before: Tensor, least: float) -> float:
    """How clearly changes of the input within one place are seen there: of any two places, the one that is changed and
    the one that answers belong together, so many times more than they do crosswise. How much a place answers to
    anything, and how much a change does anywhere, drops out of that comparison. 0 where it is not above ``least``, or
    too few places answer.
    """
    finite = _by_place(finite_mask(before).float(), way).reshape(way.sizes) > 0
    cells: list[tuple[int, ...]] = []
    seen: list[Tensor] = []
    clear = math.inf
    asked = _asked(way, passes.place.index)
    for cell in asked:
        if len(cells) == MOST_PLACES:
            break
        if not bool(finite[cell]):
            continue
        changes = _changes(passes, way, before, cell)
        if changes is None:
            return 0.0
        if not bool((changes > 0).any()):
            continue  # the model does not look at this place
        cells.append(cell)
        seen.append(changes.reshape(way.sizes))
        own = float(seen[-1][cell])
        for other, theirs in zip(cells[:-1], seen[:-1]):
            across = float(seen[-1][other]) * float(theirs[cell])
            clear = min(clear, own * float(theirs[other]) / across if across else math.inf)
        if clear <= least:
            return 0.0
    needed = min(FEWEST_PLACES, math.prod(way.sizes))
    if CORNERS <= len(asked) < needed:  # a small map has no more that lie far from each other
        needed = len(asked)
    return clear if len(cells) >= needed else 0.0


def _asked(way: Way, index: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The places that are asked: the element's own, and others that lie far from it and from each other."""
    own = way.cell(index)
    found = [] if own is None else [own]
    steps = (0.0, 1.0, 0.5, 0.25, 0.75)
    along = [[int(part * (size - 1)) for part in steps] for size in way.sizes]
    crossed = [tuple(axis[(at + turn) % len(steps)] for turn, axis in enumerate(along)) for at in range(len(steps))]
    corners = list(itertools.product(*([0, size - 1] for size in way.sizes)))
    far = 1 if way.kind in (PATCH, STEP, STRETCH) else 2
    for cell in (*corners, *crossed):
        if all(max(abs(one - two) for one, two in zip(cell, other)) >= far for other in found):
            found.append(cell)
    return found


def _changes(passes: Passes, way: Way, before: Tensor, cell: tuple[int, ...]) -> Optional[Tensor]:
    """How much each place of the result changes where the input is changed within one; None where it has another
    shape.
    """
    given = dict(passes.given())
    value = given[way.part].clone()
    region = value
    for (dim, size), at in zip(way.axes, cell):
        whole = value.shape[dim]
        begin, end = at * whole // size, max((at + 1) * whole // size, at * whole // size + 1)
        region = region.narrow(dim, begin, end - begin)
    region.copy_(region * 0.9 + 0.05)
    given[way.part] = value
    after = passes.result(given)
    if after is None or after.shape != before.shape:
        return None
    one, two = widen(before).cpu(), widen(after).cpu()
    return _by_place((one - two).abs().nan_to_num(nan=0.0, posinf=0.0), way)


def _by_place(values: Tensor, way: Way) -> Tensor:
    """Sums over all that belongs to one place, in order."""
    kept = values.double().movedim(way.dims, tuple(range(len(way.dims))))
    sums = kept.reshape(math.prod(kept.shape[: len(way.dims)]), -1).sum(1)
    return sums if not way.is_flat else sums[way.offset : way.offset + math.prod(way.sizes)]


def _record(way: Way, index: tuple[int, ...]) -> dict[str, Any]:
    cell = way.cell(index)
    if cell is None:
        at = index[way.dims[0]]
        others = at if at < way.offset else at - math.prod(way.sizes)
        return {"kind": SPECIAL, "of": way.part, "index": [others], "shape": list(way.sizes)}
    return {"kind": way.kind, "of": way.part, "index": list(cell), "shape": list(way.sizes)}


def _unravel(number: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    found: list[int] = []
    for size in reversed(sizes):
        found.append(number % size)
        number //= size
    return tuple(reversed(found))
