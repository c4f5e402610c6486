"""The layers of a model along an axis: their names, the one that the fault is born in, and which of many are drawn."""

from collections.abc import Sequence

from repro.report.plots.chart import distinct, short
from repro.report.tables import Json, thinned

AROUND = 2
"""How many layers before and behind the origin are always drawn."""


def chosen(items: Sequence[Json], most: int, keep: int | None) -> tuple[list[Json], str | None]:
    """At most so many layers, those around ``keep`` among them, and a note where some are left out."""
    around = set() if keep is None else set(range(keep - AROUND, keep + AROUND + 1))
    found, note = thinned(items, most, around)
    return found, note and f"{len(found)} of {len(items):,} layers are drawn; verdict.json has all."


def origin_place(items: Sequence[Json], origin: Json) -> int | None:
    """The layer that is the origin's module or holds it; None where none does."""
    module = origin.get("module")
    if not module:
        return None
    holds = [index for index, item in enumerate(items) if f"{module}.".startswith(f"{item.get('module')}.")]
    wanted = module, origin.get("call_index") or 0
    same = [index for index in holds if (items[index].get("module"), items[index].get("call_index") or 0) == wanted]
    return next(iter(same or holds), None)


def names(items: Sequence[Json]) -> tuple[list[str], str]:
    """A name for each layer, no two alike, and what they are. Layers of one numbered list go by their numbers."""
    modules = [str(item.get("module") or "the model itself") for item in items]
    parts = [module.rpartition(".") for module in modules]
    lists = {head for head, _, _ in parts}
    numbered = len(lists) == 1 and "" not in lists and all(tail.isdecimal() for _, _, tail in parts)
    said = [tail for _, _, tail in parts] if numbered else [short(module) for module in modules]
    calls = [item.get("call_index") or 0 for item in items]
    said = [f"{name}, call {call}" if call else name for name, call in zip(said, calls, strict=True)]
    title = f"layer of {short(next(iter(lists)), 40)}" if numbered else "layer"
    return distinct(said), f"{title}, in order of execution"
