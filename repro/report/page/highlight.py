"""Python in colours: HTML of a few spans, also for lines that are cut out of the middle of a file."""

import html
import keyword
import re
from collections.abc import Iterator

PIECES = re.compile(
    r"""(?P<c>\#[^\n]*)
    |(?P<s>(?:\b[rbuft]{1,2})?(?:\"{3}(?:[^\\]|\\.)*?(?:\"{3}|\Z)|'{3}(?:[^\\]|\\.)*?(?:'{3}|\Z)
        |"(?:[^"\\\n]|\\.)*(?:"|$)|'(?:[^'\\\n]|\\.)*(?:'|$)))
    |(?P<n>\b\d[\w.]*(?:(?<=e)[+-]\d+)?)
    |(?P<w>[^\W\d]\w*)
    |(?P<o>[^\w\#"']+|.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""Comment, string, number, word, and everything else. A string that does not end ends with its line or the text."""


def python(text: str) -> str:
    """The text as HTML: comments, strings, numbers and keywords in spans. It never fails, whatever the text is."""
    return "".join(_span(kind, piece) for kind, piece in _pieces(text))


def python_lines(text: str) -> list[str]:
    """The same, line by line: a string over several lines is one span in each."""
    lines = [""]
    for kind, piece in _pieces(text):
        first, *others = piece.split("\n")
        lines[-1] += _span(kind, first)
        lines += [_span(kind, part) for part in others]
    return lines


def fenced(text: str, language: str, _attributes: str) -> str:
    """A fenced block of a report, as markdown-it asks for it."""
    return python(text) if language == "python" else html.escape(text)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    for found in PIECES.finditer(text):
        kind = found.lastgroup or "o"
        yield ("k" if keyword.iskeyword(found[0]) else "o") if kind == "w" else kind, found[0]


def _span(kind: str, piece: str) -> str:
    return html.escape(piece) if kind == "o" or not piece else f'<span class="{kind}">{html.escape(piece)}</span>'
