"""Text from a model, a prompt or an exception as Markdown that shows it, and does nothing else.

A token may be ``|``, a prompt may hold backticks and newlines, an exception may hold HTML. GitHub's Markdown also turns
``@name`` into a notification, ``#12`` into a link and ``$x$`` into mathematics.
"""

import re

from repro.core.sentences import visible

SPECIAL = re.compile(r"[\\`*<\[\]|~$]|(?<!\w)_|_(?!\w)|^[#>+-]")
"""What starts something in Markdown: an underscore at the edge of a word, some signs at the start of a line."""


def text(value: object) -> str:
    """One line of prose that reads as ``value``, also inside a table cell."""
    line = " ".join(visible(str(value).replace("\n", " ")).split())
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    line = SPECIAL.sub(lambda match: "\\" + match.group(), line)
    return re.sub(r"@(?=\w)", "&#64;", re.sub(r"#(?=\d)", "&#35;", line))


def code(value: object) -> str:
    """A code span; newlines and control characters as escapes."""
    span = visible(str(value))
    if not span.strip():
        return f"({len(span)} spaces)" if span else "(empty)"
    fence = "`" * (_longest_run(span) + 1)
    pad = " " if span[0] in "` " or span[-1] in "` " else ""
    return f"{fence}{pad}{span}{pad}{fence}"


def cell(value: object) -> str:
    """A code span inside a table, where a bar ends the cell even between backticks."""
    return code(value).replace("|", "\\|")


def block(value: str, language: str = "") -> str:
    """A fenced block, its fence longer than any inside."""
    fence = "`" * max(3, _longest_run(value) + 1)
    lines = "\n".join(visible(line) for line in value.split("\n"))
    return f"{fence}{language}\n{lines}\n{fence}"


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)
