"""What a script does beside its fault that a smaller one must not do otherwise.

A version that draws random numbers without the seed that the script sets shows its fault by chance. One that no longer
clears its gradients, or makes a new optimizer in each round, has a fault of its own. One that leaves out the size of a
model gets the default's, which is larger. None of that is seen in the operator at fault, so it is put down of the
original and held against each candidate.
"""

import contextlib
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Callable, Optional

import torch
from torch import Tensor

CONDUCT = "listing.runs.conduct:watched"
NODES = 4000  # of a gradient's graph that are looked at
DEPTH = 3  # operators of a loss, from its end, by which it is known


class OtherConduct(Exception):
    """A smaller script does what the original did not do. The message says what."""


@dataclass(frozen=True)
class Conduct:
    """What was seen of one run.

    unseeded: the generators that numbers were drawn from before the script had seeded them. parameters, modules: the
    most that a model had which was called. optimizers: class and arguments of each that was made. made: how many.
    accumulates: whether a backward pass began with gradients of an earlier one. losses: the last operators of what a
    backward pass began with.
    """

    unseeded: frozenset[str] = frozenset()
    parameters: int = 0
    modules: int = 0
    optimizers: frozenset[tuple[str, str]] = frozenset()
    made: int = 0
    accumulates: bool = False
    losses: frozenset[tuple[str, ...]] = frozenset()

    def other_than(self, original: "Conduct") -> Optional[str]:
        """What it does that the original did not do; None where there is nothing."""
        if self.unseeded - original.unseeded:
            return f"it draws from {', '.join(sorted(self.unseeded - original.unseeded))} without a seed"
        grown = self.parameters > original.parameters or self.modules > original.modules
        if original.modules and grown:
            return f"its model has {self.parameters} parameters and {self.modules} modules"
        if self.accumulates and not original.accumulates:
            return "gradients add up"
        if self.made > original.made or self.optimizers - original.optimizers:
            return "it has another optimizer"
        if self.made and self.losses - original.losses:
            return "it has another loss"
        return None


@dataclass
class Seen:
    """The same while the script runs."""

    unseeded: set[str] = field(default_factory=set)
    parameters: int = 0
    modules: int = 0
    optimizers: set[tuple[str, str]] = field(default_factory=set)
    made: int = 0
    accumulates: bool = False
    losses: set[tuple[str, ...]] = field(default_factory=set)
    _known: set[int] = field(default_factory=set)

    @property
    def conduct(self) -> Conduct:
        return Conduct(
            frozenset(self.unseeded), self.parameters, self.modules, frozenset(self.optimizers), self.made,
            self.accumulates, frozenset(self.losses),
        )  # fmt: skip

    def called(self, module: torch.nn.Module) -> None:
        if id(module) not in self._known:
            self._known.add(id(module))
            self.parameters = max(self.parameters, sum(item.numel() for item in module.parameters()))
            self.modules = max(self.modules, sum(1 for _ in module.modules()))

    def begun(self, loss: Tensor) -> None:
        """A backward pass."""
        node: Any = loss.grad_fn
        names: list[str] = []
        while node is not None and len(names) < DEPTH:
            names.append(node.name())
            node = next((item for item, _ in node.next_functions if item is not None), None)
        self.losses.add(tuple(names))
        self.accumulates = self.accumulates or any(_is_there(leaf.grad) for leaf in _leaves(loss))


def _is_there(gradient: Optional[Tensor]) -> bool:
    return gradient is not None and gradient.layout == torch.strided and bool((gradient.detach() != 0).any())


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that a backward pass gives gradients to, as far as its graph is looked at."""
    waiting: list[Any] = [loss.grad_fn]
    met: set[Any] = set()
    while waiting and len(met) < NODES:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(item for item, _ in node.next_functions)


def watched(given: Any) -> tuple[Any, Callable[[], Conduct]]:
    """(context around the script, function that gives its conduct)."""
    seen = Seen()
    return observed(seen), lambda: seen.conduct


@contextlib.contextmanager
def held_to(original: Conduct) -> Iterator[None]:
    """Raises at the script's end, however that comes, where it has another conduct than the original."""
    seen = Seen()
    try:
        with observed(seen, bool(original.modules)):
            yield
    finally:
        other = seen.conduct.other_than(original)
        if other is not None:
            raise OtherConduct(f"a smaller script may not do what the original did not do: {other}")


