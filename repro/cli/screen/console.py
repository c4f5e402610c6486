"""The console that every summary is printed on, and the look of its tables."""

from typing import IO, TYPE_CHECKING

from repro.core.records import Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDTH = 110
"""Columns where there is no terminal to ask."""
COLOURS = {Outcome.GOOD: "green", Outcome.BAD: "bold red", Outcome.SKIP: "yellow"}


def console_on(stream: IO[str]) -> "Console":
    """A console that prints text as it is, and raises BrokenPipeError where nobody reads any more."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with 1, which means "bad" here

    return Plain(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, emoji=False, markup=False)


def columns(*names: str) -> "Table":
    """A table without a frame, whose columns are not to be broken."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        made.add_column(name, no_wrap=True)
    return made


def coloured(verdict: Outcome) -> "Text":
    """A verdict in its colour."""
    from rich.text import Text

    return Text(verdict.value, style=COLOURS[verdict])
