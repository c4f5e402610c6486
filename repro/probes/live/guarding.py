"""A training loop that is screened while it runs at full speed.

Of each call of the model, what it was given and the random state are kept until the optimiser has stepped, so that a
step that goes bad can be made again.
"""

import math
from collections.abc import Iterable
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.forward import main_output, named_outputs
from ..model.ready import ready
from ..values.figures import is_bad
from .again import Again, Bad, Call, Told, local_parts

LOSS = "loss"
CALLS = 64  # of the model, between two steps of the optimiser, that are kept


class Guarding:
    """Hooks on one model and its optimisers.

    report: is told what is bad, in the thread that trains; it may raise, and what it raises ends the step. by_hand: who
    trains calls ``before_step``, for the optimiser's own step begins before there are gradients.
    """

    def __init__(
        self, model: nn.Module, optimizers: Iterable[Any], report: Callable[[Bad], None], by_hand: bool = False
    ) -> None:
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
            if not by_hand:
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
        self.before_step(optimizer)

    def before_step(self, optimizer: Any) -> None:
        """The gradients are there, and the optimiser is about to use them."""
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
        held = [(parameter, tensor) for parameter in parameters for tensor in local_parts(part(parameter))]
        if not held or _are_finite([tensor for _, tensor in held]):
            return None
        bad = next((parameter for parameter, tensor in held if is_bad(tensor)), None)
        return None if bad is None else self._names.get(id(bad), "a parameter of the optimizer")

    def look_into(self, bad: Bad) -> Told:
        """Make again what went bad. The hooks of the screen say nothing meanwhile."""
        self._busy = True
        try:
            return Again(self._model, self._calls, next(iter(self._optimizers), None)).look_into(bad)
        finally:
            self._busy = False


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether all are, by their norms: one pass over each. A norm may overflow where no element is infinite, so False
    only says that it has to be looked at closely.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    norms = [torch.stack(list(torch._foreach_norm(group))).sum().double() for group in groups.values()]
    return all(math.isfinite(value) for value in torch.stack([norm.cpu() for norm in norms]).tolist())
