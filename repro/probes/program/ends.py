"""How one run of a callable ended: which of the tensors that it gives or leaves behind hold a NaN or Inf."""

import os
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..observe.source import is_inner
from ..protocol.failures import in_words
from ..values.nest import items_in
from .makers import readable_in

SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    ``bad``: the names of what holds a NaN or Inf. ``raised``: the exception's type and the innermost line that is not
    PyTorch's own. ``skipped``: whether a GradScaler has left the step out. ``found``: what the watch found.
    """

    verdict: str
    reason: str
    bad: frozenset[str] = frozenset()
    raised: Optional[tuple[str, Optional[str]]] = None
    skipped: bool = False
    found: Any = None


Named = Iterator[tuple[str, Tensor]]
Ends = Callable[[Any], Iterable[tuple[str, Tensor]]]
"""Named tensors of what a run gave back."""


def returned(result: Any, name: str = "output") -> Named:
    """Each floating tensor in what a run gave back, under the path to it: "loss", "logits", "output[0]"."""
    if isinstance(result, Tensor):
        yield name, result
    elif isinstance(result, dict):
        for key, item in result.items():
            yield from returned(item, f"{name}.{key}" if name != "output" else str(key))
    elif isinstance(result, (list, tuple)):
        for position, item in enumerate(result):
            yield from returned(item, f"{name}[{position}]")


def left_behind(things: Iterable[Any]) -> Named:
    """Gradients, parameters and buffers of modules, and besides those what optimizers hold, and single tensors."""
    met: set[int] = set()
    parts = list(items_in(list(things), (nn.Module, torch.optim.Optimizer, Tensor)))
    roots = [part for part in parts if isinstance(part, nn.Module)]
    held: list[tuple[str, str, Tensor]] = []
    for number, root in enumerate(roots):
        label = f"root{number}" if number else ""
        for kind, named in (("parameter", root.named_parameters()), ("buffer", root.named_buffers())):
            held += [(kind, ".".join(filter(None, (label, name))), tensor) for name, tensor in named]
    for part in parts:
        for row, group in enumerate(getattr(part, "param_groups", ())):
            held += [("parameter", f"[{row}][{at}]", item) for at, item in enumerate(group["params"])]
    held += [("tensor", f"[{at}]", part) for at, part in enumerate(parts) if isinstance(part, Tensor)]
    for kind, name, tensor in held:
        if id(tensor) in met:
            continue
        met.add(id(tensor))
        if tensor.is_leaf and tensor.grad is not None:
            yield f"gradient {name}", tensor.grad
        yield f"{kind} {name}", tensor


def bad_names(named: Iterable[tuple[str, Tensor]]) -> frozenset[str]:
    """The names of those that hold a NaN or Inf. The device is waited for once."""
    names, flags = [], []
    with torch.no_grad():
        for name, tensor in named:
            for part in readable_in(_whole(tensor).detach()):
                names.append(name)
                flags.append(torch.isfinite(part).all().logical_not())
        read: dict[torch.device, list[int]] = {}
        for position, flag in enumerate(flags):
            read.setdefault(flag.device, []).append(position)
        found = set()
        for positions in read.values():
            values = torch.stack([flags[position] for position in positions]).tolist()
            found |= {names[position] for position, bad in zip(positions, values) if bad}
    return frozenset(found)


def _whole(tensor: Tensor) -> Tensor:
    """The part of a distributed tensor that lies in this process."""
    local = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


def judged(bad: frozenset[str], skipped: bool, found: Any) -> Ended:
    """The end of a run that came to it."""
    if bad:
        return Ended("bad", f"{words(bad)} not finite", bad, None, skipped, found)
    reason = "a GradScaler left the step out, and all else is finite" if skipped else "all that it gives is finite"
    return Ended("good", reason, bad, None, skipped, found)


def stopped(error: BaseException, found: Any) -> Ended:
    """The end of a run that raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_inner(frame.filename)]
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else None
    return Ended("skip", in_words(error), frozenset(), (type(error).__name__, place), False, found)


def words(bad: frozenset[str]) -> str:
    """ "gradient of a.weight and 3 more are"."""
    shown = sorted(bad, key=_order)
    text = ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
    return f"{text} {'is' if len(shown) == 1 else 'are'}"


def _order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """What was returned first, and steps by their number."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
    return name.startswith(("gradient ", "parameter ", "buffer ")), parts
