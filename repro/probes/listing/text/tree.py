"""A script as a syntax tree that is never written to: a change gives a new tree, which shares what stayed.

Each node has a number of its own, which its copies keep. A statement also keeps the author's text as long as nothing in
it is changed, and the numbers of the statements of the original that it stands for.
"""

import ast
import io
import itertools
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

NUMBERS = itertools.count(1)
PLAIN = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)  # nodes without anything in them
BLOCKS = ("body", "orelse", "finalbody", "handlers")
Changes = Mapping[int, Sequence[ast.AST]]


@dataclass(frozen=True)
class Own:
    """The author's text of a statement, or of its first lines up to the colon.

    column: where it begins in the original. held: whether a string in it runs over several lines, so that it cannot be
    moved to another column.
    """

    lines: tuple[str, ...]
    column: int
    held: bool


@dataclass(frozen=True)
class Tree:
    """One version of the script. ``above``: for each node by its number, the node that holds it."""

    module: ast.Module
    nodes: dict[int, ast.AST] = field(default_factory=dict)
    above: dict[int, ast.AST] = field(default_factory=dict)

    @classmethod
    def of(cls, module: ast.Module) -> "Tree":
        tree = cls(module)
        stack: list[ast.AST] = [module]
        while stack:
            node = stack.pop()
            tree.nodes[number_of(node)] = node
            for child in children(node):
                tree.above[number_of(child)] = node
                stack.append(child)
        return tree

    def changed(self, changes: Changes) -> "Tree":
        """With nodes replaced by others, or by none."""
        return Tree.of(rewritten(self.module, changes))

    def statement(self, number: int) -> Optional[ast.stmt]:
        """The innermost statement that a node is part of."""
        node = self.nodes.get(number)
        while node is not None and not isinstance(node, ast.stmt):
            node = self.above.get(number_of(node))
        return node

    def inside(self, number: int) -> Iterator[ast.AST]:
        """Everything that holds a node, the innermost first."""
        node = self.above.get(number)
        while node is not None:
            yield node
            node = self.above.get(number_of(node))

    def statements(self) -> list[ast.stmt]:
        """All statements in order."""
        return [node for node in walk(self.module) if isinstance(node, ast.stmt)]


def parsed(text: str) -> Tree:
    """A script's text as a tree.

    Raises:
        SyntaxError: it is no Python of this interpreter.
    """
    module = ast.parse(text)
    lines = text.split("\n")
    for node in ast.walk(module):
        if not isinstance(node, PLAIN):
            numbered(node)
        if isinstance(node, ast.stmt):
            put(node, own=_own(node, lines), blank=_blank_before(node, lines))
    return Tree.of(module)


def number_of(node: ast.AST) -> int:
    return int(vars(node)["number"])


def whose(node: ast.AST) -> frozenset[int]:
    """The statements of the original that this one stands for."""
    found: frozenset[int] = vars(node).get("whose", frozenset())
    return found


def is_ours(node: ast.AST) -> bool:
    """Whether it is an assertion that was put in here."""
    return bool(vars(node).get("ours"))


def hold(tree: Tree, numbers: frozenset[int]) -> None:
    """These statements of the original stay as they are, or go as a whole."""
    for node in tree.statements():
        if whose(node) & numbers:
            put(node, held=True)


def is_held(node: ast.AST) -> bool:
    return bool(vars(node).get("held"))


def own_text(node: ast.AST) -> Optional[Own]:
    found: Optional[Own] = vars(node).get("own")
    return found


def put(node: ast.AST, **values: Any) -> None:
    """Attributes of this module's on a node that is being made."""
    vars(node).update(values)


def numbered(node: ast.AST) -> int:
    """Give a new node its number; a new statement stands for itself."""
    number = next(NUMBERS)
    put(node, number=number)
    if isinstance(node, ast.stmt):
        put(node, whose=frozenset([number]), own=None)
    return number


def made(text: str, stands_for: frozenset[int] = frozenset()) -> list[ast.stmt]:
    """New statements from text. stands_for: the statements of the original that they replace."""
    module = ast.parse(text)
    for node in ast.walk(module):
        if not isinstance(node, PLAIN):
            numbered(node)
    lines = text.split("\n")
    for statement in module.body:
        put(statement, whose=whose(statement) | stands_for, own=_own(statement, lines))
    return module.body


