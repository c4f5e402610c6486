"""A script as a record: its text, what it needs, and what it must print."""

import ast
import hashlib
import re
from dataclasses import dataclass

from repro.core.answer import CheckpointFiles
from repro.core.payloads import ScriptChange

LEVELS = (
    "operator", "operators", "script", "configuration", "module", "files", "weights", "load", "model", "crash",
    "change",
)  # fmt: skip
"""What a script shows the fault with, the smallest first."""
HEADER = re.compile(r"# /// script\n(?:#.*\n)*?# ///\n")


@dataclass(frozen=True, slots=True)
class Script:
    """A script that may show the fault: its text is complete, and it has not been run yet.

    Args:
        level: One of ``LEVELS``.
        text: The file's content.
        needs: The packages that it imports.
        does: What it does, behind "it": "runs a + b without the model".
        argv: The paths that it is given on this machine. They are never in the text.
        usage: The same arguments as a stranger would read them: the names of the files.
        checkpoint: The files that it reads; None where it needs none.
        seen: What it must print behind "seen", so that another fault is not taken for this one; None for anything.
        last: Whether it is only offered where no other shows the fault.
        change: The lines that make it good, before and after; with the changed script, where that is one of its own.
        unseeded: The generators of random numbers that it draws from without a seed.
        reads: The files that it reads and that are not handed on with it, as paths below its folder or by name.
    """

    level: str
    text: str
    needs: tuple[str, ...]
    does: str
    argv: tuple[str, ...] = ()
    usage: tuple[str, ...] = ()
    checkpoint: CheckpointFiles | None = None
    seen: str | None = None
    last: bool = False
    change: ScriptChange | None = None
    unseeded: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the text as UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def lines(self) -> int:
        """Lines of code."""
        return len(code_lines(self.text))


def code_lines(text: str) -> list[str]:
    """The lines of code of a script: without the header, the docstring, comments and blank lines."""
    text = HEADER.sub("", text, count=1)
    try:
        body = ast.parse(text).body
    except SyntaxError:  # private words are masked in it
        body = []
    first = body[0] if body else None
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    code = text.splitlines()[first.end_lineno if first is not None and is_docstring else 0 :]
    return [line for line in code if line.strip() and not line.strip().startswith("#")]
