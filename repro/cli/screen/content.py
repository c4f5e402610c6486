"""Prints lines of text and tables, on a terminal or into a pipe.

Nothing is imported here that ``--help`` does not need.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

import click

from repro.cli.options import end

if TYPE_CHECKING:
    from repro.jobs.content import Table

UNBOUNDED = 1_000_000
"""Columns of a pipe or a file, where a table is as wide as its cells."""


def show(content: "Iterable[str | Table]", *, err: bool = False) -> None:
    """Print lines and tables. Tables are fitted to a terminal; what does not print is shown as an escape."""
    import shutil

    from repro.core.sentences import visible

    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else UNBOUNDED
    for part in content:
        if isinstance(part, str):
            click.echo(visible(part), err=err)
        elif part.rows:
            click.echo("\n".join([*_lines(part, width), ""]), err=err)


def finish(
    content: "Iterable[str | Table]", document: object, *, as_json: bool, status: int, both: bool = False
) -> NoReturn:
    """End a command with its answer on stdout: the content, or with ``as_json`` the document.

    Args:
        content: For a person.
        document: For a program.
        as_json: Which of the two.
        status: The exit status.
        both: Whether the content goes to stderr where the document is on stdout.
    """

    def say() -> None:
        if both or not as_json:
            show(content, err=as_json)

    end(document, say, as_json=as_json, status=status)


def _lines(table: "Table", width: int) -> Iterator[str]:
    """The lines of a table, without the blanks at their ends."""
    import io

    from rich.console import Console
    from rich.table import Table as Columns
    from rich.text import Text

    from repro.core.sentences import visible

    drawn = Columns(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=None)
    for place, name in enumerate(table.head):
        drawn.add_column(Text(name), overflow="fold", justify="right" if place in table.numbers else "left")
    for row in table.rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(drawn)
    assert isinstance(console.file, io.StringIO)
    yield from (line.rstrip() for line in console.file.getvalue().splitlines())
