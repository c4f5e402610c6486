"""The gradients of two ways of running a model, held against each other.

Both ways are run forward and backward from one and the same random gradient of what the model gives, so no loss is
needed. What comes back is held side by side in the order in which the backward pass makes it: the gradient of each
module's output, which the code behind that module makes, and that of each parameter, which its module makes. Rounding
is measured as everywhere: the same with every operator's result, forward and backward, moved at its last digit.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.forward import arguments_of, main_output
from ..model.inputs import Inputs, unvalidated
from ..observe.watch import ALWAYS, Watch, aside, watched
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from ..values.figures import dtype_name, is_float, scalar, tensors_in
from .held.deviation import Apart, Ratio, apart, drift_of, farthest, held_against
from .held.hold import Way, beyond, degree, figures_of
from .held.noise import Noise
from .held.store import Store

SEEDS = (5, 6, 7)
MORE_SEEDS = (8, 9, 10)  # of this way's drift, before anything is said to part
MOST_MODULES = 20  # that part are named


@dataclass(frozen=True)
class Place:
    """Where a gradient is: of a parameter, or of what a module gives in one pass."""

    module: str
    parameter: Optional[str] = None
    pass_: int = 0

    @property
    def words(self) -> str:
        if self.parameter is not None:
            return f"the gradient of {self.parameter}"
        return f"the gradient that comes back to {self.module or 'the model'}"


See = Callable[[Place, Tensor], None]


@dataclass
class Kept:
    """The gradients of one way by place, in the order of the backward pass."""

    store: Store = field(default_factory=Store)
    numbers: dict[Place, int] = field(default_factory=dict)

    def put(self, place: Place, tensor: Tensor) -> None:
        self.numbers[place] = self.store.put(tensor)

    def get(self, place: Place) -> Tensor:
        return self.store.get(self.numbers[place])

    def apart(self, found: dict[Place, Apart]) -> See:
        """Holds what it is given against the gradient of its place."""

        def see(place: Place, tensor: Tensor) -> None:
            if place in self.numbers and self.get(place).shape == tensor.shape:
                found[place] = apart(self.get(place), tensor)

        return see


@dataclass(frozen=True)
class Backward:
    """A model that is run forward and backward. main: the output at which the backward pass begins. takers: of each
    module, those that are given what it gives.
    """

    model: nn.Module
    inputs: tuple[Inputs, ...]
    main: str
    takers: dict[str, dict[str, None]] = field(default_factory=dict)

    def blamed(self, place: Place) -> str:
        """The module that makes a gradient: a parameter's own; or the one that takes what a module gives; of several,
        the one around them.
        """
        if place.parameter is not None:
            return place.module
        around = place.module.rpartition(".")[0]
        paths = [name.split(".") for name in self.takers.get(place.module, {around: None})]
        common = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths))
        return ".".join(parts[0] for parts in common) if len(paths) > 1 else ".".join(paths[0])

    def run(self, way: Way, see: See, noise: Optional[Noise] = None) -> list[Place]:
        """Tells of each gradient once: of a module's output as it is made, of parameters at the end of all passes.

        Returns:
            The places, in the order in which the backward pass makes them.

        Raises:
            Exception: what the model's own code raises.
        """
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        before = {name: parameter.grad for name, parameter in parameters.items()}
        order: list[Place] = []
        own = {name: Place(name.rpartition(".")[0], name) for name in parameters}
        with contextlib.ExitStack() as stack:
            stack.callback(_restore, parameters, before)
            for name, parameter in parameters.items():
                parameter.grad = None
                stack.callback(parameter.register_hook(_marking(order, own[name])).remove)
            stack.enter_context(way.setting())
            if noise is not None:
                stack.enter_context(watched(self.model, Watch(noise.visit)))
            for at, made in enumerate(self.inputs):
                with self._told(at, see, order), torch.enable_grad(), unvalidated():
                    output = main_output(made.call(self.model, arguments_of(self.model, made)), self.main)[1]
                    torch.autograd.backward(output, _begun(output, at))
            with aside():
                for name, parameter in parameters.items():
                    if parameter.grad is not None:
                        see(own[name], parameter.grad)
        return order

    @contextlib.contextmanager
    def _told(self, at: int, see: See, order: list[Place]) -> Iterator[None]:
        """``see`` is told of the gradients of what modules give, in the order in which they are made.

        Of a module that is called again in a pass, the one that is made first is held.
        """
        done: set[str] = set()
        made_by: dict[int, tuple[Tensor, str]] = {}

        def told(name: str) -> Callable[[Tensor], None]:
            def hook(grad: Tensor) -> None:
                if name not in done:
                    done.add(name)
                    order.append(Place(name, None, at))
                    with aside():
                        see(order[-1], grad.detach())

            return hook

        def before(name: str) -> Any:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
                for tensor in tensors_in((args, kwargs)):
                    if id(tensor) in made_by:
                        self.takers.setdefault(made_by[id(tensor)][1], {})[name] = None

            return hook

        def behind(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                found = next((tensor for tensor in tensors_in(output) if is_float(tensor)), None)
                if found is not None and found.requires_grad and not isinstance(found, nn.Parameter):
                    found.register_hook(told(name))
                    made_by.setdefault(id(found), (found, name))

            return hook

        named = [row for row in self.model.named_modules() if row[0]]
        handles = [m.register_forward_hook(behind(name), **ALWAYS) for name, m in named]
        handles += [m.register_forward_pre_hook(before(name), with_kwargs=True) for name, m in named]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _restore(parameters: dict[str, nn.Parameter], before: dict[str, Optional[Tensor]]) -> None:
    for name, parameter in parameters.items():
        parameter.grad = before[name]


def _marking(order: list[Place], place: Place) -> Callable[[Tensor], None]:
    def hook(grad: Tensor) -> None:
        order.append(place)

    return hook


def _begun(output: Tensor, at: int) -> Tensor:
    """What a loss would give back: random numbers, of which a row has about the size 1."""
    generator = torch.Generator().manual_seed(SEEDS[0] + at)
    drawn = torch.randn(output.shape, generator=generator) / max(1, output.shape[-1] if output.dim() else 1) ** 0.5
    return drawn.to(output.device, output.dtype)


def with_gradients(
    model: nn.Module, this: Way, other: Way, inputs: tuple[Inputs, ...], main: str, outcome: Outcome
) -> Outcome:
    """What the two ways give agrees: the same answer, with the gradients of both held side by side."""
    _, reason, payload = outcome
    assert payload is not None  # a good one has figures
    if not any(parameter.requires_grad for parameter in model.parameters()):
        payload["gradients"] = {"why_not": "no parameter requires a gradient"}
        return "good", f"{reason}; gradients are not compared: no parameter requires one", payload
    try:
        found = held(Backward(model, inputs, main), this, other)
    except Exception as error:  # noqa: BLE001 - the model's own code, or an operator without a backward pass
        why = in_words(error)
        payload["gradients"] = {"why_not": why}
        return "good", f"{reason}; gradients are not compared: {why}", payload
    payload["gradients"] = {key: found[key] for key in ("parameters", "places", "nearest")}
    if found["departure"] is None:
        most = f"; the farthest is at {found['share']:.2g} of what rounding allows" if found["places"] else ""
        words = f"the gradients of {found['parameters']:,} parameters agree as well{most}"
        return "good", f"{reason}; {words}", payload
    payload.update(departure=found["departure"], modules=found["modules"])
    return "bad", f"against {other.words}: the two give the same, and {found['words']}", payload


def held(backward: Backward, this: Way, other: Way) -> dict[str, Any]:
    """Three passes forward and backward, of which one is rounded at random; where something parts, two more that
    measure the drift of the other way, and three that draw that of this way again.
    """
    ours, drift, found = Kept(), dict[Place, Apart](), dict[Place, Apart]()
    order = dict.fromkeys(backward.run(this, ours.put))
    backward.run(this, ours.apart(drift), Noise(SEEDS[1]))
    met: dict[Place, None] = {}
    held_to = ours.apart(found)

    def see(place: Place, tensor: Tensor) -> None:
        met[place] = None
        held_to(place, tensor)

    backward.run(other, see)
    moved = {place: drift_of(row) for place, row in drift.items()}
    ratios = {
        place: held_against(found[place], moved.get(place), _unit(ours.get(place))) for place in order if place in found
    }
    alone = [place for place in dict.fromkeys((*order, *met)) if _is_alone(place, ours, met)]
    theirs = Kept()
    if any(map(beyond, ratios.values())):
        for seed in MORE_SEEDS:
            drawn = dict[Place, Apart]()
            backward.run(this, ours.apart(drawn), Noise(seed))
            moved.update((place, drift_of(row).or_more(moved.get(place))) for place, row in drawn.items())
        again = dict[Place, Apart]()
        backward.run(other, theirs.put)
        backward.run(other, theirs.apart(again), Noise(SEEDS[2]))
        for place, row in again.items():
            if place in ratios and place in moved:
                both = moved[place].and_also(drift_of(row))
                ratios[place] = held_against(found[place], both, ratios[place].unit)
    departing = [place for place, ratio in ratios.items() if beyond(ratio)]
    nearest = max(ratios, key=lambda place: degree(ratios[place]), default=None)
    answer: dict[str, Any] = {
        "parameters": sum(place.parameter is not None for place in ratios),
        "places": len(ratios),
        "nearest": None if nearest is None else _beside(backward, nearest, found[nearest], ratios[nearest]),
        "share": 0.0 if nearest is None else degree(ratios[nearest]),
        "departure": None,
        "modules": list(dict.fromkeys(map(backward.blamed, departing)))[:MOST_MODULES],
    }
    if alone:
        place = alone[0]
        here = place in ours.numbers
        answer["departure"] = _record(backward, place)
        answer["words"] = f"{place.words} is there in one of them alone ({'this way' if here else 'the other way'})"
        answer["modules"] = [place.module]
    elif departing:
        first = departing[0]
        one, two, ratio = ours.get(first), theirs.get(first), ratios[first]
        at = farthest(one, two)
        answer["departure"] = {
            **_record(backward, first),
            **_beside(backward, first, found[first], ratio),
            "element": list(at),
            "this": scalar(one, at),
            "other": scalar(two, at),
            "dtype": dtype_name(one.dtype),
            "other_dtype": dtype_name(two.dtype),
        }
        how = f"{ratio.mismatched:,} values of which one alone is a number" if ratio.mismatched else None
        how = how or f"{degree(ratio):.3g} times what rounding allows"
        answer["words"] = (
            f"{first.words} parts first in the backward pass, in {backward.blamed(first) or 'the model'}: {how}"
        )
    return answer


def _unit(tensor: Tensor) -> float:
    return float(torch.finfo(tensor.dtype).eps)


def _is_alone(place: Place, ours: Kept, met: dict[Place, None]) -> bool:
    """Of parameters: that of a module's output is not kept where the module is run again."""
    return place.parameter is not None and (place in ours.numbers) != (place in met)


def _beside(backward: Backward, place: Place, found: Apart, ratio: Ratio) -> dict[str, Any]:
    return {"module": backward.blamed(place), "what": "gradient", **figures_of(found, ratio)}


def _record(backward: Backward, place: Place) -> dict[str, Any]:
    module = backward.blamed(place)
    return {
        "module": module,
        "module_class": type(backward.model.get_submodule(module)).__name__,
        "call_index": None,
        "prompt": place.pass_,
        "what": "gradient",
        "path": place.parameter or "",
        "of": None if place.parameter is not None else place.module,
    }
