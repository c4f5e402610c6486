"""Parameters of functions left out: those that are the same constant in each call, and those that nobody reads."""

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..text.tree import Tree, copied, number_of, walk
from .edit import Edit
from .variables import again, is_constant


def defaults(tree: Tree) -> Iterator[Edit]:
    """Parameters that are a constant unless somebody says otherwise, and nobody does."""
    for node in tree.statements():
        if isinstance(node, ast.FunctionDef):
            for item in (*node.args.args, *node.args.kwonlyargs):
                yield Edit(f"the default of {item.arg} in its place", _without_parameter(number_of(node), item.arg))


def _without_parameter(number: int, name: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        if not isinstance(node, ast.FunctionDef):
            return None
        given, only = node.args, node.args.kwonlyargs
        positional = len(given.args) - len(given.defaults)
        pairs = [*zip(given.args[positional:], given.defaults), *zip(only, given.kw_defaults)]
        value = next((value for item, value in pairs if item.arg == name), None)
        uses = [item for part in node.body for item in walk(part) if isinstance(item, ast.Name) and item.id == name]
        if value is None or not is_constant(value) or any(not isinstance(item.ctx, ast.Load) for item in uses):
            return None
        arguments = copied(
            given,
            args=[item for item in given.args if item.arg != name],
            defaults=[value for item, value in zip(given.args[positional:], given.defaults) if item.arg != name],
            kwonlyargs=[item for item in only if item.arg != name],
            kw_defaults=[value for item, value in zip(only, given.kw_defaults) if item.arg != name],
        )
        changes: dict[int, Sequence[ast.AST]] = {number_of(item): (again(value),) for item in uses}
        return tree.changed({**changes, number_of(given): (arguments,)})

    return make


def unread(tree: Tree) -> Iterator[Edit]:
    """Parameters that their function does not read, with the arguments of its calls."""
    for node in tree.statements():
        if isinstance(node, ast.FunctionDef):
            for item in node.args.args:
                yield Edit(f"without the parameter {item.arg}", _without_unread(number_of(node), item.arg))


def _without_unread(number: int, name: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        if not isinstance(node, ast.FunctionDef):
            return None
        holder = tree.above[number]
        bound = isinstance(holder, ast.ClassDef)
        called = holder.name if isinstance(holder, ast.ClassDef) and node.name == "__init__" else node.name
        names = [item.arg for item in node.args.args]
        read = any(isinstance(item, ast.Name) and item.id == name for part in node.body for item in walk(part))
        if name not in names[1 if bound else 0 :] or read or (bound and node.name != "__init__"):
            return None
        at = names.index(name)
        defaults = [None] * (len(names) - len(node.args.defaults)) + [*node.args.defaults]
        changes: dict[int, Sequence[ast.AST]] = {number_of(node.args.args[at]): ()}
        default = defaults[at]
        if default is not None:
            changes[number_of(default)] = ()
        for call in walk(tree.module):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == called:
                changes.update({number_of(item): () for item in call.args[at - bound :][:1]})
                changes.update({number_of(item): () for item in call.keywords if item.arg == name})
        return tree.changed(changes)

    return make
