"""An expression in another one: a call around it, an operand beside it."""

import ast
from typing import Any, Optional

from ..text.tree import Tree, copied, expression, number_of
from .edit import Edit


def wrapped(node: ast.AST, form: str) -> Edit:
    """form: the outer expression, with {} where the inner one goes."""
    number = number_of(node)

    def make(tree: Tree) -> Optional[Tree]:
        inner = tree.nodes.get(number)
        if not isinstance(inner, ast.expr):
            return None
        outer = expression(form.format("_"))
        (hole,) = (part for part in ast.walk(outer) if isinstance(part, ast.Name) and part.id == "_")
        # The inner node keeps its number, so that it stands for what it stood for.
        return tree.changed({number: (_filled(outer, hole, inner),)})

    return Edit(form.format(ast.unparse(node)), make, form)


def _filled(outer: ast.AST, hole: ast.AST, inner: ast.expr) -> Any:
    fields: dict[str, Any] = {}
    for name in outer._fields:
        value = getattr(outer, name, None)
        if value is hole:
            fields[name] = inner
        elif isinstance(value, list):
            fields[name] = [_filled_item(item, hole, inner) for item in value]
        elif isinstance(value, ast.AST) and any(part is hole for part in ast.walk(value)):
            fields[name] = _filled(value, hole, inner)
    return copied(outer, **fields)


def _filled_item(item: Any, hole: ast.AST, inner: ast.expr) -> Any:
    if item is hole:
        return inner
    is_above = isinstance(item, ast.AST) and any(part is hole for part in ast.walk(item))
    return _filled(item, hole, inner) if is_above else item
