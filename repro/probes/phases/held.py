"""Whether a number that the model holds makes a generation or a training bad, as it is asked of a pass of the model."""

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

from ..model.load import Loaded
from ..observe.watch import OUTSIDE, Names, Watch, watched_everywhere
from ..origin.held import MECHANISMS, Changed, decisive, watching
from ..program.callable import Program
from ..program.capture import Found


def held_in(loaded: Loaded, program: Program, found: Found) -> Optional[dict[str, Any]]:
    """The number that decides, as ``decisive`` tells it; None where there is none, or where the origin is in no module:
    in the loss, the clipping, the optimizer.
    """
    origin, address = found.origin, found.address
    shape = (origin["output"] or {}).get("shape")
    outside = (address.module, address.call_index) == OUTSIDE and origin["forward_op"] is None
    if origin["mechanism"] not in MECHANISMS or origin["element"] is None or shape is None or outside:
        return None

    def value(changed: Changed) -> Optional[float]:
        visit, seen = watching(address, None, tuple(shape), tuple(origin["element"]))

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            with changed, watched_everywhere(Watch(visit, OUTSIDE), Names([loaded.model])):
                yield

        program.within((around(), lambda: None))
        return seen[0] if seen else None

    call = address.call_index if origin["forward_op"] is None else None
    return decisive(loaded, origin["module"], call, value)
