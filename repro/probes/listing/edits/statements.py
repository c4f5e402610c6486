"""Statements left out, compound ones replaced by what is in them, and functions put where they are called."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ..text.tree import Tree, copied, expression, made, number_of, put, rewritten, walk, whose
from .edit import Edit

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.ClassDef, ast.Lambda)


def blocks(tree: Tree) -> list[tuple[int, str]]:
    """Every list of statements: the number of the node that holds it and the field, the outermost first."""
    found = [
        (number_of(node), name)
        for node in walk(tree.module)
        for name in ("body", "orelse", "finalbody")
        if isinstance(getattr(node, name, None), list)
    ]
    return sorted(found, key=lambda block: sum(1 for _ in tree.inside(block[0])))


def listed(tree: Tree, block: tuple[int, str]) -> list[int]:
    """The numbers of a block's statements; empty once it is gone."""
    node = tree.nodes.get(block[0])
    return [number_of(item) for item in getattr(node, block[1], ())]


def removal(numbers: Sequence[int], what: str = "statements") -> Edit:
    """Without these statements."""

    def make(tree: Tree) -> Optional[Tree]:
        present = [number for number in numbers if number in tree.nodes and not _is_pass(tree.nodes[number])]
        return tree.changed(dict.fromkeys(present, ())) if present else None

    return Edit(f"without {len(numbers)} {what}", make)


def _is_pass(node: ast.AST) -> bool:
    return isinstance(node, ast.Pass)


def not_run(tree: Tree, ran: frozenset[int]) -> Edit:
    """Without what does not run. ran: the statements of the original that do."""
    dead: set[int] = set()

    def lives(node: ast.stmt) -> bool:
        inner = [item for item in walk(node) if isinstance(item, ast.stmt) and item is not node]
        if isinstance(node, FUNCTIONS):
            return any(whose(item) & ran for item in inner)
        unseen = isinstance(node, (ast.Global, ast.Nonlocal, ast.Pass)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        )
        return unseen or bool(whose(node) & ran) or any(whose(item) & ran for item in inner)

    def mark(statements: Sequence[ast.stmt]) -> None:
        for node in statements:
            if not lives(node):
                dead.add(number_of(node))
                continue
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(node, name, [])
                mark(inner if isinstance(inner, list) else [])
            for handler in getattr(node, "handlers", ()):
                mark(handler.body)

    mark(tree.module.body)
    return removal(sorted(dead), "statements that do not run")


def not_needed(tree: Tree, wanted: frozenset[int]) -> Edit:
    """Without the statements that bind or change nothing that the wanted ones read, by name. wanted: statements of the
    original.
    """
    body = tree.module.body
    modules = {
        name.asname or name.name.split(".")[0] for node in body if isinstance(node, ast.Import) for name in node.names
    }
    needed: set[str] = set()
    kept: set[int] = set()
    while True:
        new = [
            node
            for node in body
            if number_of(node) not in kept
            and (
                (_bound(node) - (modules if isinstance(node, ast.Assign) else set())) & needed
                or any(whose(item) & wanted for item in walk(node) if isinstance(item, ast.stmt))
            )
        ]
        if not new:
            break
        for node in new:
            kept.add(number_of(node))
            needed |= {item.id for item in walk(node) if isinstance(item, ast.Name)}
    return removal([number_of(node) for node in body if number_of(node) not in kept], "statements that feed nothing")


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement binds, or whose objects it may change by an attribute, an index or a method."""
    found: set[str] = set()
    for item in walk(node):
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
            found.add(item.id)
        elif isinstance(item, (ast.Attribute, ast.Subscript)) and isinstance(item.ctx, ast.Store):
            found.add(_root(item))
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            found.add(_root(item.func))
        elif isinstance(item, (*FUNCTIONS, ast.ClassDef)):
            found.add(item.name)
        elif isinstance(item, ast.alias):
            found.add((item.asname or item.name).split(".")[0])
    return found - {""}


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def opened(tree: Tree) -> Iterator[Edit]:
    """Compound statements replaced by what is in them."""
    for node in tree.statements():
        for what, _ in _inside(node):
            yield Edit(what, _opening(number_of(node), what))


def _opening(number: int, what: str) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        node = tree.nodes.get(number)
        found = dict(_inside(node)).get(what) if isinstance(node, ast.stmt) else None
        return None if found is None else tree.changed({number: found})

    return make


def _inside(node: Any) -> Iterator[tuple[str, list[ast.stmt]]]:
    """What may stand in place of a compound statement."""
    if isinstance(node, ast.If):
        yield "what is in an if", node.body
        if node.orelse:
            yield "what is in an else", node.orelse
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        body = [item for item in node.body if not isinstance(item, (ast.Break, ast.Continue))]
        yield "what is in a loop", body
        for number, first in enumerate(_rounds(node.iter)):
            yield f"round {number + 1} of a loop", [*made(f"{ast.unparse(node.target)} = {first}", whose(node)), *body]
    elif isinstance(node, ast.While):
        yield "what is in a loop", [item for item in node.body if not isinstance(item, (ast.Break, ast.Continue))]
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        yield "what is in a with", node.body
        named = [item for item in node.items if item.optional_vars is not None]
        if named:
            lines = [f"{ast.unparse(item.optional_vars)} = {ast.unparse(item.context_expr)}" for item in named]  # type: ignore[arg-type]
            yield "what is in a with, and its names", [*made("\n".join(lines), whose(node)), *node.body]
    elif isinstance(node, ast.Try):
        yield "what is in a try", [*node.body, *node.orelse, *node.finalbody]


def _rounds(node: ast.expr) -> Iterator[str]:
    """What a loop's variables are in its rounds: in the first one, and of a written list in each."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args else ""
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    if name == "range":
        yield "0"
    elif name == "enumerate" and first is not None:
        yield from (f"{number}, {text}" for number, text in enumerate(_rounds(first)))
    elif isinstance(node, (ast.List, ast.Tuple)):
        yield from map(ast.unparse, node.elts)
    else:
        yield f"next(iter({ast.unparse(node)}))"


