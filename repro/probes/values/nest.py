"""Nests of lists, tuples and dicts, as modules and operators take and give them."""

from collections.abc import Iterator
from typing import Any, Callable, Union

Kind = Union[type, tuple[type, ...]]


def items_in(nest: Any, kind: Kind) -> Iterator[Any]:
    """The items of a kind, in order. Model outputs are dicts and are entered; caches and other objects are not."""
    if isinstance(nest, kind):
        yield nest
    elif isinstance(nest, dict):
        for item in nest.values():
            yield from items_in(item, kind)
    elif isinstance(nest, (list, tuple)):
        for item in nest:
            yield from items_in(item, kind)


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
