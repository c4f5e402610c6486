"""The smallest set of modules that must stay in float32, or in bfloat16, for a run in a narrower dtype to be sound.

A run is sound where its output is finite and differs from float32 by what rounding explains (``noise``): rounding to
bfloat16 where modules are kept in that, for it has fewer digits than float16. What the forecast says orders the
questions: the modules that are given or give numbers beyond the dtype, and the one that feeds the first sum beyond it,
are tried first; then the repeated layers from there on, and what stands behind them. Which ones must stay is decided by
runs without each of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import nn

from ..model.forward import Pass, look, main_output, run
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..model.precision import restored
from ..observe.screen import blocks
from ..observe.watch import ALWAYS
from ..protocol.failures import in_words
from ..values.figures import tensors_in
from .forecast import Forecast, look_at, smallest_beyond
from .keeping import keep_in
from .noise import Agreement, Noise, noise_of

Names = tuple[str, ...]


@dataclass(frozen=True)
class Wide:
    """What the float32 run of the case's inputs says: how far rounding goes, and what is beyond the narrow dtype.

    ``order``: the modules with parameters of their own, as they are first called. ``beyond``: those of them that are
    given or give a number beyond the dtype. ``before``: the one that ran last before the first operator beyond it.
    ``inside``: all modules that run operators beyond it themselves, in order; ``first`` and ``last`` of them.
    """

    noises: tuple[Noise, ...]
    order: Names
    beyond: Names
    before: Optional[str]
    inside: Names

    @property
    def first(self) -> Optional[str]:
        return next(iter((*self.inside, *self.beyond)), None)

    @property
    def last(self) -> Optional[str]:
        return next(iter((*self.inside[::-1], *self.beyond[::-1])), None)


@dataclass
class Search:
    """Runs in the narrow dtype with some modules kept in ``dtype``. ``trials``: the sets that were asked, in order."""

    loaded: Loaded
    wide: Wide
    dtype: torch.dtype = torch.float32
    trials: list[tuple[frozenset[str], bool]] = field(default_factory=list)
    agreements: dict[frozenset[str], list[Agreement]] = field(default_factory=dict)

    def is_sound(self, names: Sequence[str]) -> bool:
        """Whether the run with these modules kept is sound, for each input; each set is run once."""
        key = frozenset(names)
        if key not in self.agreements:
            found = agreements(self.loaded, tuple(names), self.dtype, self.wide.noises)
            self.agreements[key] = found
            self.trials.append((key, all(one.sound for one in found)))
        return all(one.sound for one in self.agreements[key])

    def answer(self) -> Optional[Names]:
        """The set, in order of execution; None where no proper subset of the modules helps.

        Raises:
            NotSound: the case does not run at all: an operator that is not there in its dtype is no number beyond it.
        """
        if self.is_sound(()):
            return ()
        raised = next((one.raised for one in self.agreements[frozenset()] if one.raised is not None), None)
        if raised is not None:
            raise NotSound(f"the case does not run: {in_words(raised)}")
        for start in self._starts():
            if self.is_sound(start):
                return self._without_what_is_not_needed(start)
        return self._layers()

    def _starts(self) -> Iterator[Names]:
        wide = self.wide
        likely = {*wide.beyond, *([wide.before] if wide.before else [])}
        if likely:
            yield tuple(name for name in wide.order if name in likely)
        whole = [name for name in wide.inside if name]
        if whole:
            alone = [name for name in wide.beyond if not any(name == of or name.startswith(of + ".") for of in whole)]
            yield (*whole, *alone)

    def _layers(self) -> Optional[Names]:
        """Repeated layers and the modules outside of them; from the first that goes beyond the dtype, or all."""
        units = self._units()
        first, last = (self._unit(name, units) for name in (self.wide.first, self.wide.last))
        if first is not None and last is not None:
            for end in (last + 1, last + 2, len(units)):
                if self.is_sound(units[first:end]):
                    return self._without_what_is_not_needed(self._shorter(units[first:end]))
        if not self.is_sound(units[:-1]) and not self.is_sound(units[1:]):
            return None
        start = units[:-1] if self.is_sound(units[:-1]) else units[1:]
        return self._without_what_is_not_needed(self._shorter(start))

    def _units(self) -> Names:
        layers = blocks(self.loaded.model)
        found: dict[str, None] = {}
        for name in self.wide.order:
            found[next((layer for layer in layers if name == layer or name.startswith(layer + ".")), name)] = None
        return tuple(found)

    @staticmethod
    def _unit(name: Optional[str], units: Names) -> Optional[int]:
        if name is None:
            return None
        return next((at for at, unit in enumerate(units) if name == unit or name.startswith(unit + ".")), None)

    def _shorter(self, names: Names) -> Names:
        """The same run of units, begun as late and ended as early as it may; each end by bisection."""
        low, high = 0, len(names)  # names[low:] is sound, names[high:] is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.is_sound(names[middle:]) else (low, middle)
        names = names[low:]
        low, high = 0, len(names)  # names[:high] is sound, names[:low] is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.is_sound(names[:middle]) else (middle, high)
        return names[:high]

    def _without_what_is_not_needed(self, names: Names) -> Names:
        """Members left out one by one, the largest first, until no single one can be."""
        order = sorted(names, key=lambda name: -_size(self.loaded.model, name))
        kept, needed = list(names), set[str]()  # needed: beside all that is kept now
        while True:
            name = next((name for name in order if name in kept and name not in needed), None)
            if name is None:
                return tuple(kept)
            rest = [other for other in kept if other != name]
            if self.is_sound(rest):
                kept, needed = rest, set()
            else:
                needed.add(name)


def agreements(loaded: Loaded, names: Names, dtype: torch.dtype, noises: Sequence[Noise]) -> list[Agreement]:
    """How the run with these modules in ``dtype`` agrees with float32, by input; one that raises agrees in nothing."""
    found = []
    with restored(loaded.model):
        handles = keep_in(loaded.model, list(names), dtype) if names else []
        try:
            for noise in noises:
                try:
                    output = main_output(run(loaded.model, noise.inputs), noise.name)[1]
                except Exception as error:  # noqa: BLE001 - two dtypes meet where the model's code takes one
                    found.append(Agreement(False, None, 0, 0, raised=error))
                else:
                    found.append(noise.judged(output))
        finally:
            for handle in handles:
                handle.remove()
    return found


def wide_run(loaded: Loaded, inputs: Sequence[Inputs], narrow: torch.dtype, unit: Optional[torch.dtype] = None) -> Wide:
    """``loaded`` is in float32. unit: the dtype whose rounding is allowed, where it is another than the narrow one.

    Raises:
        CannotFollow: the narrow run cannot be told from it.
        NotSound: it is bad itself.
    """
    noises, looks, leaves = [], [], Leaves(loaded.model)
    for given in inputs:
        with leaves:
            seen: Pass = look(loaded.model, given, repeats_good=False)
        if seen.bad:
            raise NotSound("the run in float32 is bad too")
        looks.append(look_at(loaded, seen, narrow))
        noises.append(noise_of(looks[-1].telling, seen.output_name, seen.output.to(torch.float32), unit))
    limit = smallest_beyond(narrow)
    beyond = tuple(name for name in leaves.order if leaves.largest[name] >= limit)
    before, inside = _before_and_inside(looks, set(leaves.order), limit)
    return Wide(tuple(noises), tuple(leaves.order), beyond, before, inside)


class NotSound(Exception):
    """There is nothing to keep to. The message says why."""


def _before_and_inside(looks: Sequence[Forecast], leaves: set[str], limit: float) -> tuple[Optional[str], Names]:
    """The module with parameters that ran last before the first operator beyond the limit, and the modules that run
    such operators themselves.
    """
    before, inside = None, {}
    for told in looks:
        rows = [row.address.module for row in told.rows]
        beyond = [at for at, row in enumerate(told.rows) if row.absmax >= limit]
        inside.update(dict.fromkeys(rows[at] for at in beyond))
        if beyond and before is None:
            before = next((name for name in reversed(rows[: beyond[0] + 1]) if name in leaves), None)
    return before, tuple(inside)


class Leaves:
    """The modules with floating parameters of their own: in which order they are first called, and the greatest finite
    magnitude of what each is given and gives.
    """

    def __init__(self, model: nn.Module) -> None:
        self.order: list[str] = []
        self.largest: dict[str, float] = {}
        self._modules = {name: module for name, module in model.named_modules() if name and _has_own(module)}
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name), with_kwargs=True, **ALWAYS))

    def __exit__(self, *_: Any) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name not in self.largest:
                self.order.append(name)
            sizes = [
                float(torch.nan_to_num(tensor.detach(), 0.0, 0.0, 0.0).abs().max())
                for tensor in tensors_in((args, kwargs, output))
                if tensor.is_floating_point() and tensor.numel()
            ]
            self.largest[name] = max([self.largest.get(name, 0.0), *sizes])

        return hook


def _has_own(module: nn.Module) -> bool:
    return any(parameter.is_floating_point() for parameter in module.parameters(recurse=False))


def _size(model: nn.Module, name: str) -> int:
    return sum(parameter.numel() for parameter in model.get_submodule(name).parameters())


def cost(model: nn.Module, names: Names, dtype: torch.dtype = torch.float32) -> tuple[int, int]:
    """(bytes that the set takes more in ``dtype``, bytes of all parameters)."""
    kept = {id(p): p for name in names for p in model.get_submodule(name).parameters() if p.is_floating_point()}
    size = torch.finfo(dtype).bits // 8
    more = sum(p.numel() * (size - p.element_size()) for p in kept.values())
    return more, sum(p.numel() * p.element_size() for p in model.parameters())
