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
from repro.core.answer import NAME
from repro.core.sentences import pasteable, visible
from repro.report.opening import title
from repro.report.page.glance import TO_DO, Question, Said, glance

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from repro.run.run import Result

INDENT = 8
TITLE = 2
COMMAND = 2
"""How many rows the title and the command may take."""
ROWS = {"What": 4, "Where": 4, "Why": 4, TO_DO: 5}
"""How many rows each question may take."""
LONGEST = 60
"""Characters of a name; of a longer one the middle is left out."""


def closing(console: Console, result: Result) -> None:
    """Print it.

    Raises:
        NobodyReads: nobody reads any more.
    """
    for line in _lines(console, result):
        console.print(line, soft_wrap=True)


def _lines(console: Console, result: Result) -> Iterator[Text]:
    from rich.text import Text

    answer = result.answer
    verdict = Text(f"{answer.verdict.value.upper()}: ", style=COLOURS[answer.verdict])
    head = _folded(console, visible(title(answer)), TITLE, indent=len(verdict))
    yield verdict + head[0]
    yield from (Text(" " * len(verdict)) + line for line in head[1:])
    owner = answer.owner
    for question in glance(answer, _place(result.folder)):
        lines = list(question.lines)
        if question.asked == "Why" and owner is not None:
            lines.insert(0, Said(f"Owner: {owner.project or 'not known'}."))
        yield from _labelled(_answered(console, Question(question.asked, lines)), question.asked)
    yield from _labelled([Text(_files(result))], "report")
    command = Text(pasteable(answer.command, console.encoding))
    if _rows(console, command) > COMMAND:
        command = Text(f'"command" in {visible(os.path.join(_place(result.folder), NAME))}')  # noqa: PTH118
    yield from _labelled([command], "rerun")


def _labelled(lines: Sequence[Text], asked: str) -> Iterator[Text]:
    """The lines behind what they answer."""
    from rich.text import Text

    label = f"{asked.lower().removeprefix('what ')}:"
    for number, line in enumerate(lines):
        yield Text.assemble((label if number == 0 else "").ljust(INDENT), line)


def _answered(console: Console, question: Question) -> list[Text]:
    """A question's answer in as many rows as it may take: what to do line by line, all else as one text."""

    most = ROWS[question.asked]
    if question.asked != TO_DO:
        return _folded(console, _joined(question.lines), most)
    found: list[Text] = []
    for line in question.lines:
        room = most - sum(_rows(console, shown) for shown in found)
        if room > 0:
            found += _to_do(console, line, min(room, 2))
    return found


def _to_do(console: Console, line: Said, most: int) -> list[Text]:
    """A line on what to do. A command in it is not broken: where there is no room, the words behind it follow below."""
    from rich.text import Text

    whole = Text(line.plain())
    if not any(" " in code for code in line.codes):
        return _folded(console, line.plain(), most)
    if _rows(console, whole) == 1 or not line.after:
        return [whole]
    return [Text(Said(line.before, line.code).plain()), *_folded(console, line.after, 1)]


def _joined(lines: Iterable[Said]) -> str:
    """Sentences behind each other, names with a comma between them."""
    text = ""
    for line in lines:
        said = line.plain()
        text += ("" if not text else " " if text.endswith((".", ":", "!", "?")) else ", ") + said
    return text


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
        rows[-1].rstrip()
        rows[-1].append(" …")
    return rows or [Text()]


def _short(word: str, most: int) -> str:
    """A word without its middle where it is long."""
    half = (most - 1) // 2
    return word if len(word) <= most else f"{word[: most - 1 - half]}…{word[-half:]}"


def _rows(console: Console, line: Text) -> int:
    """How many rows of the terminal a line takes."""
    return -(-(INDENT + line.cell_len) // console.width)


def _files(result: Result) -> str:
    """The report, and what lies beside it."""
    outputs = result.answer.outputs
    beside = [outputs.html, outputs.bundle] if outputs is not None else []
    path = os.path.join(_place(result.folder), "report.md")  # noqa: PTH118 - as the folder was written
    return visible(path) + (f" (beside it: {', '.join(map(visible, beside))})" if beside else "")


def _place(folder: Path) -> str:
    """The folder as it is written from here, where that is shorter."""
    try:
        relative = os.path.relpath(folder)
    except (OSError, ValueError):  # the working folder is gone; another drive
        return str(folder)
    return str(folder) if relative.startswith(os.pardir) else relative