def expression(text: str) -> ast.expr:
    """A new expression from text."""
    (statement,) = made(text)
    assert isinstance(statement, ast.Expr)
    return statement.value


def copied(node: ast.AST, **fields: Any) -> Any:
    """A copy that shares everything but ``fields``, under the same number."""
    new = type(node).__new__(type(node))
    put(new, **{**vars(node), **fields})
    return new


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes directly in a node, in order, without those that are plain signs."""
    for name in node._fields:
        value = getattr(node, name, None)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, ast.AST) and not isinstance(item, PLAIN):
                yield item


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)


def rewritten(node: Any, changes: Changes) -> Any:
    """A node with nodes in it replaced; the same object where none of them is in it."""
    fields: dict[str, Any] = {}
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            items: list[Any] = []
            for item in value:
                items.extend(_replaced(item, changes))
            if len(items) != len(value) or any(one is not two for one, two in zip(items, value)):
                fields[name] = items
        elif isinstance(value, ast.AST) and not isinstance(value, PLAIN):
            (item,) = _replaced(value, changes) or (None,)
            if item is not value:
                fields[name] = item
    if not fields:
        return node
    if fields.get("body") == [] and not isinstance(node, (ast.Module, ast.Lambda)):
        fields["body"] = made("pass")
    if isinstance(node, ast.stmt) and any(name not in BLOCKS for name in fields):
        fields["own"] = None
    return copied(node, **fields)


def _replaced(item: Any, changes: Changes) -> Sequence[Any]:
    if not isinstance(item, ast.AST) or isinstance(item, PLAIN):
        return (item,)
    found = changes.get(number_of(item))
    return (rewritten(item, changes),) if found is None else found


def _own(node: ast.stmt, lines: Sequence[str]) -> Optional[Own]:
    """The author's text of a statement; None where it is to be written anew, as with a comment inside of it."""
    first, column = node.lineno - 1, _column(lines[node.lineno - 1], node.col_offset)
    last = (node.end_lineno or node.lineno) - 1
    text = [*lines[first : last + 1]]
    text[-1] = text[-1][: _column(text[-1], node.end_col_offset or 0)]
    text[0] = text[0][column:]
    tokens = _tokens(text, isinstance(getattr(node, "body", None), list))
    if tokens and isinstance(getattr(node, "body", None), list):
        end = tokens[-1].end
        text = text[: end[0]]
        text[-1] = text[-1][: end[1]]
    if not tokens or any(token.type == tokenize.COMMENT for token in tokens):
        return None
    strings = {row for token in tokens for row in range(token.start[0], token.end[0]) if token.end[0] > token.start[0]}
    indented = [row for row, line in enumerate(text[1:], 1) if line.strip()]
    if strings or any(not text[row][:column].isspace() for row in indented if column):
        return Own(tuple(text), column, True)
    return Own((text[0], *(line[column:] for line in text[1:])), column, False)


def _tokens(text: Sequence[str], head: bool) -> list[tokenize.TokenInfo]:
    """The tokens of a statement; with ``head``, up to the first colon that stands in no bracket. None of a text that
    does not end where it should.
    """
    found: list[tokenize.TokenInfo] = []
    depth = lambdas = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(text) + "\n").readline):
            found.append(token)
            if token.type == tokenize.OP:
                depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
            lambdas += token.string == "lambda" and depth == 0
            if head and token.string == ":" and depth == 0:
                if not lambdas:
                    return found
                lambdas -= 1
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return []
    return [] if head else found


def _column(line: str, offset: int) -> int:
    """The place of a character in a line, from that of its byte in UTF-8."""
    return len(line.encode()[:offset].decode("utf-8", "replace"))


def _blank_before(node: ast.stmt, lines: Sequence[str]) -> int:
    """How many blank lines the author left in front of a statement, comments not counted."""
    decorators = getattr(node, "decorator_list", None)
    row = (decorators[0].lineno if decorators else node.lineno) - 2
    count = 0
    while row >= 0 and (not lines[row].strip() or lines[row].lstrip().startswith("#")):
        count += not lines[row].strip()
        row -= 1
    return min(count, 2)


def head_of(node: ast.AST) -> str:
    """A statement's text, of a compound one the first line."""
    return ast.unparse(node).split("\n")[0]
