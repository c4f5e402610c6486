"""Expressions of plain Python replaced by their value: a list that is computed says less than the list."""

import ast
import operator
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

from ..text.tree import Tree, expression, number_of, walk
from .edit import Edit
from .expressions import changeable

SHORT = 24  # characters of a value that may be longer than the expression
LONGEST = 80  # characters of a value
MOST = 100  # numbers of a list that is computed at all
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Div: operator.truediv,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len, "list": list, "max": max, "min": min, "range": range, "sum": sum, "tuple": tuple,
}  # fmt: skip


class Unknown(Exception):
    """An expression is not of plain numbers and lists alone."""


def folded(tree: Tree) -> Iterator[Edit]:
    """The value in place of each outermost expression of numbers and lists, where that is short."""
    known = _constants(tree)
    inside: set[int] = set()
    for node in changeable(tree):
        if not isinstance(node, (ast.BinOp, ast.Call)) or number_of(node) in inside:
            continue
        text = _value(node, known)
        if text is not None and len(text) <= min(LONGEST, max(SHORT, len(ast.unparse(node)))):
            inside.update(number_of(part) for part in walk(node))
            yield Edit("the value of an expression", _put(number_of(node), text), f"{ast.unparse(node)} is {text}")


def _constants(tree: Tree) -> dict[str, ast.expr]:
    """Names that are bound once, and what to."""
    bound: dict[str, list[Optional[ast.expr]]] = {}
    pairs: dict[int, ast.expr] = {}
    for node in walk(tree.module):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Name):
                pairs[number_of(target)] = value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                pairs.update(zip(map(number_of, target.elts), value.elts))
    for node in walk(tree.module):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.setdefault(node.id, []).append(pairs.get(number_of(node)))
        elif isinstance(node, ast.arg):
            bound.setdefault(node.arg, []).append(None)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            for name in node.names:
                bound.setdefault(name, []).append(None)
    changed = {
        root.id
        for node in walk(tree.module)
        if isinstance(node, (ast.Subscript, ast.Attribute))
        and (not isinstance(node.ctx, ast.Load) or isinstance(node, ast.Attribute))
        and isinstance(root := node.value, ast.Name)
    }  # a list may be written to, or have a method called that changes it
    return {
        name: values[0]
        for name, values in bound.items()
        if len(values) == 1 and values[0] is not None and name not in changed
    }


def _value(node: ast.expr, known: Mapping[str, ast.expr]) -> Optional[str]:
    try:
        value = _computed(node, known, 0)
        text = repr(list(value) if isinstance(value, range) else value)
    except (Unknown, ArithmeticError, TypeError, ValueError):
        return None
    return text if "inf" not in text and "nan" not in text else None


def _computed(node: ast.AST, known: Mapping[str, ast.expr], depth: int) -> Any:
    """What an expression comes to.

    Raises:
        Unknown: something in it is no number or list, or it is large.
    """
    if depth > 20:
        raise Unknown
    again: Callable[[ast.AST], Any] = lambda part: _computed(part, known, depth + 1)  # noqa: E731
    value: Any = None
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
    elif isinstance(node, (ast.List, ast.Tuple)):
        value = [again(part) for part in node.elts]
        value = tuple(value) if isinstance(node, ast.Tuple) else value
    elif isinstance(node, ast.Name) and node.id in known:
        value = again(known[node.id])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -again(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        one, other = again(node.left), again(node.right)
        if isinstance(node.op, ast.Mult) and _repeated(one, other) > MOST:
            raise Unknown
        value = OPERATORS[type(node.op)](one, other)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        if node.keywords or node.func.id in known:
            raise Unknown
        value = FUNCTIONS[node.func.id](*map(again, node.args))
    else:
        raise Unknown
    if _size(value) > MOST:
        raise Unknown
    return value


def _size(value: Any) -> int:
    """How many numbers are in it."""
    if isinstance(value, range):
        return len(value)
    return sum(map(_size, value)) + 1 if isinstance(value, (list, tuple)) else 1


def _repeated(one: Any, other: Any) -> int:
    """How many numbers a product has: a list may be repeated."""
    if isinstance(one, int) and not isinstance(other, (int, float)):
        one, other = other, one
    return _size(one) * abs(other) if isinstance(other, int) and not isinstance(one, (int, float)) else 1


def _put(number: int, text: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        return tree.changed({number: (expression(text),)}) if number in tree.nodes else None

    return make
