"""Variables left out: constants in place of their names, and values where they are used, if that is one place."""

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..text.tree import Tree, copied, expression, head_of, is_held, made, number_of, put, walk, whose
from .edit import Edit

READABLE = 100  # characters of a statement that a variable may be put into


def inlined(tree: Tree) -> Iterator[Edit]:
    """Every assignment of one name, and those of several that are written side by side."""
    for node in tree.statements():
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                yield Edit("assignments one by one", _apart(number_of(node)))
                for name in target.elts:
                    if isinstance(name, ast.Name):
                        yield Edit(f"the value of {name.id} in its place", _inlining(number_of(node), name.id))
            elif isinstance(target, ast.Name):
                yield Edit(f"the value of {target.id} in the next statement", _forward(number_of(node), target.id))
                yield Edit(f"the value of {target.id} in its place", _inlining(number_of(node), target.id))


def _apart(number: int) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        target, value = (node.targets[0], node.value) if isinstance(node, ast.Assign) else (None, None)
        if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
            return None
        if any(isinstance(item, ast.Starred) for item in (*target.elts, *value.elts)):
            return None
        lines = [f"{ast.unparse(one)} = {ast.unparse(two)}" for one, two in zip(target.elts, value.elts)]
        return tree.changed({number: [item for line in lines for item in made(line, whose(node))]})  # type: ignore[arg-type]

    return make


def _inlining(number: int, name: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        if not isinstance(node, ast.Assign):
            return None
        value = _value_of(node, name)
        uses = [item for item in walk(tree.module) if isinstance(item, ast.Name) and item.id == name]
        loads = [item for item in uses if isinstance(item.ctx, ast.Load)]
        if value is None or len(uses) != len(loads) + 1 or not loads or _is_named_elsewhere(tree, name):
            return None
        constant = is_constant(value)
        if len(loads) > 1 and not constant:
            return None
        changes: dict[int, Sequence[ast.AST]] = {number_of(item): (again(value),) for item in loads}
        changes[number] = _rest_of(node, name)
        new = tree.changed(changes)
        if not constant:
            statement = tree.statement(number_of(loads[0]))
            if isinstance(statement, ast.Assert):
                return None  # it names what is bad
            after = None if statement is None else new.nodes.get(number_of(statement))
            if after is None or len(head_of(after)) > READABLE:
                return None
            put(after, whose=whose(after) | whose(node), held=is_held(after) or is_held(node))
        return new

    return make


def _forward(number: int, name: str) -> Any:
    """A value where the next statement reads it: of a name that is bound again and again."""

    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        if not isinstance(node, ast.Assign):
            return None
        after = _next(tree, node)
        loads = (
            [] if after is None else [item for item in walk(after) if isinstance(item, ast.Name) and item.id == name]
        )
        loads = [item for item in loads if isinstance(item.ctx, ast.Load)]
        if (
            after is None
            or isinstance(after, ast.Assert)
            or len(loads) != 1
            or isinstance(getattr(after, "body", None), list)
        ):
            return None
        new = tree.changed({number: (), number_of(loads[0]): (again(node.value),)})
        changed = new.nodes[number_of(after)]
        if len(head_of(changed)) > READABLE:
            return None
        put(changed, whose=whose(changed) | whose(node), held=is_held(changed) or is_held(node))
        return new

    return make


def _next(tree: Tree, node: ast.stmt) -> Optional[ast.stmt]:
    """The statement behind a statement in its block."""
    holder = tree.above[number_of(node)]
    for name in ("body", "orelse", "finalbody"):
        block = getattr(holder, name, None)
        if isinstance(block, list) and any(item is node for item in block):
            return next(iter(block[block.index(node) + 1 :]), None)
    return None


def _value_of(node: ast.Assign, name: str) -> Optional[ast.expr]:
    target = node.targets[0]
    if isinstance(target, ast.Name):
        return node.value if target.id == name else None
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        found = [
            value for item, value in zip(target.elts, node.value.elts) if isinstance(item, ast.Name) and item.id == name
        ]
        return found[0] if len(found) == 1 and is_constant(found[0]) else None
    return None


def _rest_of(node: ast.Assign, name: str) -> Sequence[ast.stmt]:
    """An assignment without one of its names."""
    target, value = node.targets[0], node.value
    if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple):
        return ()
    pairs = [
        pair for pair in zip(target.elts, value.elts) if not (isinstance(pair[0], ast.Name) and pair[0].id == name)
    ]
    if not pairs:
        return ()
    if len(pairs) == 1:
        return (copied(node, own=None, targets=[pairs[0][0]], value=pairs[0][1]),)
    targets, values = zip(*pairs)
    return (copied(node, own=None, targets=[copied(target, elts=[*targets])], value=copied(value, elts=[*values])),)


def _is_named_elsewhere(tree: Tree, name: str) -> bool:
    """Whether a name is also that of an argument, or is declared global."""
    for node in walk(tree.module):
        if isinstance(node, ast.arg) and node.arg == name:
            return True
        if isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names:
            return True
    return False


def is_constant(node: ast.expr) -> bool:
    if isinstance(node, (ast.Tuple, ast.List)):
        return len(node.elts) <= 4 and all(map(is_constant, node.elts))
    return isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant))


def again(node: ast.expr) -> ast.expr:
    """A copy under numbers of its own."""
    return expression(f"({ast.unparse(node)})")
