"""Nests of lists, tuples, dicts and records, as modules and operators take and give them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Callable, Optional, Union

Kind = Union[type, tuple[type, ...]]
RECORD = "__dataclass_fields__"


def items_in(nest: Any, kind: Kind, met: Optional[set[int]] = None) -> Iterator[Any]:
    """The items of a kind, in order. Model outputs are dicts or dataclasses and are entered; caches and other objects
    are not.

    met: the dataclasses that were entered by now; one may hold itself.
    """
    if isinstance(nest, kind):
        yield nest
    elif isinstance(nest, dict):
        for item in nest.values():
            yield from items_in(item, kind, met)
    elif isinstance(nest, (list, tuple)):
        for item in nest:
            yield from items_in(item, kind, met)
    elif hasattr(type(nest), RECORD):
        met = set() if met is None else met
        if id(nest) not in met:
            met.add(id(nest))
            yield from items_in(parts_of(nest), kind, met)


def parts_of(thing: Any) -> dict[str, Any]:
    """What an object holds, by name: a mapping's items, a dataclass's fields, another's attributes; {} where it is no
    holder of anything.
    """
    if isinstance(thing, Mapping):
        return dict(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return {item.name: getattr(thing, item.name) for item in fields(thing) if hasattr(thing, item.name)}
    return dict(getattr(thing, "__dict__", {}))


def opened(output: Any, kind: Kind) -> Any:
    """A module's output as a nest: an object of the program's own is opened, where what it holds is of that kind."""
    if isinstance(output, (kind, dict, list, tuple)) or output is None:
        return output
    parts = parts_of(output)
    return parts if next(items_in(parts, kind), None) is not None else output


def rebuild(nest: Any, kind: Kind, make: Callable[[Any], Any]) -> Any:
    """The same nest with every item of a kind replaced by ``make`` of it."""
    if isinstance(nest, kind):
        return make(nest)
    if isinstance(nest, dict):
        return {key: rebuild(item, kind, make) for key, item in nest.items()}
    if isinstance(nest, (list, tuple)):
        items = [rebuild(item, kind, make) for item in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
    return nest
