"""One change of the caller's own lines that may make the script good: another number, a wider dtype, another label.

None of them knows the fault. Which one is tried first follows from the mechanism; whether it helps is asked by a run.
"""

import ast
from collections.abc import Iterator
from typing import Any, Optional

from ..text.tree import Tree, expression, number_of, whose
from .edit import Edit
from .expressions import changeable
from .guards import guarded
from .wrapping import wrapped

# What is a bound, and what is a rate, is shown by a run: a smaller number, the nearest first; for none at all a little.
DIVIDED = (10, 100, 1_000, 10_000, 1_000_000, 100_000_000)
LITTLE, FAR = 1e-6, -1e4
NARROW = ("float16", "half", "bfloat16")
WIDER = ("float32", "bfloat16")
FIRST = {
    "overflow": ("dtype", "number"),
    "bad_input": ("number", "data"),
    "literal": ("number",),
    "masked_row": ("number",),
}
ORDER = ("epsilon", "dtype")


def guard_comes(mechanism: str) -> str:
    """When a guard is tried: "first", "last" or "never". In front of a softmax it would lose the scores."""
    return "first" if mechanism not in FIRST else "last" if mechanism == "overflow" else "never"


def repairs(tree: Tree, at: frozenset[int], mechanism: str, by_integers: bool = False) -> Iterator[Edit]:
    """Changes, the likeliest first. Two versions of a script that are changed alike have ``of`` in common.

    at: the statements of the original in which the fault is born. by_integers: whether other integers in the same call,
    such as labels, were seen to help.
    """
    elsewhere = at if mechanism == "overflow" else frozenset()
    kinds = {"dtype": _wider(tree), "number": _numbers(tree, elsewhere), "data": _finite(tree, at)}
    kinds.update(label=_labels(tree), epsilon=_epsilons(tree))
    for kind in ("label",) if by_integers else FIRST.get(mechanism, ORDER):
        yield from kinds[kind]


def _finite(tree: Tree, at: frozenset[int]) -> Iterator[Edit]:
    for node in guarded(tree, at):
        yield wrapped(node, "torch.nan_to_num({})")


def _numbers(tree: Tree, elsewhere: frozenset[int]) -> Iterator[Edit]:
    """Every number that is no size: named arguments first, as rates and bounds have names. None that is part of a
    formula in one of the statements ``elsewhere``: with another number there, what it gives is another quantity.
    """
    found = [node for node in changeable(tree) if _is_rate(tree, node)]
    named = [node for node in found if _name_of(tree, node)]
    there = {number_of(node) for node in found if whose(tree.statement(number_of(node)) or node) & elsewhere}
    for node in [*named, *(node for node in found if node not in named and number_of(node) not in there)]:
        for value in _values(node):
            yield _replaced(node, value)


def _epsilons(tree: Tree) -> Iterator[Edit]:
    """A little in place of an epsilon that is 0."""
    for node in changeable(tree):
        if isinstance(node, ast.Constant) and node.value == 0 and "eps" in (_name_of(tree, node) or ""):
            yield _replaced(node, repr(LITTLE))


def _name_of(tree: Tree, node: ast.AST) -> Optional[str]:
    above = tree.above.get(number_of(node))
    return above.arg if isinstance(above, ast.keyword) else None


def _is_rate(tree: Tree, node: ast.AST) -> bool:
    if _infinite(node) is not None:
        return True
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        return False
    above = tree.above.get(number_of(node))
    inside = [above, *tree.inside(number_of(node))]
    if any(isinstance(one, ast.Assert) or _infinite(one) is not None for one in inside if one is not None):
        return False
    if type(node.value) is float:
        return True
    scaled = isinstance(above, ast.BinOp) and isinstance(above.op, (ast.Mult, ast.Div, ast.Pow))
    return scaled or (isinstance(above, ast.keyword) and above.arg in ("lr", "eps", "init_scale", "alpha", "beta"))


def _infinite(node: Optional[ast.AST]) -> Optional[str]:
    """ "-inf", "inf" or "nan" where that is what the expression says."""
    if node is None or not isinstance(node, (ast.Call, ast.UnaryOp, ast.Attribute)):
        return None
    text = ast.unparse(node).replace('"', "'")
    sign = "-" if text.startswith("-") else ""
    plain = text.lstrip("-")
    if plain in ("torch.inf", "math.inf", "np.inf", "float('inf')"):
        return sign + "inf"
    if plain == "float('-inf')":
        return "-inf" if not sign else "inf"
    return "nan" if plain in ("torch.nan", "math.nan", "np.nan", "float('nan')") else None


def _values(node: ast.AST) -> list[str]:
    infinite = _infinite(node)
    if infinite is not None:
        return [repr(FAR)] if infinite == "-inf" else ["0.0"]
    assert isinstance(node, ast.Constant)
    value: Any = node.value
    if value == 0:
        return [repr(LITTLE)]
    return [repr(value // by if type(value) is int and value % by == 0 else value / by) for by in DIVIDED]


def _replaced(node: ast.AST, text: str) -> Edit:
    number = number_of(node)

    def make(tree: Tree) -> Optional[Tree]:
        return tree.changed({number: (expression(text),)}) if number in tree.nodes else None

    what = f"{text} in place of {ast.unparse(node)}"
    return Edit(what, make, what)


def _labels(tree: Tree) -> Iterator[Edit]:
    """Integers below zero, which mark what is to be left out; all of one value together."""
    found: dict[str, list[int]] = {}
    for node in changeable(tree):
        operand = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else None
        if isinstance(operand, ast.Constant) and type(operand.value) is int:
            found.setdefault(ast.unparse(node), []).append(number_of(node))
    for text, numbers in found.items():
        yield _together(dict.fromkeys(numbers, "0"), f"0 in place of {text}")


def _wider(tree: Tree) -> Iterator[Edit]:
    """A wider dtype wherever the script asks for a narrow one."""
    for wider in WIDER:
        found = {number_of(node): _in_dtype(node, wider) for node in changeable(tree)}
        changes = {number: new for number, new in found.items() if new is not None}
        if changes:
            yield _together(changes, f"{wider} in place of a narrower dtype")


def _in_dtype(node: Any, wider: str) -> Optional[str]:
    narrow = set(NARROW) - {wider}
    if isinstance(node, ast.Attribute) and node.attr in narrow and ast.unparse(node.value) == "torch":
        return f"torch.{wider}"
    if isinstance(node, ast.Constant) and node.value in narrow:
        return repr(wider)
    is_plain = isinstance(node, ast.Call) and not node.args and not node.keywords
    if is_plain and isinstance(node.func, ast.Attribute) and node.func.attr in narrow:
        return f"({ast.unparse(node.func.value)}).{'float' if wider == 'float32' else wider}()"
    return None


def _together(changes: dict[int, str], what: str) -> Edit:
    def make(tree: Tree) -> Optional[Tree]:
        present = {number: (expression(text),) for number, text in changes.items() if number in tree.nodes}
        return tree.changed(present) if present else None

    return Edit(what, make, what)
