"""Whole numbers made smaller: sizes, counts, rounds. Equal numbers are changed together, so that shapes still fit."""

import ast
from collections.abc import Iterator
from typing import Any, Optional

from ..text.tree import Tree, copied, number_of, walk
from .edit import Edit
from .expressions import changeable

SMALL = (1, 2, 3, 4)
PARTS = (16, 8, 4, 2)
SCALES = (64, 32, 16, 8, 4, 2)


def smaller_numbers(tree: Tree) -> Iterator[Edit]:
    """All sizes divided together; then all equal numbers together; then each by itself."""
    found = _numbers(tree)
    values = sorted(set(found.values()), reverse=True)
    for scale in SCALES:
        some = {number: (value, value // scale) for number, value in found.items() if _is_multiple(value, scale)}
        if len(set(some.values())) > 1:
            yield Edit(f"sizes divided by {scale}", _set(some))
    for value in values:
        for target in _targets(value):
            together = {number: (value, target) for number, other in found.items() if other == value}
            yield Edit(f"{target} in place of {value}", _set(together))
    for value in values:
        same = [number for number, other in found.items() if other == value]
        for number in reversed(same) if len(same) > 1 else ():
            for target in _targets(value):
                yield Edit(f"{target} in place of one {value}", _set({number: (value, target)}))


def _numbers(tree: Tree) -> dict[int, int]:
    """Each number that may be made smaller, by that of its node. A seed is as good as any other."""
    calls = (node for node in walk(tree.module) if isinstance(node, ast.Call) and "seed" in ast.unparse(node.func))
    seeds = {number_of(item) for call in calls for item in walk(call)}
    found = {number_of(node): _value(node) for node in changeable(tree)}
    return {number: value for number, value in found.items() if value is not None and value > 1 and number not in seeds}


def _value(node: Optional[ast.AST]) -> Optional[int]:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if type(value) is int else None


def _is_multiple(value: int, scale: int) -> bool:
    return value >= 2 * scale and value % scale == 0


def _targets(value: int) -> list[int]:
    """Smaller numbers, the smallest first; of a large one also its parts, for what is divided by a power of 2."""
    return sorted(
        {*(small for small in SMALL if small < value), *(value // part for part in PARTS if value > 4 * part)}
    )


def _set(values: dict[int, tuple[int, int]]) -> Any:
    """values: for each number's node, what it is and what it becomes."""

    def make(tree: Tree) -> Optional[Tree]:
        present = {number: (tree.nodes.get(number), pair) for number, pair in values.items()}
        changes = {
            number: (copied(node, value=after),)
            for number, (node, (before, after)) in present.items()
            if node is not None and _value(node) == before
        }
        return tree.changed(changes) if changes else None

    return make
