"""A guard around what a call or a division is given, and what tells whether it leaves ordinary numbers alone.

A clamp in front of an operator changes more than the element that is bad: 1e-6 in place of what is negative is a number
like any other, and nobody sees that it is wrong. So a guard goes with two texts of the smallest expression around it,
without and with it, and a run holds the values of both against each other.
"""

import ast
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, Optional

from ..text.tree import Tree, expression, number_of, walk, whose
from .edit import GIVEN, Edit, Worth
from .expressions import changeable
from .wrapping import wrapped

# The field's own, the widest domain first: a denominator above 0, the domain of acos, of sqrt, of log and of exp.
GUARDS = (
    "({}).clamp(min=1e-6)", "({}).clamp(min=1e-12)", "({}).clamp(-1.0, 1.0)", "({}).clamp(min=0.0)",
    "({}).clamp(min=1e-38)", "({}).clamp(max=88.0)", "({}).clamp(max=11.0)",
)  # fmt: skip
EPSILONS = ("eps=1e-06", "eps=1e-04")
MODULES = ("torch", "F", "nn", "np", "math", "self")


def guards(tree: Tree, at: frozenset[int]) -> Iterator[Edit]:
    """Guards of the statements at fault, of what is divided by first."""
    nodes = list(_nodes(tree, at))
    for node in nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from _around(node.right, node)
    for node in nodes:
        if _is_call(tree, node):
            yield from _with_epsilon(node)
            for item in _given_to(node):
                yield from _around(item, node)


def guarded(tree: Tree, at: frozenset[int]) -> Iterator[ast.expr]:
    """What the statements at fault divide by, then what they hand to their calls, the innermost last."""
    nodes = list(_nodes(tree, at))
    yield from (node.right for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    for node in nodes:
        if _is_call(tree, node):
            yield from _given_to(node)


def _nodes(tree: Tree, at: frozenset[int]) -> Iterator[Any]:
    here = [node for node in changeable(tree) if isinstance(node, ast.stmt) and whose(node) & at]
    # Of a compound statement the innermost one is meant.
    inner = [node for node in here if not any(one is not node and one in here for one in walk(node))]
    return (part for node in inner for part in walk(node))


def _is_call(tree: Tree, node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and not isinstance(tree.above.get(number_of(node)), ast.Expr)


def _given_to(node: ast.Call) -> Iterator[ast.expr]:
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    return (item for item in [*([receiver] if receiver is not None else []), *node.args] if _is_value(item))


def _around(node: ast.expr, above: ast.expr) -> Iterator[Edit]:
    for form in GUARDS:
        text = form.format(ast.unparse(node))
        of_given = _with(above, node, GIVEN), _with(above, node, form.format(GIVEN))
        worth = Worth(number_of(above), ast.unparse(above), _with(above, node, text), ast.unparse(node), *of_given)
        yield dataclasses.replace(wrapped(node, form), worth=worth)


def _with_epsilon(node: ast.Call) -> Iterator[Edit]:
    """A call with an epsilon of its own in place of its default; what has none refuses it."""
    if not node.args or any(key.arg in ("eps", None) for key in node.keywords):
        return
    first, number = node.args[0], number_of(node)
    for keyword in EPSILONS:
        before = ast.unparse(node)
        after = f"{before[:-1]}, {keyword})"

        def make(changed: Tree, keyword: str = keyword) -> Optional[Tree]:
            now = changed.nodes.get(number)
            if not isinstance(now, ast.Call):
                return None
            return changed.changed({number: (expression(f"{ast.unparse(now)[:-1]}, {keyword})"),)})

        given = _with(node, first, GIVEN)
        worth = Worth(number, before, after, ast.unparse(first), given, f"{given[:-1]}, {keyword})")
        yield Edit(f"{keyword} in {before}", make, keyword, worth=worth)


def _with(above: ast.expr, node: ast.expr, text: str) -> str:
    """The text of an expression with another one in place of one of its parts."""
    return ast.unparse(copy.deepcopy(above, {id(node): ast.parse(text, mode="eval").body}))


def _is_value(node: ast.expr) -> bool:
    """Whether it may be a tensor: no plain constant, no module, no function."""
    if isinstance(node, (ast.Constant, ast.Starred)):
        return False
    own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return own or isinstance(node, ast.Call) or ast.unparse(node).split(".")[0] not in MODULES
