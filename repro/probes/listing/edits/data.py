"""What a script reads of files, of its arguments and makes with other packages, replaced by tensors of the same shapes
and by plain values.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ..text.tree import Tree, expression, made, number_of, walk, whose
from .edit import Edit

OWN = ("torch", "transformers", "math", "sys", "typing", "dataclasses", "functools", "itertools", "collections")
READING = ("open", "DataLoader", "Dataset", "TensorDataset", "load_dataset")
FILLS = {"float": ("randn", "ones", "zeros"), "int": ("ones", "zeros"), "bool": ("ones", "zeros")}
Literals = Mapping[tuple[frozenset[int], str], tuple[str, ...]]
Shapes = Mapping[tuple[frozenset[int], str], tuple[tuple[int, ...], str]]


def replaced(tree: Tree, shapes: Shapes, modules: frozenset[str]) -> Iterator[Edit]:
    """Data that come from elsewhere as plain tensors.

    shapes: by the statements of the original and the name that they bind. modules: names of modules, whose results are
    no data.
    """
    foreign = _foreign(tree, {name for _, name in shapes})
    for node in tree.statements():
        read = {item.id for item in walk(node) if isinstance(item, ast.Name)}
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not read & foreign or read & modules:
            continue
        names = _names(node.targets[0])
        found = [_shape_of(node, name, shapes) for name in names]
        known = [item for item in found if item is not None]
        if not names or len(known) != len(names):
            continue
        for number in range(3):
            lines = [f"{name} = {_fill(*shape, number)}" for name, shape in zip(names, known)]
            yield Edit("plain tensors in place of data", _putting(number_of(node), "\n".join(lines)))


def written_down(tree: Tree, literals: Literals) -> Iterator[Edit]:
    """What a statement reads of a file, without it: numbers as literals, the fewest rows first.

    literals: by the statements of the original and the name that they bind, statements that bind the same.
    """
    for node in tree.statements():
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if not isinstance(target, ast.Name):
            continue
        for (numbers, name), texts in literals.items():
            if name == target.id and numbers & whose(node):
                for text in texts:
                    yield Edit("what was read, without the file", _putting(number_of(node), text))


def _foreign(tree: Tree, tensors: set[str]) -> set[str]:
    """The names of other packages, of what reads data, and of all that is made with them, up to the first tensors."""
    found = {*READING}
    for node in walk(tree.module):
        if isinstance(node, ast.Import):
            found |= {(name.asname or name.name).split(".")[0] for name in node.names if _is_other(name.name)}
        elif isinstance(node, ast.ImportFrom) and (node.level or _is_other(node.module or "")):
            found |= {name.asname or name.name for name in node.names}
    while True:
        before = len(found)
        for node in tree.statements():
            if not isinstance(node, (ast.Assign, ast.For, ast.With, ast.FunctionDef, ast.ClassDef, ast.Expr)):
                continue
            if any(isinstance(item, ast.Name) and item.id in found for item in walk(node)):
                names = [item for item in walk(node) if isinstance(item, ast.Name)]
                found |= {item.id for item in names if isinstance(item.ctx, ast.Store)} - tensors
                found |= {node.name} if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else set()
        if len(found) == before:
            return found


def _is_other(module: str) -> bool:
    return module.split(".")[0] not in OWN


def _names(target: ast.expr) -> list[str]:
    """The names that a target binds; none where it binds something else as well."""
    items = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    names = [item.id for item in items if isinstance(item, ast.Name)]
    return names if len(names) == len(items) else []


def _shape_of(node: ast.stmt, name: str, shapes: Shapes) -> Optional[tuple[tuple[int, ...], str]]:
    return next((shape for (numbers, bound), shape in shapes.items() if bound == name and numbers & whose(node)), None)


def _fill(shape: tuple[int, ...], dtype: str, number: int) -> str:
    """A tensor of a shape, in the words of PyTorch."""
    kind = next((kind for kind in FILLS if kind in dtype), "int")
    fill = FILLS[kind][min(number, len(FILLS[kind]) - 1)]
    sizes = ", ".join(map(str, shape)) or "()"
    return f"torch.{fill}({sizes}{'' if dtype == 'torch.float32' else f', dtype={dtype}'})"


def options(tree: Tree, values: Mapping[str, Mapping[str, Any]]) -> Iterator[Edit]:
    """The values of parsed arguments and of other records in place of their names. values: by name and attribute."""
    for name, known in values.items():
        yield Edit(f"the values of {name}", _with_values(name, known))


def _with_values(name: str, known: Mapping[str, Any]) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        changes = {
            number_of(node): (expression(f"({known[node.attr]!r})"),)
            for node in walk(tree.module)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in known
            if isinstance(node.value, ast.Name) and node.value.id == name
        }
        return tree.changed(changes) if changes else None

    return make


def _putting(number: int, text: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        return tree.changed({number: made(text, whose(node))}) if isinstance(node, ast.stmt) else None

    return make
