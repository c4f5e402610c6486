"""Arguments and elements left out, and expressions replaced by what is in them."""

import ast
import builtins
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..text.tree import Tree, children, copied, head_of, is_held, is_ours, number_of, walk
from .edit import Edit, parts
from .endings import CHECKS, selects

# What is said to the system stays as it is, or goes as a whole.
SYSTEM = ("ctypes", "os", "shutil", "signal", "socket", "subprocess")


def changeable(tree: Tree) -> Iterator[ast.AST]:
    """The nodes of statements in which something may be changed."""
    for statement in tree.module.body:
        yield from _changeable(statement)


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float))


def _of(tree: Tree, node: ast.AST, part: ast.AST) -> str:
    """What an edit changes: the statement's first line, and the part of it."""
    statement = tree.statement(number_of(node))
    return f"{'' if statement is None else head_of(statement)} / {number_of(node)} / {number_of(part)}"


def _checks(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in CHECKS


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assert) and (is_ours(node) or any(map(_checks, walk(node.test)))):
        return  # "not x" in place of "not x.isnan().any()" would fail of sound numbers too
    own = (part for child in children(node) if not isinstance(child, ast.stmt) for part in walk(child))
    if isinstance(node, ast.stmt) and (
        is_held(node) or any(isinstance(item, ast.Name) and item.id in SYSTEM for item in own)
    ):
        for child in children(node):
            if isinstance(child, ast.stmt):
                yield from _changeable(child)
        return
    yield node
    for child in children(node):
        yield from _changeable(child)


# --- arguments and elements ------------------------------------------------------------------------------------------


def _rows(tree: Tree) -> list[list[ast.List]]:
    """Lists of numbers, those of one length together, where there are several."""
    rows: dict[int, list[ast.List]] = {}
    for node in changeable(tree):
        if isinstance(node, ast.List) and len(node.elts) > 1 and all(map(_is_number, node.elts)):
            rows.setdefault(len(node.elts), []).append(node)
    return [same for same in rows.values() if len(same) > 1]


def items(tree: Tree) -> Iterator[Edit]:
    """Arguments of calls and elements of lists left out, many at a time first.

    Lists of numbers of one length are cut together: token ids and their mask, the rows of a tensor. One alone would
    leave a call that nobody would make.
    """
    linked: set[int] = set()
    for same in _rows(tree):
        linked.update(map(number_of, same))
        for some in parts([*range(len(same[0].elts))], False):
            yield _without(tree, [row.elts[at] for row in same for at in some], "elements")
    for node in changeable(tree):
        if number_of(node) not in linked:
            yield from _items_of(tree, node)


def _items_of(tree: Tree, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Call):
        for named in parts(node.keywords, True):
            yield _without(tree, named, "arguments")
        for argument in reversed(node.args) if not _is_conversion(node) else ():
            yield _without(tree, [argument], "arguments")
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)) and len(node.elts) > 1:
        if isinstance(node, ast.Set) or isinstance(node.ctx, ast.Load):
            for some in parts(node.elts, False):
                yield _without(tree, some, "elements")
    elif isinstance(node, ast.Dict):
        for keys in parts([number_of(key) for key in node.keys if key is not None], True):
            yield Edit(f"without {len(keys)} entries", _without_entries(number_of(node), keys), may_grow=True)
    elif isinstance(node, (ast.Import, ast.ImportFrom)) and len(node.names) > 1:
        for name in node.names:
            yield _without(tree, [name], "imports")


def _without(tree: Tree, some: Sequence[ast.AST], what: str) -> Edit:
    numbers = [number_of(node) for node in some]

    def make(tree: Tree) -> Optional[Tree]:
        present = [number for number in numbers if number in tree.nodes]
        holder = tree.above.get(present[0]) if present else None
        if isinstance(holder, (ast.Import, ast.ImportFrom)) and len(holder.names) <= len(present):
            return None
        return tree.changed(dict.fromkeys(present, ())) if present else None

    return Edit(f"without {len(numbers)} {what}", make, _of(tree, some[0], some[-1]), may_grow=True)


def _is_conversion(node: ast.Call) -> bool:
    """``float(x)``, which without its argument is a zero that nobody reads as one."""
    return isinstance(node.func, ast.Name) and len(node.args) == 1 and hasattr(builtins, node.func.id)


def _without_entries(number: int, keys: Sequence[int]) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        if not isinstance(node, ast.Dict):
            return None
        pairs = [pair for pair in zip(node.keys, node.values) if pair[0] is None or number_of(pair[0]) not in keys]
        if len(pairs) == len(node.keys):
            return None
        new = copied(node, keys=[key for key, _ in pairs], values=[value for _, value in pairs])
        return tree.changed({number: (new,)})

    return make


# --- parts of expressions --------------------------------------------------------------------------------------------


def simpler(tree: Tree) -> Iterator[Edit]:
    """Expressions replaced by a part of them, the outermost first."""
    modules = {
        (name.asname or name.name).split(".")[0]
        for node in walk(tree.module)
        for name in getattr(node, "names", ())
        if isinstance(name, ast.alias)
    }
    for node in changeable(tree):
        for inner in _parts(node, modules) if isinstance(node, ast.expr) else ():
            if isinstance(inner, ast.Constant) and isinstance(inner.value, (str, bytes)):
                continue  # a text in place of what was made of it only seems smaller
            yield Edit("a part of an expression", _replacing(number_of(node), number_of(inner)), _of(tree, node, inner))


def _parts(node: ast.expr, modules: set[str]) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield from (item for item in node.args[:3] if not isinstance(item, ast.Starred))
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        if receiver is not None and not _is_module(receiver, modules):
            yield receiver
    elif isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and not selects(node)) or (
        isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and not _is_module(node.value, modules)
    ):
        yield node.value


def _is_module(node: ast.expr, modules: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in (*modules, "self")


def _replacing(number: int, inner: int) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node, part = tree.nodes.get(number), tree.nodes.get(inner)
        if (
            node is None
            or part is None
            or (tree.above.get(inner) is not node and not any(node is item for item in tree.inside(inner)))
        ):
            return None
        return tree.changed({number: (part,)})

    return make
