"""The end that tells the fault as one assertion, on the value where it arrives."""

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..text.tree import Tree, copied, made, number_of, put, walk, whose
from .edit import Edit

CHECKS = ("isfinite", "isnan", "isinf", "has_nan", "nansum")
ENDS = ("exit", "quit", "SystemExit", "_exit")
LIBRARIES = ("torch", "math", "np", "numpy")
MOST = 12  # values that are tried
JOIN = " or "

Bad = tuple[frozenset[int], str, str]
"""The statements of the original that bind a bad value, the expression that gives it, and "NaN", "Inf" or both."""


def bound(tree: Tree, places: dict[int, frozenset[int]]) -> dict[int, tuple[str, ...]]:
    """For each line of a tree's text, the names that are bound there."""
    names: dict[int, tuple[str, ...]] = {}
    for node in tree.statements():
        found = dict.fromkeys(_targets(node))
        for number in whose(node) if found else ():
            names[number] = tuple(found)
    lines = {line: [name for number in numbers for name in names.get(number, ())] for line, numbers in places.items()}
    return {line: tuple(found) for line, found in lines.items() if found}


def _targets(node: ast.stmt) -> Iterator[str]:
    given: Sequence[ast.AST] = node.targets if isinstance(node, ast.Assign) else ()
    if isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For)):
        given = [node.target]
    for target in given:
        yield from (item.id for item in walk(target) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store))


def assertions(tree: Tree, bad: Sequence[Bad]) -> Iterator[Edit]:
    """Assertions behind what binds a value that is bad, and in place of what ends the script. A script that ends with a
    NaN still does so: not each is told by an Inf on the way to it. Nothing is asked of a value from which the script
    selects by a mask: what it leaves out may hold a NaN in a sound run.

    bad: what binds such a value, in the order in which it was seen.
    """
    end = set(bad[-1][2].split(JOIN)) if bad else set()
    partly = set(_selected_from(tree))
    whole = [item for item in bad if item[1] not in partly]
    alike = [(numbers, shown, [kind for kind in held.split(JOIN) if kind in end]) for numbers, shown, held in whole]
    known = [(numbers, _line(shown, JOIN.join(kinds)), shown) for numbers, shown, kinds in alike if kinds]
    outside = [item for item in known if _depth(tree, item[0]) == 0]
    inside = [item for item in known if _depth(tree, item[0]) > 0]
    for numbers, line, shown in outside[:MOST]:
        for outward in (True, False):
            yield Edit(f"an assertion on {shown}", _behind(numbers, line, outward))
    for shown in dict.fromkeys(_checked(tree)):
        yield Edit(f"an assertion on {shown} at the end", _at_the_end(_line(shown)))
    for owner in dict.fromkeys(_owners(tree)):
        for condition in ("", " if p.grad is not None"):
            finite = f"all(p.grad.isfinite().all() for p in {owner}.parameters(){condition})"
            line = f'assert {finite}, "a gradient has NaN or Inf"'
            for outward in (True, False):
                yield Edit(f"an assertion on the gradients of {owner}", _behind_backward(line, outward))
    for numbers, line, shown in inside[:MOST]:
        for outward in (True, False):
            yield Edit(f"an assertion on {shown}", _behind(numbers, line, outward))


def instead_of(raised: str) -> Edit:
    """An assertion in place of the exception that the last statement ends with, so that it is told from any other."""

    def make(tree: Tree) -> Optional[Tree]:
        last = tree.module.body[-1] if tree.module.body else None
        if last is None or isinstance(last, (ast.Assert, ast.Try)):
            return None
        (around,) = made(f"try:\n    pass\nexcept {raised} as error:\n    assert False, error", whose(last))
        return tree.changed({number_of(last): (copied(around, body=[last]),)})

    return Edit("an assertion in place of the exception", make)


def _line(shown: str, kind: str = "NaN or Inf") -> str:
    """kind: what it must not hold."""
    asked = {"NaN": f"not {shown}.isnan().any()", "Inf": f"not {shown}.isinf().any()"}
    said = f"{shown} has {kind}"
    quoted = repr(said) if '"' in said or "\\" in said else f'"{said}"'
    return f"assert {asked.get(kind, f'{shown}.isfinite().all()')}, {quoted}"


def _ours(line: str) -> list[ast.stmt]:
    """The assertion, which stays as it is."""
    found = made(line)
    for node in found:
        put(node, ours=True)
    return found


