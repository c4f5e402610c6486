"""A step of a training that went bad, made again: forward pass, backward pass, or the optimiser's own step.

Weights do not change between the forward pass and the optimiser's step, so a call whose output is bad, or whose
backward pass gave a bad gradient, is made again as it was. A step of the optimiser has overwritten what it read: it is
made once more from what is left.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.forward import judged_pass, named_outputs, run
from ..model.load import Loaded
from ..model.ready import Given, left_alone
from ..observe.screen import in_plain_memory
from ..reduce.program import Program
from ..values.figures import finite_mask, is_bad, is_float, tensors_in
from ..values.nest import rebuild
from .find import Found, look_into
from .sharded import ALONE, is_split, local_of
from .watching import Sighting, Watching

BEHIND = (
    "it was made behind the model, by code of the program's own that cannot be made again: `with repro.watch(model):` "
    "around one step names the operator"
)
NOT_AGAIN = (
    "the calls of the model, and their backward passes from the gradients that came back, are good when they are made "
    "again; what the program's own code does behind the model (a loss, a gradient of a gradient) was not: "
    "`with repro.watch(model):` around one step sees it"
)
LOSS, BUFFER = "loss", "buffer"
EXAMPLES = 64  # of one batch that are asked one by one

Cut = Callable[[Tensor], Tensor]


def _whole(tensor: Tensor) -> Tensor:
    return tensor


@dataclass
class Call:
    """One call of the model: how it can be made again, and the gradients that came back to its outputs.

    spoilt: the step that it belongs to is not to be made. arrivals: how many gradients have come back so far.
    """

    loaded: Loaded
    given: Given
    back: dict[str, Tensor] = field(default_factory=dict)
    spoilt: bool = False
    arrivals: int = 0

    def bring_to(self, own: torch.dtype) -> None:
        """The model's own dtype is another one than was seen when the call was kept."""
        self.loaded, self.given = replace(self.loaded, dtype=own), self.given.of_a_model_in(own)


@dataclass(frozen=True)
class Bad:
    """What was bad when the screen looked. what: in words; phase: "forward", "backward" or "optimizer". call: the call
    of the model that gave it, where it is known. name: of the parameter. is_too_late: whether it was used already.
    closure: makes again what an optimiser's closure did, where it was that. agreed: whether all processes of a sharded
    model know of it, and are at the same place. elsewhere: whether it was not seen in this one. kind: LOSS for what a
    backward pass began at, BUFFER for one of the model's.
    """

    what: str
    phase: str
    call: Optional[Call] = None
    name: Optional[str] = None
    is_too_late: bool = False
    closure: Optional[Callable[[], Any]] = None
    agreed: bool = False
    elsewhere: bool = False
    kind: Optional[str] = None


@dataclass(frozen=True)
class Told:
    """What repeating the step showed. found: of a forward pass; sighting: of another phase. examples: those of the
    batch that are bad alone, of how many; None where that was not asked. why: what could not be told. is_good: whether
    nothing was bad when it was made again.
    """

    bad: Bad
    found: Optional[Found] = None
    sighting: Optional[Sighting] = None
    program: Optional[Program] = None
    examples: Optional[tuple[int, ...]] = None
    batch: Optional[int] = None
    why: str = ""
    is_good: bool = False


