"""One call of a module in memory: is it good, and if not, where is the bad value born?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from torch import nn

from ..model.forward import Pass, judge, look
from ..model.load import Loaded
from ..model.ready import Given, left_alone, ready
from ..origin.search import bisect
from ..protocol.wire import Outcome


@dataclass(frozen=True)
class Found:
    """What one call showed, and with what it can be asked again: answers of the forward and the bisect step (None where
    the call is good).
    """

    loaded: Loaded
    seen: Pass
    forward: Outcome
    bisected: Optional[Outcome]


def find(model: nn.Module, args: tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None) -> Found:
    """Run the module once under the screen, and where an output is bad, look for the origin.

    Random state, buffers, modes and hooks are afterwards as they were.

    Raises:
        TypeError: the module's forward does not take such arguments. What the module raises is passed on.
    """
    return look_into(*ready(model, args, kwargs))


def look_into(loaded: Loaded, given: Given) -> Found:
    """As ``find``, of a call whose beginning is known."""
    with left_alone(loaded.model):
        seen = look(loaded.model, given, repeats_good=False)
        return Found(loaded, seen, judge([seen], False), bisect(loaded, [seen]) if seen.bad else None)
