"""A training loop that is screened while it runs at full speed.

Of each call of the model, what it was given and the random state are kept until the optimiser has stepped, so that a
step that goes bad can be made again.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..machine.chance import Chance
from ..model.forward import named_outputs
from ..model.load import dtype_of
from ..model.ready import ready
from ..observe.watch import ALWAYS, aside, depth
from ..protocol.failures import in_words
from ..values.figures import is_bad, widen
from .again import BUFFER, LOSS, Again, Bad, Call, Told, local_parts
from .compiled import InPlace, compiled_in_place, eagerly, is_tracing, wrappers_of
from .losses import hear, hear_no_more
from .sharded import ALONE, LATER, PHASES, Together, of_this_process

OUTPUTS = 8  # of one call, whose gradients are kept
CALLS = 64  # of the model, between two steps of the optimiser, that are kept
UNSEEN = "the model ran inside of compiled code only, where its inputs cannot be kept: compile the model by itself"
BEFORE = "it held that before the guard began: what made or loaded the weights put it there"
STEPS = "the model's own call makes the optimizer's step, so it cannot be made again without changing the training"


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
        self._current: Optional[Call] = None
        self._lost = UNSEEN  # why there is no call that could be made again
        self._together = Together.of(model) if self._optimizers else None
        self._refused: Optional[str] = None  # why the whole weights cannot be here
        self._own: Optional[Bad] = None  # what this process has seen, and the others of a sharded model do not know yet
        self._waiting: list[tuple[str, Optional[Call], Tensor, Tensor, bool]] = []
        self._losses: list[tuple[Tensor, Any]] = []  # that backward passes began at, and what each was multiplied by
        self._depth = depth()
        self._met = False  # whether any call was seen; it is asked once
        self._stepping = False  # whether the optimiser is in its step
        self._seen_in_step = False  # whether something bad was told of this step already
        self._running = False  # whether a call of the model is under way
        self._steps_inside = False  # whether the optimiser steps within one
        self._wrapped = False  # whether a call came in through what wraps the model
        self.unread: Optional[str] = None  # why an output could not be read, where one could not
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._bad_before = frozenset(
            name for name, parameter in model.named_parameters() if any(map(is_bad, local_parts(parameter)))
        )
        # Those that hold none when the guard begins; of the others it is what they are for, or was there before.
        self._buffers = [
            (name, module._buffers, key)
            for path, module in model.named_modules()
            for key in (() if isinstance(module, torch.jit.ScriptModule) else module._buffers)
            if _is_sound(module._buffers[key]) and (name := f"{path}.{key}" if path else key)
        ]
        self._class_name = type(model).__name__
        self._handles: list[Any] = []
        self._on_model: list[Any] = []
        self._put_on()
        for optimizer in self._optimizers:
            if not by_hand:
                self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
        if self._optimizers:
            hear(self._begins_backward)

    def _put_on(self) -> None:
        """The hooks stand where calls come in and nothing is compiled: on the wrapper of a compiled module, not in it.
        On the module itself they stand where no wrapper is known, or none is called, and do nothing while it is traced.
        """
        again = bool(self._on_model)
        self._take_off()
        wrappers = wrappers_of(self._model)
        for wrapper in wrappers:
            self._on_model.append(wrapper.register_forward_pre_hook(self._before_wrapped, with_kwargs=True))
            self._on_model.append(wrapper.register_forward_hook(self._after_wrapped, **ALWAYS))
        if compiled_in_place(self._model) is not None:
            self._on_model.append(InPlace(self._model, self._before, self._after))
        elif isinstance(self._model, torch.jit.ScriptModule):  # takes no hooks of its own
            self._on_model.append(register_module_forward_pre_hook(self._before_any))
            self._on_model.append(register_module_forward_hook(self._after_any))
        elif again or not wrappers:
            self._on_model.append(self._model.register_forward_pre_hook(self._before, with_kwargs=True))
            self._on_model.append(self._model.register_forward_hook(self._after))

    def _take_off(self) -> None:
        for handle in self._on_model:
            handle.remove()
        self._on_model.clear()

    @property
    def is_deaf(self) -> bool:
        """Whether what runs is the kit's own: a step that is made again, a ``find`` within the loop."""
        return depth() > self._depth

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of the model since the last step."""
        return tuple(self._calls)

    def close(self) -> None:
        """Take the hooks off."""
        self._take_off()
        hear_no_more(self._begins_backward)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()
        self._waiting.clear()
        self._losses.clear()
        self._current = None

    # --- the screen ----------------------------------------------------------------------------------------------

    def _before_wrapped(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._before(module, args, kwargs)
        self._wrapped = True

    def _after_wrapped(self, module: nn.Module, args: Any, output: Any) -> None:
        self._wrapped = False
        if output is not None:
            self._after(module, args, output)

    def _before_any(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module is self._model:
            self._before(module, args, {})

    def _after_any(self, module: nn.Module, args: Any, output: Any) -> None:
        if module is self._model:
            self._after(module, args, output)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_tracing() or self.is_deaf or self._wrapped:
            return
        if not torch.is_grad_enabled():  # evaluated between two steps: nothing of it is repeated later than now
            self._calls.clear()
        del self._calls[: max(0, len(self._calls) + 1 - CALLS)]
        self._current, self._met, self._running = None, True, True
        try:
            self._current = Call(*ready(self._model, args, kwargs))
            self._calls.append(self._current)
        except Exception as error:  # noqa: BLE001 - of the program's own objects; the model is called all the same
            self._lost = f"what the model was given cannot be kept: {in_words(error)}"

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if is_tracing() or self.is_deaf or self._wrapped:
            return
        self._running = False
        try:
            self._measure(output)
        except Exception as error:  # noqa: BLE001 - of the program's own objects; what cannot be read is not screened
            self.unread = self.unread or in_words(error)
        if all(low.device.type == "cpu" for _, _, low, _, _ in self._waiting):
            self._read()

    def _measure(self, output: Any) -> None:
        """Bounds of what the model gave, without waiting for the device."""
        call, outputs = self._current, named_outputs(output)
        seen = {LOSS: outputs[LOSS]} if LOSS in outputs else outputs
        if call is not None:
            self._wait_for_gradients(call, outputs)
        for name, tensor in seen.items():
            if not tensor.numel():
                continue
            plain = tensor.detach()
            low, high = torch.aminmax(widen(plain) if plain.is_complex() or plain.element_size() == 1 else plain)
            self._waiting.append((name, call, low, high, name == LOSS))

    @staticmethod
    def _wait_for_gradients(call: Call, outputs: dict[str, Tensor]) -> None:
        """Of the model's own loss where the program uses that, and of what else it may use where it does not."""
        met: set[int] = set()

        def keep(gradient: Tensor, name: str) -> None:
            call.arrivals += 1
            if name != LOSS and LOSS in call.back:  # it has come through the loss
                return
            before = call.back.get(name)
            call.back[name] = gradient if before is None else before + gradient

        for name in sorted(outputs, key=lambda name: name != LOSS)[:OUTPUTS]:
            tensor = outputs[name]
            if tensor.requires_grad and id(tensor) not in met:
                met.add(id(tensor))
                tensor.register_hook(functools.partial(keep, name=name))

    def _begins_backward(self, loss: Tensor, run: Callable[[], None]) -> None:
        """A backward pass. What it began at is the loss of this model where gradients come back to it."""
        before, made = self._arrivals, loss.grad_fn
        scale = getattr(made, "_saved_other", None) if type(made).__name__ == "MulBackward0" else None
        run()
        if self._arrivals != before and type(loss) is Tensor and not is_tracing() and not self.is_deaf:
            del self._losses[: max(0, len(self._losses) + 1 - CALLS)]
            self._losses.append((loss.detach().sum(), scale))

    @property
    def _arrivals(self) -> int:
        return sum(call.arrivals for call in self._calls)

    def _is_a_loss_bad(self) -> bool:
        """Whether one is NaN or infinite. An infinity is none of the loss's where a loss scaler may have made it."""
        losses, self._losses = self._losses, []
        values = [(value.item(), scale) for value, scale in losses]
        return any(value != value or (math.isinf(abs(value)) and not _is_of_scaler(scale)) for value, scale in values)

    def _read(self) -> None:
        """Look at what was measured: on an accelerator, the one time in a step that it is waited for."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        bounds = torch.stack([bound.to("cpu", torch.float64) for _, _, *pair, _ in waiting for bound in pair]).tolist()
        for at, (name, call, _, _, is_loss) in enumerate(waiting):
            low, high = bounds[2 * at : 2 * at + 2]
            masked = not is_loss and low == float("-inf") and high < float("inf")  # a mask's -inf is meant
            if not (low > float("-inf") and high < float("inf")) and not masked:
                what = f"the {name}" if is_loss else f"the output of {self._class_name} ({name})"
                earlier = self._call_with_bad_back()
                if earlier is not None and earlier is not call:  # its gradient has reached the weights since
                    self._told(Bad(what, "backward", earlier, None, self._stepping))
                else:
                    self._told(Bad(what, "forward", call, None, self._stepping))
                return

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Optional[tuple[Any, Any]]:
        """What the optimiser's step is given in place of its arguments; None for these themselves."""
        if is_tracing():
            return None
        self.before_step(optimizer)
        self._stepping, self._seen_in_step = not self.is_deaf, False
        if self.is_deaf:
            return None
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._screened(optimizer, kwargs["closure"])}
        if len(args) > 1 and callable(args[1]):  # behind the optimiser itself
            return (args[0], self._screened(optimizer, args[1]), *args[2:]), kwargs
        return None

    def _screened(self, optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, whose loss and gradients are looked at before the optimiser uses them: the weights are
        still those that it was called with, so it can be made again.
        """

        @functools.wraps(closure)
        def screened() -> Any:
            if self.is_deaf:
                return closure()
            self._calls.clear()
            chance = Chance.taken()
            result = closure()
            self._read()
            name = None if self._seen_in_step else self._first_bad(optimizer, lambda parameter: parameter.grad)
            loss = isinstance(result, Tensor) and is_bad(result)
            if name is not None or (loss and not self._seen_in_step):
                what = "the loss" if loss else f"the gradient of {name}"

                def again() -> Any:
                    chance.put()
                    return closure()

                last = self._calls[-1] if self._calls else None
                self._told(Bad(what, "backward", last, name, is_too_late=True, closure=again))
            return result

        return screened

    def before_step(self, optimizer: Any) -> None:
        """The gradients are there, and the optimiser is about to use them."""
        if self.is_deaf:
            return
        self._wrapped = False
        self._steps_inside = self._steps_inside or self._running
        self._read()
        if any(call.spoilt for call in self._calls):
            self.leave_out(optimizer)
            return
        name = self._first_bad(optimizer, lambda parameter: parameter.grad)
        last = self._calls[-1] if self._calls else None
        if self._is_a_loss_bad():
            self._told(Bad("the loss", "backward", last, kind=LOSS))
        elif name is not None:
            self._told(Bad(f"the gradient of {name}", "backward", last, name))
        elif (buffer := self._first_bad_buffer()) is not None:
            self._told(Bad(f"the buffer {buffer}", "forward", None, buffer, kind=BUFFER))
        self._agree()

    def leave_out(self, optimizer: Any) -> None:
        """Without gradients the optimiser leaves every parameter as it is. The model's buffers are put back to what
        they were before the step's first call.
        """
        optimizer.zero_grad(set_to_none=True)
        beginning = self._calls[0].given.beginning if self._calls else None
        if beginning is not None:
            beginning.put_buffers_back()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if is_tracing() or self.is_deaf:
            return
        self._stepping = False
        if not self._met:  # it was compiled after the guard was put on, or what wraps it is not what is called
            self._met = True
            self._put_on()
        name = self._first_bad(optimizer, lambda parameter: parameter)
        if name is not None and not self._seen_in_step:
            # A closure's calls are made within the optimiser's step, where nothing is screened before it is used.
            call = self._call_with_bad_back()
            phase = "optimizer" if call is None else "backward"
            self._told(Bad(f"the parameter {name}", phase, call, name, is_too_late=True))
        self._agree()
        self._losses.clear()
        self._calls.clear()

    def _call_with_bad_back(self) -> Optional[Call]:
        return next((call for call in self._calls if any(map(is_bad, call.back.values()))), None)

    def _told(self, bad: Bad) -> None:
        self._waiting.clear()
        self._seen_in_step = self._stepping
        if self._together is None or bad.closure is not None:
            self._report(bad)
        else:
            self._own = self._own or bad

    def _agree(self) -> None:
        """All processes of a sharded model are at the same place of a step: if one has seen something, all look into
        it. Of several phases the earliest; what is bad behind it follows from it.
        """
        own, self._own = self._own, None
        if self._together is None or not self._together.any(own is not None):
            return
        seen = self._together.gathered(None if own is None else (own.phase, own.what, own.is_too_late))
        told = [row for row in seen.values() if row is not None]
        phase, what, _ = min(told, key=lambda row: PHASES.index(row[0]))
        if own is None or own.phase != phase:
            own = Bad(what, phase, elsewhere=True)
        self._report(replace(own, agreed=True, is_too_late=any(is_late for _, _, is_late in told)))

    @property
    def untold(self) -> Optional[Bad]:
        """What this process has seen, where the processes did not come to the place at which they all look into it."""
        return self._own

    @contextlib.contextmanager
    def whole(self, bad: Bad) -> Iterator[Optional[Together]]:
        """For as long as something is looked into: all weights of a sharded model are here. Gives the processes that
        do the same; None where this one is by itself.
        """
        if self._together is None or not bad.agreed:
            yield None
            return
        with self._together.whole() as self._refused:
            own = dtype_of(self._model)  # that of the weights as they are gathered
            for call in {id(call): call for call in (*self._calls, *filter(None, [bad.call]))}.values():
                call.bring_to(own)
            yield self._together

    def _first_bad(self, optimizer: Any, part: Callable[[Tensor], Optional[Tensor]]) -> Optional[str]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held = [(parameter, tensor) for parameter in parameters for tensor in local_parts(part(parameter))]
        if not held or _are_finite([tensor for _, tensor in held]):
            return None
        bad = next((parameter for parameter, tensor in held if is_bad(tensor)), None)
        return None if bad is None else self._names.get(id(bad), "a parameter of the optimizer")

    def _first_bad_buffer(self) -> Optional[str]:
        """One that holds a NaN or +inf; -inf alone may be a mask's."""
        held = [(name, part) for name, buffers, key in self._buffers for part in local_parts(buffers.get(key))]
        if not held or _are_finite([part for _, part in held]):
            return None
        return next((name for name, part in held if not bool((part < math.inf).all())), None)

    def look_into(self, bad: Bad) -> Told:
        """Make again what went bad. The hooks of the screen say nothing meanwhile. What goes wrong in that is told, and
        never reaches the program.
        """
        if bad.phase == "optimizer" and bad.name in self._bad_before:
            return Told(bad, why=BEFORE)
        if self._steps_inside and bad.phase != "optimizer":
            return Told(bad, why=STEPS)
        if bad.phase == "forward" and bad.call is None and not (bad.kind == BUFFER and self._calls):
            return Told(bad, why=self._lost)
        if bad.phase == "backward" and not self._calls and bad.closure is None:
            return Told(bad, why=self._lost)
        if bad.elsewhere and bad.phase != "backward":  # what came back to a call of this process may have done it
            return Told(bad, why="another process has seen it")
        if self._together is not None and not bad.agreed:
            return Told(bad, why=LATER)
        optimizer, names = next(iter(self._optimizers), None), None
        try:
            with aside(), eagerly():
                if bad.agreed:
                    if self._refused is not None:
                        return Told(bad, why=f"{ALONE}; {self._refused}")
                    optimizer, names = of_this_process(optimizer, self._names)
                return Again(self._model, self._calls, optimizer, names).look_into(bad)
        except Exception as error:  # noqa: BLE001 - of the model's own code, or of PyTorch's around it
            return Told(bad, why=f"the step could not be made again: {in_words(error)}")


def _is_sound(buffer: Optional[Tensor]) -> bool:
    """Whether it holds numbers, all of them finite."""
    parts = list(local_parts(buffer))
    return bool(parts) and not any(part.is_complex() or is_bad(part) for part in parts)


def _is_of_scaler(scale: Any) -> bool:
    """Whether a loss was multiplied by what a loss scaler multiplies with: a power of two."""
    if not isinstance(scale, Tensor) or scale.numel() != 1 or scale.is_complex():
        return False
    value = float(scale)
    return math.isfinite(value) and value > 1 and math.frexp(value)[0] == 0.5


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether all are, by their norms: one pass over each. A norm may overflow where no element is infinite, so False
    only says that it has to be looked at closely.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    norms = [torch.stack(list(torch._foreach_norm(group))).sum().double() for group in groups.values()]
    return all(math.isfinite(value) for value in torch.stack([norm.cpu() for norm in norms]).tolist())