def called_once(tree: Tree) -> Iterator[Edit]:
    """Functions that are called in one place, put there."""
    for node in tree.statements():
        if isinstance(node, ast.FunctionDef):
            yield Edit(f"the function {node.name} where it is called", _placing(number_of(node)))


def _placing(number: int) -> Any:
    def make(tree: Tree) -> Optional[Tree]:
        function = tree.nodes.get(number)
        if not isinstance(function, ast.FunctionDef) or function.decorator_list:
            return None
        uses = [node for node in walk(tree.module) if isinstance(node, ast.Name) and node.id == function.name]
        call = tree.above.get(number_of(uses[0])) if len(uses) == 1 else None
        if not isinstance(call, ast.Call) or call.func is not uses[0]:
            return None
        statement = tree.statement(number_of(call))
        if not isinstance(statement, (ast.Expr, ast.Assign, ast.Return)) or any(
            node is function for node in tree.inside(number_of(call))
        ):
            return None
        given = _given(function, call)
        inner = [node for item in function.body for node in walk(item)]
        returns = [node for node in inner if isinstance(node, ast.Return)]
        last = function.body[-1]
        if given is None or any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in inner):
            return None
        if returns and (len(returns) > 1 or last is not returns[0]):
            return None
        body = [*given, *(function.body[:-1] if returns else function.body)]
        value = last.value if isinstance(last, ast.Return) else None
        if value is not None:
            changed = rewritten(statement, {number_of(call): [value]})
            put(changed, whose=whose(statement) | whose(last))
            body.append(changed)
        elif not (isinstance(statement, ast.Expr) and statement.value is call):
            return None
        return tree.changed({number: (), number_of(statement): body})

    return make


def _given(function: ast.FunctionDef, call: ast.Call) -> Optional[list[ast.stmt]]:
    """The arguments of a call as assignments; None where they are not that plain."""
    names = [item.arg for item in (*function.args.posonlyargs, *function.args.args)]
    named = {item.arg: item.value for item in call.keywords}
    if function.args.vararg or function.args.kwarg or None in named or len(call.args) > len(names):
        return None
    if any(isinstance(item, ast.Starred) for item in call.args):
        return None
    values: dict[str, Optional[ast.expr]] = dict(
        zip(names[len(names) - len(function.args.defaults) :], function.args.defaults)
    )
    values.update({item.arg: value for item, value in zip(function.args.kwonlyargs, function.args.kw_defaults)})
    values.update(zip(names, call.args))
    values.update({str(name): value for name, value in named.items()})
    wanted = [*names, *(item.arg for item in function.args.kwonlyargs)]
    if any(values.get(name) is None for name in wanted) or set(values) - set(wanted):
        return None
    lines = [(name, ast.unparse(values[name])) for name in wanted]  # type: ignore[arg-type]
    return [item for name, text in lines if name != text for item in made(f"{name} = {text}")]


