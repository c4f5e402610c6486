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

from .summary import tensors_in


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
    """Collects while its hooks are on; ``calls()`` reads everything back."""

    def __init__(self) -> None:
        self._names: list[tuple[str, str, int]] = []
        self._spans: list[tuple[int, int]] = []  # which bounds belong to which call
        self._bounds: list[tuple[Tensor, Tensor]] = []
        self._counts: dict[str, int] = {}
        # The last tensor measured: a module that only passes on what its child returned costs nothing.
        self._last: Optional[Tensor] = None
        self._last_version = -1

    def see(self, name: str, class_name: str, output: Any) -> None:
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        begin = len(self._bounds)
        for tensor in (output,) if isinstance(output, Tensor) else tensors_in(output):
            if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
                continue
            version = tensor._version
            if tensor is self._last and version == self._last_version:
                self._bounds.append(self._bounds[-1])
                continue
            values = tensor.detach()
            self._bounds.append(
                torch.aminmax(values) if values.element_size() > 1 else torch.aminmax(values.to(torch.float32))
            )
            self._last, self._last_version = tensor, version
        if len(self._bounds) > begin:
            self._names.append((name, class_name, index))
            self._spans.append((begin, len(self._bounds)))

    def calls(self) -> list[Call]:
        """All calls in order; the one place where the device is waited for."""
        self._last = None
        groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for position, (low, _) in enumerate(self._bounds):
            groups.setdefault((low.dtype, low.device), []).append(position)
        read: list[tuple[float, float]] = [(0.0, 0.0)] * len(self._bounds)
        for positions in groups.values():
            stacked = torch.stack([bound for position in positions for bound in self._bounds[position]]).to(
                torch.float64 if positions and self._bounds[positions[0]][0].dtype == torch.float64 else torch.float32
            )
            flat = stacked.tolist()
            for row, position in enumerate(positions):
                read[position] = (flat[2 * row], flat[2 * row + 1])
        calls = []
        for (name, class_name, index), (begin, end) in zip(self._names, self._spans):
            lows, highs = [low for low, _ in read[begin:end]], [high for _, high in read[begin:end]]
            nan = any(math.isnan(bound) for bound in lows + highs)
            calls.append(Call(name, class_name, index, math.nan if nan else min(lows), math.nan if nan else max(highs)))
        return calls


@contextlib.contextmanager
def screened(model: nn.Module) -> Iterator[Screen]:
    """The model under the screen; every hook is gone afterwards, also when the forward pass raises."""
    screen = Screen()
    handles = []

    def hook_for(name: str, class_name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            screen.see(name, class_name, output)

        return hook

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_hook(hook_for(name, type(module).__name__)))
        yield screen
    finally:
        for handle in handles:
            handle.remove()


def blocks(model: nn.Module) -> list[str]:
    """The repeated layers of a model, in order: the items of every ModuleList of two or more of one class, the
    outermost such lists.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) < 2 or len({type(item) for item in module}) != 1:
            continue
        prefix = name + "." if name else ""
        if not any(prefix.startswith(block + ".") for block in found):
            found.extend(f"{prefix}{position}" for position in range(len(module)))
    return found


@contextlib.contextmanager
def spread_of(model: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Which tokens each repeated layer gives with a NaN or Inf in them: rows of {"module", "bad_tokens", "tokens"},
    in order.

    Looks at outputs of shape (batch, seq, hidden).
    """
    rows: list[dict[str, Any]] = []
    handles: list[Any] = []
    wanted = dict(model.named_modules())

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = next((t for t in tensors_in(output) if t.is_floating_point() and t.dim() == 3), None)
            if hidden is not None:
                bad = (~torch.isfinite(hidden.detach())).any(-1).any(0)
                tokens = bad.nonzero().flatten().tolist()
                rows.append({"module": name, "bad_tokens": tokens, "tokens": int(bad.numel())})

        return hook

    try:
        handles += [wanted[name].register_forward_hook(hook_for(name)) for name in blocks(model)]
        yield rows
    finally:
        for handle in handles:
            handle.remove()
