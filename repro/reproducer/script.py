"""A script that shows a fault, before anybody has run it."""

import ast
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = ("operator", "operators", "module", "files", "weights", "load", "model", "crash")
"""What a script shows the fault with, the smallest first."""
HEADER = re.compile(r"# /// script\n(?:#.*\n)*?# ///\n")


@dataclass(frozen=True, slots=True)
class Script:
    """A candidate: its text is complete, and whether it shows the fault is not known yet.

    Args:
        level: One of ``LEVELS``.
        text: The file's content.
        needs: The packages that it imports.
        reason: Why it is of this size, for the report.
        argv: The paths that it is given on this machine. They are never in the text.
        usage: The same arguments as a stranger would read them: the names of the files.
        checkpoint: The checkpoint that it reads (id, revision, sha256 by file), or None where it needs none.
        seen: What it must print behind "seen", so that another fault is not taken for this one; None says nothing.
    """

    level: str
    text: str
    needs: tuple[str, ...]
    reason: str
    argv: tuple[str, ...] = ()
    usage: tuple[str, ...] = ()
    checkpoint: Mapping[str, Any] | None = None
    seen: str | None = None

    @property
    def sha256(self) -> str:
        """Of the text as UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def lines(self) -> int:
        """How many lines of code there are to read: without the header, the docstring, comments and blank lines."""
        text = HEADER.sub("", self.text, count=1)
        first = ast.parse(text).body[0]
        is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        code = text.splitlines()[first.end_lineno if is_docstring else 0 :]
        return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code)