@contextlib.contextmanager
def observed(seen: Seen, modules: bool = True) -> Iterator[None]:
    """From now on, until the process ends, what a script does is put down. modules: also which models it calls."""
    checks = [_drawing(name, state, seen) for name, state in _states()]
    if modules:
        _wrap(torch.nn.Module, "__call__", lambda module, *_, **__: seen.called(module), outermost=True)
    _wrap(Tensor, "backward", lambda loss, *_, **__: seen.begun(loss))
    _behind_init(seen)
    try:
        yield
    finally:
        for check in checks:
            check()


def _states() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The generators that a script shares with everybody, by name, and what gives their states."""
    yield "torch", lambda: torch.get_rng_state().numpy().tobytes()
    yield "random", random.getstate
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield "numpy", lambda: tuple(map(str, numpy.random.get_state(legacy=True)[1:3]))


def _drawing(name: str, state: Callable[[], Any], seen: Seen) -> Callable[[], None]:
    """Notes whether it is drawn from before it is seeded; the function that looks for the last time."""
    before = state()
    seeded: list[bool] = []

    def check() -> None:
        if not seeded and state() != before:
            seen.unseeded.add(name)

    def by(*given: Any, **named: Any) -> None:
        check()
        seeded.append(True)
        if _by_chance(given, named):
            seen.unseeded.add(name)

    for holder, setter in _seeding(name):
        _wrap(holder, setter, by)
    if name == "numpy":
        _wrap(
            sys.modules["numpy"].random, "default_rng", lambda *given, **named: _own_generator(given, named, seen, name)
        )
    return check


def _own_generator(given: Any, named: Any, seen: Seen, name: str) -> None:
    """A generator of one's own that is made without a seed, by the script itself."""
    frame: Optional[FrameType] = sys._getframe(3)
    own = frame is not None and frame.f_globals.get("__name__") == "__main__"
    if own and _by_chance(given, named):
        seen.unseeded.add(name)


def _by_chance(given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether it is called without a seed, so that the system gives one."""
    return next(iter((*given, *named.values())), None) is None


def _seeding(name: str) -> Iterator[tuple[Any, str]]:
    """What seeds a generator."""
    if name == "torch":
        for holder in (torch, torch.random):
            yield from ((holder, setter) for setter in ("manual_seed", "seed"))
    else:
        yield (random if name == "random" else sys.modules["numpy"].random), "seed"


def _wrap(holder: Any, name: str, told: Callable[..., None], outermost: bool = False) -> None:
    """Tell of each call before it is made; with ``outermost``, of those alone that are not within another."""
    original: Any = getattr(holder, name)
    inside: list[bool] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not inside:
            told(*args, **kwargs)
        if not outermost:
            return original(*args, **kwargs)
        inside.append(True)
        try:
            return original(*args, **kwargs)
        finally:
            inside.pop()

    setattr(holder, name, call)


def _behind_init(seen: Seen) -> None:
    """Each optimizer that is made, with the arguments that it goes by."""
    optimizer = torch.optim.Optimizer
    original = optimizer.__init__

    def init(self: Any, params: Any, defaults: dict[str, Any]) -> None:
        original(self, params, defaults)
        seen.made += 1
        seen.optimizers.add((type(self).__name__, repr(sorted(defaults.items(), key=lambda item: item[0]))))

    optimizer.__init__ = init  # type: ignore[method-assign]