class Again:
    """What is known of one step: the model, its calls, and the optimiser where its state is here.

    names: of the optimiser's parameters, by their identity, where these are not the model's own.
    """

    def __init__(
        self,
        model: nn.Module,
        calls: Iterable[Call],
        optimizer: Optional[Any] = None,
        names: Optional[Mapping[int, str]] = None,
    ) -> None:
        self._model, self._calls, self._optimizer = model, tuple(calls), optimizer
        self._names = names or {}

    def look_into(self, bad: Bad) -> Told:
        """Make again what went bad, watched. What the training holds is afterwards as it was."""
        if is_split(self._model):
            return Told(bad, why=ALONE)
        for call in {id(call): call for call in (*self._calls, *filter(None, [bad.call]))}.values():
            call.given = call.given.settled()
        with self._kept():
            if bad.kind == BUFFER:
                return self._buffers_again(bad)
            if bad.phase == "forward" and bad.call is not None:
                return self._forward_again(bad, bad.call)
            if bad.closure is not None:
                return self._closure_again(bad, bad.closure)
            if bad.kind == LOSS:
                return Told(bad, why=BEHIND)
            if bad.phase == "backward":
                return self._backward_again(bad)
            if self._optimizer is None:
                return Told(bad, why="the optimizer's state is not known, so its step cannot be made again")
            return self._step_again(bad, self._optimizer)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Random state, buffers and gradients are put back."""
        gradients = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        try:
            with torch.enable_grad(), left_alone(self._model):
                yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient

    def _forward_again(self, bad: Bad, call: Call) -> Told:
        found = look_into(call.loaded, call.given)
        origin = None if found.bisected is None else (found.bisected[2] or {}).get("origin")
        if origin is None:
            why = (
                "the call is good when it is made again" if found.seen is None else "its origin could not be confirmed"
            )
            return Told(bad, found, why=why, is_good=found.seen is None)
        program = found.operators
        alone = self._alone(call, partial(_is_bad_call, call.loaded))
        return Told(bad, found, None, program, *alone)

    def _backward_again(self, bad: Bad) -> Told:
        for call in self._calls:
            name = _bad_behind(call)
            if name is not None:
                return Told(bad, why=f"the gradient that came back to {name} was bad: {BEHIND}")
        self._drop_gradients()
        watching = Watching(self._model, judges_masks=False)
        with _watched(watching):
            for call in self._calls:
                _backward(call, call.given, _whole)
        seen = watching.sighting
        if seen is None:
            return Told(bad, why=NOT_AGAIN, is_good=True)
        if seen.origin is not None and seen.origin.get("forward_source"):
            seen.origin["source"] = seen.origin["forward_source"]  # the pass was started from here, not by the program
        guilty = next((call for call in self._calls if self._gives_bad_gradient(call, call.given)), None)
        alone = (None, None) if guilty is None else self._alone(guilty, partial(self._gives_bad_gradient, guilty))
        return Told(bad, None, seen, seen.program, *alone, why=seen.why)

    def _buffers_again(self, bad: Bad) -> Told:
        """The calls of the model, from the buffers with which each began."""
        for call in self._calls:
            if call.given.beginning is not None:
                call.given.beginning.put()
            watching = Watching(self._model, judges_masks=False)
            with _watched(watching), contextlib.suppress(Exception):  # the same as when the program made the call
                call.given.call(call.loaded.model, call.given.arguments())
            seen = watching.sighting
            if seen is not None:
                if seen.origin is not None:
                    seen.origin["phase"] = "forward"  # it is made again within the optimizer's step
                return Told(bad, None, seen, seen.program, why=seen.why)
        return Told(bad, why="no call of the model puts it there: the program writes to it between them")

    def _closure_again(self, bad: Bad, closure: Callable[[], Any]) -> Told:
        """What an optimiser's closure did, from the weights that it was called with. What the program itself counts or
        reads in it goes on, so that it may do something else.
        """
        watching = Watching(self._model, judges_masks=False)
        with _watched(watching):
            closure()
        seen = watching.sighting
        if seen is not None:
            return Told(bad, None, seen, seen.program, why=seen.why)
        behind = next((name for call in self._calls for name, one in call.back.items() if is_bad(one)), None)
        why = "the optimizer's closure gives nothing bad when it is called again"
        if behind is not None:
            why = f"the gradient that came back to {behind} was bad: it was made behind the model, in the loss; {why}"
        return Told(bad, why=why, is_good=behind is None)

    def _drop_gradients(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None

    def _gives_bad_gradient(self, call: Call, given: Given, cut: Cut = _whole) -> bool:
        self._drop_gradients()
        _backward(call, given, cut)
        return any(is_bad(tensor) for parameter in self._model.parameters() for tensor in local_parts(parameter.grad))

    def _step_again(self, bad: Bad, optimizer: Any) -> Told:
        """A step from the gradients and the state that are left, with 0 where a number is bad by now."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if all(parameter.grad is None for parameter in parameters):
            return Told(bad, why="the gradients are gone, so the step cannot be made again")
        before, state = [parameter.detach().clone() for parameter in parameters], optimizer.state
        watching = Watching(self._model, tuple(parameters), names=self._names)
        try:
            optimizer.state = defaultdict(dict, {key: _sound(values) for key, values in state.items()})
            with torch.no_grad():
                for parameter in parameters:
                    parameter.copy_(_sound(parameter))
            with _watched(watching):
                optimizer.step()
        finally:
            optimizer.state = state
            with torch.no_grad():
                for parameter, values in zip(parameters, before):
                    parameter.copy_(values)
        seen = watching.sighting
        if seen is None:
            return Told(bad, why="a step from the gradients and the state that are left is good")
        return Told(bad, None, seen, seen.program, why=seen.why)

    def _alone(
        self, call: Call, is_bad_alone: Callable[[Given, Cut], bool]
    ) -> tuple[Optional[tuple[int, ...]], Optional[int]]:
        """Which examples of the batch are bad alone, and how many there are."""
        dim = _batch_dim(call.loaded.model)
        size = None if dim is None else _batch_of(call.given, dim)
        if dim is None or size is None or not 1 < size <= EXAMPLES:
            return None, size
        for times in (1, 2):  # a batch norm in training takes no single example, and the same one twice
            cuts = [partial(_example, at=at, size=size, times=times, dim=dim) for at in range(size)]
            try:
                return tuple(at for at, cut in enumerate(cuts) if is_bad_alone(_cut(call.given, cut), cut)), size
            except Exception:  # noqa: BLE001 - the model's own code refuses in its own words; then it is not known
                continue
        return None, size


