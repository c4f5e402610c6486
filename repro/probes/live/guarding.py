"""A training loop that is screened while it runs at full speed, and whose step is repeated where it went bad.

Of each call of the model, what it was given and the random state are kept until the optimiser has stepped; weights do
not change in between, so a call whose output is bad, or whose backward pass gave a bad gradient, can be made again as
it was. A step of the optimiser has overwritten what it read: it is made once more from what is left.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.forward import judged_output, main_output, named_outputs, run
from ..model.load import Loaded
from ..model.ready import Given, left_alone, ready
from ..observe.screen import in_plain_memory
from ..reduce.program import Program
from ..reduce.reduce import operators_of
from ..values.figures import finite_mask, is_bad, is_float, tensors_in
from ..values.nest import rebuild
from .find import Found, look_into
from .watching import Sighting, Watching

LOSS = "loss"
CALLS = 64  # of the model, between two steps of the optimiser, that are kept
EXAMPLES = 64  # of one batch that are asked one by one

Cut = Callable[[Tensor], Tensor]


def _whole(tensor: Tensor) -> Tensor:
    return tensor


@dataclass
class Call:
    """One call of the model: how it can be made again, and the gradients that came back to its outputs.

    spoilt: the step that it belongs to is not to be made.
    """

    loaded: Loaded
    given: Given
    back: dict[str, Tensor] = field(default_factory=dict)
    spoilt: bool = False


@dataclass(frozen=True)
class Bad:
    """What was bad when the screen looked. what: in words; phase: "forward", "backward" or "optimizer". call: the call
    of the model that gave it, where it is known. name: of the parameter.
    """

    what: str
    phase: str
    call: Optional[Call] = None
    name: Optional[str] = None


@dataclass(frozen=True)
class Told:
    """What repeating the step showed. found: of a forward pass; sighting: of another phase. examples: those of the
    batch that are bad alone, of how many; None where that was not asked. why: what could not be told.
    """

    bad: Bad
    found: Optional[Found] = None
    sighting: Optional[Sighting] = None
    program: Optional[Program] = None
    examples: Optional[tuple[int, ...]] = None
    batch: Optional[int] = None
    why: str = ""


class Guarding:
    """Hooks on one model and its optimisers.

    report: is told what is bad, in the thread that trains; it may raise, and what it raises ends the step.
    """

    def __init__(self, model: nn.Module, optimizers: Iterable[Any], report: Callable[[Bad], None]) -> None:
        self._model, self._report = model, report
        self._optimizers = tuple(optimizers)
        self._calls: list[Call] = []
        self._waiting: list[tuple[str, Call, Tensor, Tensor, bool]] = []
        self._busy = False
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        ]
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of the model since the last step."""
        return tuple(self._calls)

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()
        self._waiting.clear()

    # --- the screen ----------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._busy:
            return
        if not torch.is_grad_enabled():  # evaluated between two steps: nothing of it is repeated later than now
            self._calls.clear()
        del self._calls[: max(0, len(self._calls) + 1 - CALLS)]
        self._calls.append(Call(*ready(module, args, kwargs)))

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._busy or not self._calls:
            return
        call, outputs = self._calls[-1], named_outputs(output)
        seen = {LOSS: outputs[LOSS]} if LOSS in outputs else outputs
        for name, tensor in seen.items():
            if not tensor.numel():
                continue
            low, high = torch.aminmax(tensor.detach() if tensor.element_size() > 1 else tensor.detach().float())
            self._waiting.append((name, call, low, high, name == LOSS))
        self._wait_for_gradients(call, seen, output)
        if all(low.device.type == "cpu" for _, _, low, _, _ in self._waiting):
            self._read()

    @staticmethod
    def _wait_for_gradients(call: Call, seen: dict[str, Tensor], output: Any) -> None:
        name = LOSS if LOSS in seen else main_output(output)[0] if seen else None
        tensor = None if name is None else seen[name]
        if name is None or tensor is None or not tensor.requires_grad:
            return

        def keep(gradient: Tensor, name: str = name) -> None:
            before = call.back.get(name)
            call.back[name] = gradient if before is None else before + gradient

        tensor.register_hook(keep)

    def _read(self) -> None:
        """Look at what was measured: on an accelerator, the one time in a step that it is waited for."""
        waiting, self._waiting = self._waiting, []
        bounds = torch.stack([bound.to("cpu", torch.float64) for _, _, *pair, _ in waiting for bound in pair]).tolist()
        for at, (name, call, _, _, is_loss) in enumerate(waiting):
            low, high = bounds[2 * at : 2 * at + 2]
            masked = not is_loss and low == float("-inf") and high < float("inf")  # a mask's -inf is meant
            if not (low > float("-inf") and high < float("inf")) and not masked:
                what = f"the {name}" if is_loss else f"the output of {call.loaded.class_name} ({name})"
                self._told(Bad(what, "forward", call))
                return

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._busy:
            return
        if self._waiting:
            self._read()
        if any(call.spoilt for call in self._calls):
            optimizer.zero_grad(set_to_none=True)
            return
        name = self._first_bad(optimizer, lambda parameter: parameter.grad)
        if name is not None:
            self._told(Bad(f"the gradient of {name}", "backward", self._calls[-1] if self._calls else None, name))

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._busy:
            return
        name = self._first_bad(optimizer, lambda parameter: parameter)
        if name is not None:
            self._told(Bad(f"the parameter {name}", "optimizer", None, name))
        self._calls.clear()

    def _told(self, bad: Bad) -> None:
        self._waiting.clear()
        self._report(bad)

    def _first_bad(self, optimizer: Any, part: Callable[[Tensor], Optional[Tensor]]) -> Optional[str]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held = [(parameter, tensor) for parameter in parameters for tensor in _local(part(parameter))]
        if not held or _are_finite([tensor for _, tensor in held]):
            return None
        bad = next((parameter for parameter, tensor in held if is_bad(tensor)), None)
        return None if bad is None else self._names.get(id(bad), "a parameter of the optimizer")

    # --- the step again ------------------------------------------------------------------------------------------

    def look_into(self, bad: Bad, optimizer: Optional[Any] = None) -> Told:
        """Make again what went bad, watched. What the training holds is afterwards as it was."""
        if any(type(parameter).__name__ == "DTensor" for parameter in self._model.parameters()):
            return Told(bad, why="the model is sharded over several processes, and this one cannot repeat a step alone")
        with self._kept():
            if bad.phase == "forward" and bad.call is not None:
                return self._forward_again(bad, bad.call)
            if bad.phase == "backward":
                return self._backward_again(bad)
            return self._step_again(bad, optimizer or self._optimizers[0])

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Random state, buffers and gradients are put back; the hooks of the screen say nothing meanwhile."""
        self._busy = True
        gradients = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        try:
            with torch.enable_grad(), left_alone(self._model):
                yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            self._busy = False

    def _forward_again(self, bad: Bad, call: Call) -> Told:
        found = look_into(call.loaded, call.given)
        origin = None if found.bisected is None else (found.bisected[2] or {}).get("origin")
        if origin is None:
            why = (
                "the call is good when it is made again" if not found.seen.bad else "its origin could not be confirmed"
            )
            return Told(bad, found, why=why)
        program = operators_of(call.loaded, call.given, origin)
        alone = self._alone(call, partial(_is_bad_call, call.loaded))
        return Told(bad, found, None, program, *alone)

    def _backward_again(self, bad: Bad) -> Told:
        for call in self._calls:
            for name, gradient in call.back.items():
                if is_bad(gradient):
                    why = f"the gradient that came back to {name} was bad: it was made behind the model, in the loss"
                    return Told(bad, why=why)
        self._drop_gradients()
        watching = Watching(self._model)
        with _watched(watching):
            for call in self._calls:
                _backward(call, call.given, _whole)
        seen = watching.sighting
        if seen is None:
            return Told(bad, why="the backward pass is good when it is made again")
        if seen.origin is not None and seen.origin.get("forward_source"):
            seen.origin["source"] = seen.origin["forward_source"]  # the pass was started from here, not by the program
        guilty = next((call for call in self._calls if self._gives_bad_gradient(call, call.given)), None)
        alone = (None, None) if guilty is None else self._alone(guilty, partial(self._gives_bad_gradient, guilty))
        return Told(bad, None, seen, seen.program, *alone, why=seen.why)

    def _drop_gradients(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None

    def _gives_bad_gradient(self, call: Call, given: Given, cut: Cut = _whole) -> bool:
        self._drop_gradients()
        _backward(call, given, cut)
        return any(is_bad(tensor) for parameter in self._model.parameters() for tensor in _local(parameter.grad))

    def _step_again(self, bad: Bad, optimizer: Any) -> Told:
        """A step from the gradients and the state that are left, with 0 where a number is bad by now."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if all(parameter.grad is None for parameter in parameters):
            return Told(bad, why="the gradients are gone, so the step cannot be made again")
        before, state = [parameter.detach().clone() for parameter in parameters], optimizer.state
        watching = Watching(self._model, tuple(parameters))
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
        size = _batch_of(call.given)
        if size is None or not 1 < size <= EXAMPLES:
            return None, size
        for times in (1, 2):  # a batch norm in training takes no single example, and the same one twice
            cuts = [partial(_example, at=at, size=size, times=times) for at in range(size)]
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
    pairs = [(outputs[name], cut(gradient)) for name, gradient in call.back.items() if name in outputs]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def _is_bad_call(loaded: Loaded, given: Given, cut: Cut) -> bool:
    return is_bad(judged_output(run(loaded.model, given))[1])


