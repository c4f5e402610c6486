"""The end of a bad run on a terminal: what, where, why, what to do, and where the report is, in 24 rows of 80 columns.

Words are broken between words. A command stays one line, so that it can be copied; a terminal folds it. What has no
room is cut in its middle or at its end, with a sign: the report has it whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro.cli.screen.console import COLOURS
from repro.core.answer import NAME, Answer
from repro.core.sentences import pasteable, visible
from repro.report.opening import title
from repro.report.page.glance import Question, Said, glance

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from repro.run.run import Result

INDENT = 8
ALL = 23
"""How many rows there are, but for that of the shell's next prompt."""
TITLE = COMMAND = 2
"""How many rows the title, and the command, may take."""
MOST = 4
"""How many rows a question may take; what to do may take all that are left."""
LONGEST = 60
"""Characters of a name; of a longer one the middle is left out."""


def closing(console: Console, result: Result) -> None:
    """Print it.

    Raises:
        NobodyReads: nobody reads any more.
    """
    answer, place = result.answer, _place(result.folder)
    found, end = list(_head(console, answer)), list(_end(console, result, place))
    for question in glance(answer, place):
        room = ALL - sum(_rows(console, line) for line in (*found, *end))
        lines = _to_do(console, question.lines, room) if question.is_to_do else _words(console, question, answer)
        found += _labelled(lines, question.asked)
    for line in (*found, *end):
        console.print(line, soft_wrap=True)


def _head(console: Console, answer: Answer) -> Iterator[Text]:
    from rich.text import Text

    verdict = f"{answer.verdict.value.upper()}: "
    for number, line in enumerate(_folded(console, visible(title(answer)), TITLE, indent=len(verdict))):
        yield Text.assemble((verdict, COLOURS[answer.verdict]) if number == 0 else " " * len(verdict), line)


def _end(console: Console, result: Result, place: str) -> Iterator[Text]:
    """Where the report is, and the command."""
    from rich.text import Text

    outputs = result.answer.outputs
    beside = f" (beside it: {outputs.html}, {outputs.bundle})" if outputs is not None else ""
    yield from _labelled([Text(visible(f"{_inside(place, 'report.md')}{beside}"))], "report")
    command = Text(pasteable(result.answer.command, console.encoding))
    if _rows(console, command, INDENT) > COMMAND:
        command = Text(visible(f'"command" in {_inside(place, NAME)}'))
    yield from _labelled([command], "rerun")


def _labelled(lines: Iterable[Text], asked: str) -> Iterator[Text]:
    """The lines behind what they answer."""
    from rich.text import Text

    label = f"{asked.lower().removeprefix('what ')}:"
    for number, line in enumerate(lines):
        yield Text.assemble((label if number == 0 else "").ljust(INDENT), line)


def _words(console: Console, question: Question, answer: Answer) -> list[Text]:
    """An answer as one text: sentences behind each other, names with a comma between them."""
    whose = answer.owner if question.asked == "Why" else None
    owner = [] if whose is None else [Said(f"Owner: {whose.project or 'not known'}.")]
    text = ""
    for line in (*owner, *question.lines):
        text += ("" if not text else " " if text.endswith((".", ":", "!", "?")) else ", ") + line.plain()
    return _folded(console, text, MOST)


def _to_do(console: Console, lines: Sequence[Said], most: int) -> list[Text]:
    """What to do, line by line, in at most so many rows."""
    found: list[Text] = []
    for line in lines:
        room = most - sum(_rows(console, shown, INDENT) for shown in found)
        if room > 0:
            found += _line(console, line, min(room, MOST))
    return found


def _line(console: Console, line: Said, most: int) -> list[Text]:
    """A line on what to do. A command in it is not broken: where there is no room, the words behind it follow below."""
    from rich.text import Text

    whole, command = Text(line.plain()), Text(Said(line.before, line.code).plain())
    room = most - _rows(console, command, INDENT)
    if room < 0 or not any(" " in code for code in line.codes):
        return _folded(console, line.plain(), most)
    if _rows(console, whole, INDENT) == 1 or not line.after:
        return [whole]
    return [command, *(_folded(console, line.after, 1) if room else ())]


def _folded(console: Console, text: str, most: int, indent: int = INDENT) -> list[Text]:
    """At most so many rows, broken between words; long words without their middle, and a sign where the end is cut."""
    from rich.text import Text

    width = max(console.width - indent, 20)
    words = " ".join(_short(word, min(LONGEST, width)) for word in text.split(" "))
    rows = list(Text(words).wrap(console, width))
    for row in rows:
        row.rstrip()
    if len(rows) > most:
        rows = rows[:most]
        rows[-1].truncate(width - 2)
        rows[-1].append(" …")
    return rows


def _short(word: str, most: int) -> str:
    """A word without its middle where it is long."""
    half = (most - 1) // 2
    return word if len(word) <= most else f"{word[: most - 1 - half]}…{word[-half:]}"


def _rows(console: Console, line: Text, indent: int = 0) -> int:
    """How many rows of the terminal a line takes."""
    return max(1, -(-(indent + line.cell_len) // console.width))


def _place(folder: Path) -> str:
    """The folder as it is written from here, where that is shorter."""
    try:
        relative = os.path.relpath(folder)
    except (OSError, ValueError):  # the working folder is gone; another drive
        return str(folder)
    return str(folder) if relative.startswith(os.pardir) else relative


def _inside(place: str, name: str) -> str:
    return os.path.join(place, name)  # noqa: PTH118 - "." stays as it was written