def plain(tree: Tree) -> Iterator[Edit]:
    """Without docstrings, annotations and decorators."""
    texts = [
        number_of(node)
        for node in tree.statements()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    if texts:
        yield removal(texts, "docstrings")
    yield Edit("imports at the top", _imports_first)
    yield Edit("without annotations of functions", _without_annotations)
    yield Edit("without annotations of variables", _without_declarations)
    for node in tree.statements():
        for decorator in getattr(node, "decorator_list", ()):
            yield dropped(number_of(decorator), "a decorator")


def _imports_first(tree: Tree) -> Optional[Tree]:
    inner = [node for node in tree.statements() if isinstance(node, (ast.Import, ast.ImportFrom))]
    inner = [node for node in inner if node not in tree.module.body]
    first = next((node for node in tree.module.body if not _stays_first(node)), None)
    if not inner or first is None:
        return None
    (changed,) = rewritten(ast.Module([first], []), {number_of(node): () for node in inner}).body or (None,)
    rest = {number_of(node): () for node in inner}
    return tree.changed({**rest, number_of(first): [*inner, *([changed] if changed is not None else [])]})


def fewer_rounds(tree: Tree, rounds: Mapping[frozenset[int], tuple[int, ...]]) -> Iterator[Edit]:
    """Loops over a range with as many rounds as it took until values went bad. rounds: by the loop's statements of the
    original.
    """
    for node in tree.statements():
        given = node.iter if isinstance(node, ast.For) else None
        if not isinstance(given, ast.Call) or ast.unparse(given.func) != "range" or len(given.args) != 1:
            continue
        most = given.args[0].value if isinstance(given.args[0], ast.Constant) else None
        for count in dict.fromkeys(item for at, found in rounds.items() if at & whose(node) for item in found if item):
            if not isinstance(most, int) or count < most:  # of an inner loop, the rounds of all its runs are counted
                yield Edit(f"{count} rounds of a loop", _with(number_of(given.args[0]), str(count)))


def _with(number: int, text: str) -> Any:
    return lambda tree: tree.changed({number: (expression(text),)}) if number in tree.nodes else None


def uncompiled(tree: Tree) -> Iterator[Edit]:
    """Without torch.compile: what it is given in its place, its decorators, and ``model.compile()``."""
    yield Edit("without torch.compile", _without_compiling)


def _without_compiling(tree: Tree) -> Optional[Tree]:
    changes: dict[int, Sequence[ast.AST]] = {}
    for node in walk(tree.module):
        for decorator in getattr(node, "decorator_list", ()):
            if _compiles(decorator.func if isinstance(decorator, ast.Call) else decorator):
                changes[number_of(decorator)] = ()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not node.value.args:
            if isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "compile":
                changes[number_of(node)] = ()
        elif isinstance(node, ast.Call) and node.args and _compiles(node.func):
            changes[number_of(node)] = (node.args[0],)
    return tree.changed(changes) if changes else None


def _compiles(node: ast.expr) -> bool:
    return ast.unparse(node) in ("torch.compile", "compile")


def _stays_first(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def seeded(seed: int, generators: frozenset[str] = frozenset(("torch",))) -> Edit:
    """With a seed of each of these generators behind the imports, as far as the script has a name for it."""

    def make(tree: Tree) -> Optional[Tree]:
        names = {
            name.name: name.asname or name.name for item in tree.module.body for name in getattr(item, "names", ())
        }
        first = next((node for node in tree.module.body if not isinstance(node, (ast.Import, ast.ImportFrom))), None)
        lines = [
            f"{names[name]}.{setter}({seed})"
            for name, setter in (("torch", "manual_seed"), ("random", "seed"), ("numpy", "random.seed"))
            if name in generators and name in names
        ]
        if first is None or not lines:
            return None
        return tree.changed({number_of(first): [*made("\n".join(lines)), first]})

    return Edit("with a seed", make)


def drawn_anew(edit: Edit, seed: int) -> Edit:
    """An edit, and with it another seed: what is left out may have drawn random numbers, and nothing else."""

    def make(tree: Tree) -> Optional[Tree]:
        changed = edit.make(tree)
        if changed is None:
            return None
        calls = [node for node in walk(changed.module) if isinstance(node, ast.Call) and _is_seeding(node)]
        if not calls:
            return seeded(seed).make(changed)
        return changed.changed({number_of(call.args[0]): (expression(str(seed)),) for call in calls})

    return Edit(f"{edit.what}, with seed {seed}", make)


def _is_seeding(node: ast.Call) -> bool:
    return ast.unparse(node.func) == "torch.manual_seed" and len(node.args) == 1


def dropped(number: int, what: str) -> Edit:
    """Without one item of a list."""
    return Edit(f"without {what}", lambda tree: tree.changed({number: ()}) if number in tree.nodes else None)


def _without_annotations(tree: Tree) -> Optional[Tree]:
    changes: dict[int, Sequence[ast.AST]] = {}
    for node in walk(tree.module):
        if isinstance(node, FUNCTIONS) and node.returns is not None:
            changes[number_of(node.returns)] = ()
        elif isinstance(node, ast.arg) and node.annotation is not None:
            changes[number_of(node.annotation)] = ()
    return tree.changed(changes) if changes else None


def _without_declarations(tree: Tree) -> Optional[Tree]:
    changes: dict[int, Sequence[ast.AST]] = {}
    for node in walk(tree.module):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            (new,) = made(f"{ast.unparse(node.target)} = {ast.unparse(node.value)}", whose(node))
            changes[number_of(node)] = (copied(new, own=None),)
    return tree.changed(changes) if changes else None