def _batch_of(given: Given) -> Optional[int]:
    """How many examples there are: the first dimension of the first tensor."""
    first = next((tensor for tensor in tensors_in(list(_all_of(given))) if tensor.dim()), None)
    return None if first is None else int(first.shape[0])


def _all_of(given: Given) -> Iterator[Any]:
    yield from given.arguments().values()
    yield from given.positional


def _example(tensor: Tensor, at: int, size: int, times: int) -> Tensor:
    """One example of the batch, once or several times; a tensor that is not as long as the batch, as it is."""
    return torch.cat([tensor[at : at + 1]] * times) if tensor.dim() and tensor.shape[0] == size else tensor


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


def _local(tensor: Optional[Tensor]) -> Iterator[Tensor]:
    """The numbers of a tensor that are in this process: of a sharded one its part, of a sparse one its values."""
    if tensor is None or not is_float(tensor):
        return
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    plain = in_plain_memory(local.detach())
    if plain is not None and plain.numel() and not plain.is_meta:
        yield plain


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether all are, by their norms: one pass over each. A norm may overflow where no element is infinite, so False
    only says that it has to be looked at closely.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    norms = [torch.stack(list(torch._foreach_norm(group))).sum().double() for group in groups.values()]
    return all(math.isfinite(value) for value in torch.stack([norm.cpu() for norm in norms]).tolist())
