"""The layers of a model along an axis: their names, the one that the fault is born in, and which of many are drawn."""

from collections.abc import Sequence
from typing import TypeVar

from repro.core.payloads import Headroom, Origin, Spread
from repro.report.markdown import thinned
from repro.report.plots.chart import distinct, short

Layer = TypeVar("Layer", Headroom, Spread)

AROUND = 2
"""How many layers before and behind the origin are always drawn."""


def chosen(items: Sequence[Layer], most: int, keep: int | None) -> tuple[list[Layer], str | None]:
    """At most so many layers, those around ``keep`` among them, and a note where some are left out."""
    around = set() if keep is None else set(range(keep - AROUND, keep + AROUND + 1))
    found, note = thinned(items, most, around)
    return found, note and f"{len(found)} of {len(items):,} layers are drawn; verdict.json has all."


def origin_place(items: Sequence[Headroom | Spread], origin: Origin | None) -> int | None:
    """The layer that is the origin's module or holds it; None where none does."""
    if origin is None or not origin.module:
        return None
    holds = [index for index, item in enumerate(items) if f"{origin.module}.".startswith(f"{item.module}.")]
    wanted = origin.module, origin.call_index or 0
    same = [index for index in holds if (items[index].module, _call(items[index])) == wanted]
    return next(iter(same or holds), None)


def names(items: Sequence[Headroom | Spread]) -> tuple[list[str], str]:
    """A name for each layer, no two alike, and what they are. Layers of one numbered list go by their numbers."""
    modules = [item.module or "the model itself" for item in items]
    parts = [module.rpartition(".") for module in modules]
    lists = {head for head, _, _ in parts}
    numbered = len(lists) == 1 and "" not in lists and all(tail.isdecimal() for _, _, tail in parts)
    said = [tail for _, _, tail in parts] if numbered else [short(module) for module in modules]
    calls = map(_call, items)
    said = [f"{name}, call {call}" if call else name for name, call in zip(said, calls, strict=True)]
    title = f"layer of {short(next(iter(lists)), 40)}" if numbered else "layer"
    return distinct(said), f"{title} (execution order)"


def _call(item: Headroom | Spread) -> int:
    return item.call_index or 0 if isinstance(item, Headroom) else 0
