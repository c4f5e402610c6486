"""Text from a model, a prompt or an exception as Markdown that shows it and does nothing else; numbers, tables, lists.

A token may be ``|``, a prompt may hold backticks and newlines, an exception may hold HTML. GitHub's Markdown also turns
``@name`` into a notification, ``#12`` into a link and ``$x$`` into mathematics.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from repro.core.encoding import number
from repro.core.finite.diff import Grown
from repro.core.records import Ending, Outcome
from repro.core.sentences import plain, visible

DIGITS = 6
DASH = "-"
EDGE_ROWS = 3
"""How many rows at each end of a thinned table stay."""
FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
"""How a fenced block begins or ends."""

Row = list[str]
T = TypeVar("T")

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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown; empty without rows."""
    if not rows:
        return ""
    first, *others = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([first, "|" + "---|" * len(head), *others])


def facts(rows: Sequence[Sequence[str]]) -> str:
    """A table of names and values, without a head."""
    return table(("", ""), rows)


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def shown_number(value: object) -> str:
    """A number as the report gives it; a dash where there is none."""
    found = number(value)
    if found is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else plain(found, DIGITS)


def or_dash(value: object, shown: Callable[[object], str] = text) -> str:
    """A value that may be absent."""
    return shown(value) if value else DASH


def verdict(outcome: Outcome) -> str:
    return "**bad**" if outcome is Outcome.BAD else outcome.value


def ending(outcome: Outcome, how: Ending, signal: str | None) -> str:
    """The verdict, and how the step ended where it did not end by itself."""
    died = f", crashed ({signal})" if signal else ", crashed"
    words = {Ending.ENDED: "", Ending.CRASHED: died, Ending.TIMED_OUT: ", timed out", Ending.NOT_RUN: ", not run"}
    return verdict(outcome) + words[how]


def commands(given: Iterable[str | None]) -> str:
    """Commands in one block, each once; empty without any."""
    lines = list(dict.fromkeys(filter(None, given)))
    return block("\n".join(lines), "sh") if lines else ""


def thinned(items: Sequence[T], rows: int, keep: set[int]) -> tuple[list[T], str | None]:
    """At most ``rows`` items in order: those to keep first, then the first, the last, and some evenly between."""
    if len(items) <= rows:
        return list(items), None
    wanted = [index for index in sorted(keep) if 0 <= index < len(items)]
    wanted += [*range(EDGE_ROWS), *range(len(items) - EDGE_ROWS, len(items))]
    wanted += [round(place * (len(items) - 1) / (rows - 1)) for place in range(rows)] if rows > 1 else []
    chosen = sorted(list(dict.fromkeys(wanted))[:rows])
    return [items[index] for index in chosen], f"{len(chosen)} of {len(items)} rows are shown; verdict.json has all."


def grown(layers: Sequence[Grown], rows: int) -> tuple[list[Row], str | None]:
    """How far two runs are apart behind each layer, what rounding does there, and how large the values are."""
    chosen, note = thinned(layers, rows, {0, len(layers) - 1})
    figures = ((layer, (layer.deviation, layer.drift, layer.scale)) for layer in chosen)
    return [
        [cell(layer.module) if layer.module else "the end", *map(shown_number, row)] for layer, row in figures
    ], note


def first_of(items: Sequence[T], rows: int, what: str) -> tuple[list[T], str | None]:
    shown = list(items[:rows])
    return shown, f"The first {rows} of {len(items):,} {what} are shown." if len(items) > rows else None


def outside_code(markdown: str) -> Iterator[tuple[str, bool]]:
    """Every line of a Markdown text, and whether it stands outside of fenced blocks."""
    fence = ""
    for line in markdown.split("\n"):
        mark = FENCE.match(line)
        inside = bool(fence)
        if mark and not fence:
            fence, inside = mark[1], True
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        yield line, not inside


def tidy(markdown: str) -> str:
    """The text with one empty line between two paragraphs, whatever parts of a template stayed empty."""
    kept: list[str] = []
    for line, outside in outside_code(markdown.strip()):
        if not outside or line.strip() or (kept and kept[-1].strip()):
            kept.append(line)
    return "\n".join(kept)


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)