def _depth(tree: Tree, numbers: frozenset[int]) -> int:
    """In how many functions a statement stands; -1 where it is no longer there."""
    node = _statement(tree, numbers)
    if node is None:
        return -1
    return sum(isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) for item in tree.inside(number_of(node)))


def _statement(tree: Tree, numbers: frozenset[int]) -> Optional[ast.stmt]:
    return next((node for node in tree.statements() if whose(node) & numbers), None)


def _behind(numbers: frozenset[int], line: str, outward: bool) -> Any:
    """The assertion behind a statement, in place of all that follows in its block. outward: and in those around it."""

    def make(tree: Tree) -> Optional[Tree]:
        node = _statement(tree, numbers)
        return None if node is None else _cut_behind(tree, node, line, outward)

    return make


def _cut_behind(tree: Tree, node: ast.stmt, line: str, outward: bool) -> Optional[Tree]:
    later = _later(tree, node)
    if later and isinstance(later[0], ast.Assert):
        return None
    further = [item for around in _around(tree, node) for item in _later(tree, around)] if outward else []
    gone = {number_of(item): () for item in (*later, *further)}
    return tree.changed({number_of(node): (node, *_ours(line)), **gone}) if further or not outward else None


def _around(tree: Tree, node: ast.stmt) -> Iterator[ast.stmt]:
    """The statements that a statement is part of; out of a function, where that is called, if it is in one place."""
    here: Optional[ast.AST] = node
    while here is not None:
        here = tree.above.get(number_of(here))
        if isinstance(here, (ast.FunctionDef, ast.AsyncFunctionDef)):
            called = [item for item in walk(tree.module) if isinstance(item, ast.Name) and item.id == here.name]
            here = tree.statement(number_of(called[0])) if len(called) == 1 else None
        if isinstance(here, ast.stmt):
            yield here


def _later(tree: Tree, node: ast.stmt) -> list[ast.stmt]:
    """What follows a statement in its block; of a definition nothing, for what follows is not run after it."""
    if isinstance(node, ast.ClassDef):
        return []
    block = _block_of(tree, node)
    return block[block.index(node) + 1 :]


def _block_of(tree: Tree, node: ast.stmt) -> list[ast.stmt]:
    holder = tree.above[number_of(node)]
    blocks = (getattr(holder, name, None) for name in ("body", "orelse", "finalbody"))
    return next(block for block in blocks if isinstance(block, list) and any(item is node for item in block))


def _behind_backward(line: str, outward: bool) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        for node in tree.statements():
            call = node.value if isinstance(node, ast.Expr) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "backward":
                return _cut_behind(tree, node, line, outward)
        return None

    return make


def _at_the_end(line: str) -> Any:
    """The assertion in place of the last statement that ends the script with a status."""

    def make(tree: Tree) -> Optional[Tree]:
        ends = [node for node in tree.statements() if _ends(node)]
        return tree.changed({number_of(ends[-1]): _ours(line)}) if ends else None

    return make


def _ends(node: ast.stmt) -> bool:
    if not isinstance(node, (ast.Expr, ast.Raise)):
        return False
    return any(isinstance(item, ast.Call) and ast.unparse(item.func).rpartition(".")[2] in ENDS for item in walk(node))


def _checked(tree: Tree) -> Iterator[str]:
    """What the script itself asks whether it is finite."""
    for node in reversed(list(walk(tree.module))):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in CHECKS:
            continue
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        for item in (*node.args[:1], *([receiver] if receiver is not None else [])):
            if isinstance(item, (ast.Name, ast.Attribute, ast.Subscript)) and ast.unparse(item) not in LIBRARIES:
                yield ast.unparse(item)


def _selected_from(tree: Tree) -> Iterator[str]:
    for node in walk(tree.module):
        if isinstance(node, ast.Subscript) and selects(node):
            yield ast.unparse(node.value)


def selects(node: ast.Subscript) -> bool:
    """Whether it reads a part by an index that is computed, as by a mask: the whole is something else."""
    index = walk(node.slice) if isinstance(node.ctx, ast.Load) else ()
    return any(isinstance(item, (ast.Name, ast.Call, ast.Compare)) for item in index)


def _owners(tree: Tree) -> Iterator[str]:
    """What has parameters, in the script's own words."""
    for node in walk(tree.module):
        if isinstance(node, ast.Attribute) and node.attr in ("parameters", "named_parameters"):
            if isinstance(node.value, (ast.Name, ast.Attribute)):
                yield ast.unparse(node.value)
        elif isinstance(node, ast.Attribute) and node.attr == "grad" and isinstance(node.value, ast.Attribute):
            yield ast.unparse(node.value.value)