@contextlib.contextmanager
def _watched(watching: Watching) -> Iterator[None]:
    watching.start()
    try:
        yield
    finally:
        watching.end()


def _backward(call: Call, given: Given, cut: Cut) -> None:
    """A call and its backward pass, from the gradients that came back to its outputs, cut as the inputs are."""
    outputs = named_outputs(given.call(call.loaded.model, given.arguments()))
    pairs = [(outputs[name], cut(call.back[name])) for name in _last(call, outputs)]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def _bad_behind(call: Call) -> Optional[str]:
    """The output to which a bad gradient came back from what the program does behind the model."""
    if not any(map(is_bad, call.back.values())):
        return None
    outputs = named_outputs(call.given.call(call.loaded.model, call.given.arguments()))
    return next((name for name in _last(call, outputs) if is_bad(call.back[name])), None)


def _last(call: Call, outputs: dict[str, Tensor]) -> list[str]:
    """The outputs to which a gradient came back and of which no other such one is made: what comes back to the rest
    comes through these, as far as it can be told.
    """
    back = [name for name in call.back if name in outputs]
    before = {name: _nodes_before(outputs[name]) for name in back}
    return [name for name in back if not any(outputs[name].grad_fn in before[other] for other in back)]


def _nodes_before(tensor: Tensor) -> set[Any]:
    """The autograd nodes that a tensor's own is fed by."""
    found: set[Any] = set()
    left = [tensor.grad_fn]
    while left:
        for node, _ in getattr(left.pop(), "next_functions", ()):
            if node is not None and node not in found:
                found.add(node)
                left.append(node)
    return found


def _is_bad_call(loaded: Loaded, given: Given, cut: Cut) -> bool:
    name, output, written = judged_pass(loaded.model, given, run(loaded.model, given))
    return name not in written and is_bad(output)


def _batch_dim(model: nn.Module) -> Optional[int]:
    """Which dimension is the batch's: PyTorch's own layers may want the sequence first. None where one of these lies
    inside of a model, which may turn its inputs round or not.
    """
    first = [getattr(module, "batch_first", None) is False for module in model.modules()]
    return int(first[0]) if first[0] or not any(first) else None


def _batch_of(given: Given, dim: int) -> Optional[int]:
    """How many examples there are: the size of the first tensor."""
    first = next((tensor for tensor in tensors_in(list(_all_of(given))) if tensor.dim() > 2 * dim), None)
    return None if first is None or not first.dim() else int(first.shape[dim])


def _all_of(given: Given) -> Iterator[Any]:
    yield from given.arguments().values()
    yield from given.positional


def _example(tensor: Tensor, at: int, size: int, times: int, dim: int) -> Tensor:
    """One example of the batch, once or several times; a tensor that is not as long as the batch, as it is."""
    if tensor.dim() <= dim or tensor.shape[dim] != size:
        return tensor
    return torch.cat([tensor.narrow(dim, at, 1)] * times, dim)


def _cut(given: Given, cut: Cut) -> Given:
    return replace(
        given,
        input_ids=None if given.input_ids is None else cut(given.input_ids),
        attention_mask=None if given.attention_mask is None else cut(given.attention_mask),
        values=rebuild(dict(given.values), Tensor, cut),
        positional=rebuild(given.positional, Tensor, cut),
    )


def _sound(nest: Any) -> Any:
    """A copy with 0 where a number is not finite."""

    def sound(tensor: Tensor) -> Tensor:
        if not is_float(tensor):
            return tensor.detach().clone()
        return torch.where(finite_mask(tensor.detach()), tensor.detach(), torch.zeros_like(tensor))

    return rebuild(nest, Tensor, sound)


def local_parts(tensor: Optional[Tensor]) -> Iterator[Tensor]:
    """The numbers of a tensor that are in this process: of a sharded one its part, of a sparse one its values."""
    if tensor is None or not is_float(tensor):
        return
    plain = in_plain_memory(local_of(tensor).detach())
    if plain is not None and plain.numel() and not plain.is_meta:
        yield plain
