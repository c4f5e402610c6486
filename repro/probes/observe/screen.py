"""One forward pass that says, for every module call, the smallest and largest value it gave: the cheapest look for
the first bad call.

A hook on each module keeps a running minimum and maximum on the device, and all are read back together when the pass
has ended, so there is one synchronisation. A NaN passes through minimum and maximum. ``isfinite().all()`` in the same
place costs far more.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ..values.figures import is_wrapped, tensors_in
from .watch import ALWAYS


@dataclass(frozen=True)
class Call:
    """One call of one module, in the order in which calls end. ``min`` and ``max`` are over all its floating outputs.

    Both are NaN where an output held a NaN.
    """

    module: str
    class_name: str
    call_index: int
    min: float
    max: float

    @property
    def bad(self) -> bool:
        return not (math.isfinite(self.min) and math.isfinite(self.max))

    @property
    def absmax(self) -> float:
        return max(abs(self.min), abs(self.max))


class Screen:
    """Collects while it is on; ``calls()`` reads everything back."""

    def __init__(self, model: nn.Module, outline: bool = False) -> None:
        layers = tuple(name + "." for name in blocks(model)) if outline else ()
        self._modules = {
            id(module): (name, type(module).__name__)
            for name, module in model.named_modules()
            if not (layers and name.startswith(layers))
        }
        self._seen: list[tuple[int, list[int]]] = []  # (module, which bounds belong to this call of it)
        self._bounds: list[tuple[Tensor, Tensor]] = []
        # The last tensor measured: a module that only passes on what its child returned costs nothing.
        self._last: Optional[Tensor] = None
        self._last_version = -1

    def see(self, module: nn.Module, args: Any, output: Any) -> None:
        """A hook for every module's forward."""
        key = id(module)
        if key not in self._modules:
            return
        mine: list[int] = []
        for tensor in (output,) if isinstance(output, Tensor) else tensors_in(output):
            if tensor is self._last and version_of(tensor) == self._last_version:
                mine.append(len(self._bounds) - 1)
            elif tensor.is_floating_point() and tensor.numel() and not tensor.is_meta:
                values = in_plain_memory(tensor.detach())
                if values is None or not values.numel():
                    continue
                self._bounds.append(torch.aminmax(values if values.element_size() > 1 else values.to(torch.float32)))
                self._last, self._last_version = tensor, version_of(tensor)
                mine.append(len(self._bounds) - 1)
        self._seen.append((key, mine))

    def calls(self) -> list[Call]:
        """All calls in order; the one place where the device is waited for."""
        self._last = None
        groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for position, (low, _) in enumerate(self._bounds):
            groups.setdefault((low.dtype, low.device), []).append(position)
        read: dict[int, list[float]] = {}
        for positions in groups.values():
            flat = torch.stack([bound for position in positions for bound in self._bounds[position]]).tolist()
            read.update({position: flat[2 * row : 2 * row + 2] for row, position in enumerate(positions)})
        counts: dict[int, int] = {}
        calls = []
        for key, mine in self._seen:
            index = counts[key] = counts.get(key, -1) + 1
            bounds = [bound for position in mine for bound in read[position]]
            if not bounds:
                continue  # no floating output, or a call that raised: counted, and nothing to say about it
            nan = any(math.isnan(bound) for bound in bounds)
            name, class_name = self._modules[key]
            calls.append(
                Call(name, class_name, index, math.nan if nan else min(bounds), math.nan if nan else max(bounds))
            )
        return calls


def in_plain_memory(tensor: Tensor) -> Optional[Tensor]:
    """The tensor itself, or the one that holds the numbers of a nested or sparse one; None where none is known to."""
    if is_wrapped(tensor):
        return None
    if not tensor.is_nested and tensor.layout is torch.strided:
        return tensor
    if tensor.layout is torch.sparse_coo:
        return tensor._values()
    return tensor.values() if hasattr(tensor, "values") else None


def version_of(tensor: Tensor) -> int:
    """How often the tensor was written to in place; inference tensors do not count it."""
    return 0 if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def screened(model: nn.Module, outline: bool = False) -> Iterator[Screen]:
    """The model under the screen; nothing is left behind afterwards, also when the forward pass raises.

    outline: look at the repeated layers and at what is outside of them, not into them. A bad value that reaches the
    model's output leaves its layer on the way, so this tells a good pass from a bad one at a fraction of the cost.

    One hook for all modules of the process, which looks only at this model's: putting one on each module and taking it
    off again costs more than what it then does on a short prompt.
    """
    screen = Screen(model, outline)
    handle = register_module_forward_hook(screen.see, **ALWAYS)
    try:
        yield screen
    finally:
        handle.remove()


def blocks(model: nn.Module) -> list[str]:
    """The repeated layers of a model, in order: the items of every ModuleList of layers, the outermost such lists."""
    found: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not _are_layers(list(module)):
            continue
        prefix = name + "." if name else ""
        if not any(prefix.startswith(block + ".") for block in found):
            found.extend(f"{prefix}{position}" for position in range(len(module)))
    return found


def _are_layers(items: list[nn.Module]) -> bool:
    """Whether the items of a list do the same work one after the other: all of one class, or of classes that alternate
    (attention and state space).

    Parts of different kinds that merely stand in one list (an embedding, an encoder, a head) do not: no class comes
    twice, they have no base class in common, and one of them has a list of layers inside.
    """
    classes = {type(item) for item in items}
    if len(items) < 2 or len(classes) == 1:
        return len(items) >= 2
    if any(next(item.children(), None) is None for item in items):
        return False  # a projection and its activation
    kin = set.intersection(*(set(kind.__mro__) for kind in classes)) - set(nn.Module.__mro__)
    inner = any(isinstance(module, nn.ModuleList) for item in items for module in item.modules())
    return len(classes) < len(items) or bool(kin) or not inner


@contextlib.contextmanager
def spread_of(model: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Which tokens each repeated layer gives with a NaN or Inf in them: rows of {"module", "bad_tokens", "tokens"},
    in order.

    Looks at outputs of shape (batch, seq, hidden).
    """
    rows: list[dict[str, Any]] = []
    handles: list[Any] = []
    wanted = {name: module for name, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)}

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            plain = (t for t in tensors_in(output) if t.is_floating_point() and t.dim() == 3)
            hidden = next((t for t in plain if in_plain_memory(t) is t), None)
            if hidden is not None:
                bad = (~torch.isfinite(hidden.detach())).any(-1).any(0)
                tokens = bad.nonzero().flatten().tolist()
                rows.append({"module": name, "bad_tokens": tokens, "tokens": int(bad.numel())})

        return hook

    try:
        handles += [wanted[name].register_forward_hook(hook_for(name)) for name in blocks(model) if name in wanted]
        yield rows
    finally:
        for handle in handles:
            handle.remove()
