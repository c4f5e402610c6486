"""A tree as text: the author's own where nothing was changed, else written anew, in lines that can be read."""

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .tree import BLOCKS, Own, Tree, copied, own_text, whose

WIDTH = 120
STEP = "    "


@dataclass(frozen=True)
class Text:
    """The text of a tree. ``places``: for each of its lines, the statements of the original that it stands for."""

    text: str
    places: dict[int, frozenset[int]]

    @property
    def lines(self) -> int:
        return code_lines(self.text)


def written(tree: Tree) -> Text:
    """A tree as text."""
    lines: list[str] = []
    places: dict[int, frozenset[int]] = {}
    for line, numbers in _block(tree.module.body, ""):
        lines.append(line)
        if numbers:
            places[len(lines)] = numbers
    while lines and not lines[0]:
        lines.pop(0)
        places = {row - 1: numbers for row, numbers in places.items()}
    return Text("\n".join([*lines, ""]), places)


def code_lines(text: str) -> int:
    """Lines of code: without the docstring, comments and blank lines."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        body = []
    first = body[0] if body else None
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    end = (first.end_lineno or 0) if first is not None and documented else 0
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.split("\n")[end:])


Lines = Iterator[tuple[str, frozenset[int]]]
NOBODY: frozenset[int] = frozenset()


def _block(statements: Sequence[ast.stmt], indent: str) -> Lines:
    before: Optional[ast.stmt] = None
    for statement in statements:
        for _ in range(_gap(before, statement, indent)):
            yield "", NOBODY
        yield from _statement(statement, indent)
        before = statement


def _gap(before: Optional[ast.stmt], here: ast.stmt, indent: str) -> int:
    """Blank lines between two statements: around definitions as is usual, else one where the author had any."""
    if before is None:
        return 0
    if any(isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for item in (before, here)):
        return 1 if indent else 2
    return min(1, vars(here).get("blank", 0))


def _statement(node: Any, indent: str, word: Optional[str] = None) -> Lines:
    """The lines of one statement. word: "elif" in place of "if"."""
    numbers = whose(node)
    if not isinstance(getattr(node, "body", None), list):
        for line in _simple(node, indent):
            yield line, numbers
        return
    for decorator in getattr(node, "decorator_list", ()):
        for line in _fitting("@" + ast.unparse(decorator), indent):
            yield line, numbers
    if isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
        yield indent + "try:", numbers
    else:
        for line in _head(node, indent, word):
            yield line, numbers
    yield from _block(node.body, indent + STEP)
    for handler in getattr(node, "handlers", ()):
        head = ast.unparse(copied(handler, body=[ast.Pass()])).split("\n")[0]
        yield indent + (head.replace("except", "except*", 1) if type(node).__name__ == "TryStar" else head), numbers
        yield from _block(handler.body, indent + STEP)
    orelse = getattr(node, "orelse", [])
    if orelse and isinstance(node, ast.If) and len(orelse) == 1 and isinstance(orelse[0], ast.If):
        yield from _statement(orelse[0], indent, "elif")
    elif orelse:
        yield indent + "else:", numbers
        yield from _block(orelse, indent + STEP)
    if getattr(node, "finalbody", []):
        yield indent + "finally:", numbers
        yield from _block(node.finalbody, indent + STEP)


def _simple(node: ast.stmt, indent: str) -> list[str]:
    own = own_text(node)
    lines = None if own is None else _moved(own, indent)
    if lines is not None:
        return lines
    text = ast.unparse(node)
    if "\n" in text and not isinstance(node, ast.Expr):  # ``match``
        return [indent + line for line in text.split("\n")]
    if isinstance(node, ast.ImportFrom) and len(indent + text) > WIDTH:
        text = text.replace(" import ", " import (", 1) + ")"
    return _fitting(text, indent)


def _head(node: Any, indent: str, word: Optional[str]) -> list[str]:
    own = own_text(node)
    lines = None if own is None else _moved(own, indent)
    if lines is None:
        fields: dict[str, Any] = {name: [] for name in BLOCKS if hasattr(node, name)}
        bare = copied(node, **{**fields, "body": [ast.Pass()]})
        if hasattr(node, "decorator_list"):
            bare.decorator_list = []
        lines = _fitting("\n".join(ast.unparse(bare).split("\n")[:-1]), indent)
    if word is not None:
        lines = [indent + word + lines[0][len(indent) :].partition("if")[2], *lines[1:]]
    elif lines[0].startswith(indent + "elif "):
        lines = [indent + lines[0][len(indent) + 2 :], *lines[1:]]
    return lines


def _moved(own: Own, indent: str) -> Optional[list[str]]:
    """The author's text at another column; None where that cannot be, or where it does not fit there."""
    if own.held:
        lines = [indent + own.lines[0], *own.lines[1:]] if own.column == len(indent) else None
    else:
        lines = [indent + line if line.strip() else "" for line in own.lines]
    return None if lines is None or any(len(line) > WIDTH for line in lines) else lines


def _fitting(text: str, indent: str) -> list[str]:
    """New text, with double quotes as most people write them, wrapped behind commas where it is too long."""
    if "\n" in text:
        return [indent + text.split("\n")[0], *text.split("\n")[1:]]
    tokens = list(tokenize.generate_tokens(io.StringIO(text + "\n").readline))
    pieces, at = [], 0
    for token in tokens:
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
            continue
        pieces.append((text[at : token.start[1]], _quoted(token), token))
        at = token.end[1]
    line = "".join(space + word for space, word, _ in pieces)
    if len(indent + line) <= WIDTH:
        return [indent + line]
    lines, depth, current = [], 0, indent
    best: Optional[int] = None  # where the current line may end: behind a comma or an opening bracket
    for space, word, token in pieces:
        if len(current) + len(space + word) > WIDTH - 1 and best is not None:
            lines.append(current[:best].rstrip())
            current, best = indent + STEP + current[best:].lstrip(), None
        current += (space if current.strip() else "") + word
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if depth and token.string in ",([{":
                best = len(current)
    return [*lines, current]


def _quoted(token: tokenize.TokenInfo) -> str:
    """A string in double quotes where nothing in it asks for others."""
    word = token.string
    plain = token.type == tokenize.STRING and word.endswith("'") and not word.endswith("'''")
    if not plain or "\\" in word or '"' in word or "'" in word[word.index("'") + 1 : -1]:
        return word
    start = word.index("'")
    return f'{word[:start]}"{word[start + 1 : -1]}"'
