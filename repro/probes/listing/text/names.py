"""Names that a script reads and never binds: such a version ends with a NameError and need not be run."""

import ast
import builtins

from .tree import Tree, walk

GIVEN = frozenset(("__file__", "__name__", "__doc__", "__builtins__", "__class__", "__spec__", "__package__"))


def unbound(tree: Tree) -> frozenset[str]:
    """The names that are read and bound nowhere in the script, whatever the scope; none where ``import *`` may bind."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in walk(tree.module):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            bound.add(node.name or "")
        elif isinstance(node, ast.alias):
            if node.name == "*":
                return frozenset()
            bound.add((node.asname or node.name).split(".")[0])
        elif type(node).__name__ in ("MatchAs", "MatchStar", "MatchMapping"):
            bound.update(filter(None, (getattr(node, "name", None), getattr(node, "rest", None))))
    return frozenset(read - bound - GIVEN - set(dir(builtins)))


def ids(tree: Tree) -> "tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]":
    """Pairs of special tokens to which a call gives one id, and those to which it gives two: a mask that is the padding
    as well is another model.
    """
    alike: set[tuple[str, str]] = set()
    unlike: set[tuple[str, str]] = set()
    for node in walk(tree.module):
        given = [(item.arg, item.value.value) for item in getattr(node, "keywords", ()) if _is_id(item)]
        for one, value in given:
            for two, other in given:
                if one < two:
                    (alike if value == other else unlike).add((one, two))
    return frozenset(alike), frozenset(unlike)


def _is_id(item: ast.keyword) -> bool:
    return str(item.arg).endswith("_token_id") and isinstance(item.value, ast.Constant)
