"""A script and the modules beside it as one text, so that it runs where these are not.

Each module stands where it is imported first. A name of a module, as in ``consts.AXIS``, becomes the name itself.
Whether the joined script does the same is not known from its text; it is run.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

MOST = 4000  # lines of all modules together
HERE = ""  # the script's name among the modules

Line = tuple[str, Optional[tuple[str, int]]]
"""A line, and the module and line that it comes from."""


class CannotJoin(Exception):
    """The message says why."""


@dataclass
class _File:
    """One module. names: what its own statements bind. aliases: names that stand for other modules."""

    name: str
    text: str
    package: str
    module: ast.Module
    aliases: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    cut: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=dict)


def joined(script: str, modules: Mapping[str, str], packages: frozenset[str]) -> list[Line]:
    """The script's lines with those of the modules that it imports.

    modules: their texts by their names. packages: the names that are packages.

    Raises:
        CannotJoin: they use each other in a way that one text cannot have.
    """
    if sum(text.count("\n") for text in modules.values()) > MOST:
        raise CannotJoin(f"they have more than {MOST:,} lines")
    return _Joining(modules, packages).lines(script)


class _Joining:
    def __init__(self, modules: Mapping[str, str], packages: frozenset[str]) -> None:
        above = {name.rpartition(".")[0] for name in modules} - {""}
        self._texts = {**dict.fromkeys(above - set(modules), ""), **modules}
        self._packages = packages | above
        self._begun: set[str] = set()
        self._bound: dict[str, tuple[str, str]] = {}
        self._future: list[Line] = []
        self._imports: set[str] = set()
        self._aliases: dict[str, dict[str, str]] = {}

    def lines(self, script: str) -> list[Line]:
        found = self._of(HERE, script)
        return [*self._future, *found]

    def _of(self, name: str, text: str) -> list[Line]:
        try:
            module = ast.parse(text)
        except SyntaxError as error:
            raise CannotJoin(f"{name} is no Python of this interpreter: {error.msg}") from None
        package = name if name in self._packages else name.rpartition(".")[0]
        file = _File(name, text, package, module)
        self._aliases[name] = file.aliases
        rows = text.split("\n")
        gone: dict[int, list[Line]] = {}  # by the first line of a statement, what stands in its place
        skipped: set[int] = set()
        for node in module.body:
            place = self._in_place_of(file, node)
            if place is None:
                self._bind(file, node)
                continue
            if any(other is not node and _rows(other) & _rows(node) for other in module.body):
                raise CannotJoin(f"line {node.lineno} of {name or 'the script'} has several statements")
            gone[node.lineno] = place
            skipped |= _rows(node)
        self._rename(file, skipped)
        return list(_written(file, rows, gone, skipped))

    def _in_place_of(self, file: _File, node: ast.stmt) -> Optional[list[Line]]:
        """What stands in the place of a statement; None where it stays."""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            return self._import(file, node)
        if any(self._own(file, inner) for inner in ast.walk(node)):
            raise CannotJoin(f"{file.name or 'the script'} imports one of them inside of a function or block")
        if file.name != HERE:
            if any(isinstance(inner, ast.Name) and inner.id in ("__file__", "globals") for inner in ast.walk(node)):
                raise CannotJoin(f"{file.name} asks where it lies, or for its own names")
            is_main = isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__ ==")
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            return [] if is_main or is_text or is_all else None
        return None

    def _own(self, file: _File, node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return any(name.name.split(".")[0] in self._texts for name in node.names)
        return isinstance(node, ast.ImportFrom) and self._source(file, node) is not None

    def _source(self, file: _File, node: ast.ImportFrom) -> Optional[str]:
        """The module of ours that a "from" names."""
        parts = file.package.split(".") if file.package else []
        if node.level:
            parts = parts[: len(parts) - node.level + 1]
        base = parts if node.level else []
        name = ".".join([*base, *([node.module] if node.module else [])])
        return name if name in self._texts else None

    def _import(self, file: _File, node: Any) -> Optional[list[Line]]:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            self._future += [(ast.unparse(node), None)] if (ast.unparse(node), None) not in self._future else []
            return []
        if not self._own(file, node):
            again = ast.unparse(node) in self._imports
            self._imports.add(ast.unparse(node))
            return [] if again and file.name != HERE else None
        found: list[Line] = []
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name not in self._texts:
                    raise CannotJoin(f"{ast.unparse(node)} names several modules")
                for at in range(1, name.name.count(".") + 2):
                    found += self._module(".".join(name.name.split(".")[:at]))
                file.aliases[name.asname or name.name.split(".")[0]] = (
                    name.name if name.asname else name.name.split(".")[0]
                )
            return found
        source = self._source(file, node) or ""
        for at in range(1, source.count(".") + 2):
            found += self._module(".".join(source.split(".")[:at]))
        for name in node.names:
            inner = f"{source}.{name.name}"
            if inner in self._texts:
                found += self._module(inner)
                file.aliases[name.asname or name.name] = inner
            elif name.asname and name.asname != name.name:
                found.append((f"{name.asname} = {name.name}", None))
        return found

    def _module(self, name: str) -> list[Line]:
        """Its lines, the first time."""
        if name in self._begun:
            return []
        self._begun.add(name)
        return self._of(name, self._texts[name])

    def _bind(self, file: _File, node: ast.stmt) -> None:
        """Note what a statement binds at the top; a name of two files cannot stand for both."""
        for name, what in _binds(node):
            here = (what or file.name, what)
            if self._bound.setdefault(name, here) != here:
                raise CannotJoin(f"two of them have the name {name}")
            file.names.add(name)

    def _rename(self, file: _File, skipped: set[int]) -> None:
        """``consts.AXIS`` as ``AXIS``."""
        inner = {
            item.arg if isinstance(item, ast.arg) else item.id
            for node in ast.walk(file.module)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for item in ast.walk(node)
            if isinstance(item, ast.arg) or (isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store))
        }
        taken: set[int] = set()
        for node in ast.walk(file.module):
            if not isinstance(node, ast.Attribute) or id(node) in taken:
                continue
            left = self._module_of(file, node.value)
            if left is None or self._module_of(file, node) is not None:
                continue
            if not isinstance(node.ctx, ast.Load) or node.attr in inner:
                raise CannotJoin(f"{ast.unparse(node)} cannot be told from another {node.attr}")
            if node.lineno != node.end_lineno:
                raise CannotJoin(f"{ast.unparse(node)} stands on several lines")
            taken |= {id(item) for item in ast.walk(node)}
            end = node.end_col_offset or 0
            file.cut.setdefault(node.lineno, []).append((node.col_offset, end, node.attr.encode()))
        for node in ast.walk(file.module):
            if not isinstance(node, ast.Name) or id(node) in taken or node.lineno in skipped:
                continue
            if node.id in file.aliases:
                raise CannotJoin(f"{node.id} is used as an object")

    def _module_of(self, file: _File, node: ast.AST) -> Optional[str]:
        """The module of ours that an expression stands for."""
        if isinstance(node, ast.Name):
            return file.aliases.get(node.id)
        left = self._module_of(file, node.value) if isinstance(node, ast.Attribute) else None
        if left is None or not isinstance(node, ast.Attribute):
            return None
        name = f"{left}.{node.attr}"
        return name if name in self._texts else self._aliases.get(left, {}).get(node.attr)


def _rows(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _written(file: _File, rows: Sequence[str], gone: Mapping[int, list[Line]], skipped: set[int]) -> Iterator[Line]:
    for number, row in enumerate(rows, 1):
        yield from gone.get(number, ())
        if number in skipped:
            continue
        data = row.encode()
        for begin, end, new in sorted(file.cut.get(number, ()), reverse=True):
            data = data[:begin] + new + data[end:]
        yield data.decode(), (file.name, number)


def _binds(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names that a statement binds at the top of its file; of an import also what it stands for."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for name in node.names:
            whole = f"{getattr(node, 'module', '') or ''}:{name.name}"
            yield (name.asname or name.name.split(".")[0]), whole if name.asname else whole.split(".")[0]
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name, ""
    else:
        for item in ast.walk(node):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                yield item.id, ""
