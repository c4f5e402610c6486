"""The console that every summary is printed on, and the look of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from repro.core.records import Outcome
from repro.core.sentences import visible_lines

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

WIDTH = 110
"""Columns where there is no terminal to ask."""
COLOURS = {Outcome.GOOD: "green", Outcome.BAD: "bold red", Outcome.SKIP: "yellow"}


def console_on(stream: IO[str]) -> Console:
    """A console that prints text as it is, and what does not print as escapes."""
    from rich.console import Console, RenderHook
    from rich.segment import Segment

    class Shown:
        """What is printed, after rich has made text and style of it: the style's own escapes are none of the text's."""

        def __init__(self, inner: ConsoleRenderable) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            for segment in console.render(self.inner, options):
                yield segment if segment.control else Segment(visible_lines(segment.text), segment.style)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(one) for one in renderables]

    made = Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, emoji=False, markup=False)
    made.push_render_hook(Hook())
    return made


def columns(*names: str) -> Table:
    """A table without a frame, whose columns are not to be broken."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        made.add_column(name, no_wrap=True)
    return made


def coloured(verdict: Outcome) -> Text:
    """A verdict in its colour."""
    from rich.text import Text

    return Text(verdict.value, style=COLOURS[verdict])
