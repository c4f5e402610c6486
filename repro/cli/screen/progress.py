"""Progress on stderr during a run.

On a terminal a progress bar with the step's name, the elapsed time and the time left; otherwise plain lines.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol

from repro.cli.screen.console import COLOURS, console_on
from repro.core.records import Ending, Observation
from repro.core.sentences import visible_lines
from repro.engine.runner import Listener

if TYPE_CHECKING:
    from rich.progress import Progress


class Teller(Listener, Protocol):
    """A listener that knows which steps it has told of."""

    told: set[str]


@contextlib.contextmanager
def listener() -> Iterator[Teller]:
    """Progress on stderr, in the form that stderr can show."""
    if not sys.stderr.isatty():
        lines = PlainLines(sys.stderr)
        try:
            yield lines
        finally:
            lines.close()
        return
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second, where that is known."""

        def render(self, task: Task) -> Text:
            if not task.total or task.speed is None:
                return Text("")
            return Text(f"{task.speed / 1e6:,.0f}M/s" if task.speed >= 1e6 else f"{task.speed:,.1f}/s")

    console = console_on(sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


class Announcer:
    """Lines on stderr about many runs, and the progress of what happens between them."""

    def line(self, text: str) -> None:
        """A line that stays."""
        PlainLines(sys.stderr).line(text)

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """Something that takes a while; what is yielded is told how far it is."""
        with listener() as told:
            told.started(name)
            yield functools.partial(told.progress, name)


class PlainLines:
    """A line for each step: its name when it starts, its verdict when it ends."""

    def __init__(self, stream: IO[str]) -> None:
        self.told: set[str] = set()
        self._stream = stream
        self._open: str | None = None

    def started(self, step: str) -> None:
        """The first half of the line."""
        self.close()
        self._write(f"{step} ... ")
        self._open = step

    def progress(self, step: str, done: int, total: int, unit: str) -> None:
        """Nothing: a log needs no bar."""

    def ended(self, observation: Observation) -> None:
        """The second half of the line."""
        if observation.ending is Ending.NOT_RUN:
            return  # the summary has them in one line
        if self._open != observation.step:
            self.close()
            self._write(f"{observation.step} ... ")
        self._write(f"{_words(observation)}\n")
        self._open = None
        self.told.add(observation.step)

    def note(self, text: str) -> None:
        """A line of its own."""
        self.line(f"note: {text}")

    def line(self, text: str) -> None:
        """A line that is about no step."""
        self.close()
        self._write(f"{text}\n")

    def close(self) -> None:
        """End a line that is still open."""
        if self._open is not None:
            self._write("\n")
            self._open = None

    def _write(self, text: str) -> None:
        self._stream.write(visible_lines(text))
        self._stream.flush()


class Bar:
    """A bar for the step that runs; a line above it for each that has ended."""

    def __init__(self, progress: "Progress") -> None:
        self.told: set[str] = set()
        self._progress = progress
        self._task: Any = None

    def started(self, step: str) -> None:
        """A bar of unknown length."""
        self._remove()
        self._task = self._progress.add_task(step, total=None, count="")

    def progress(self, step: str, done: int, total: int, unit: str) -> None:
        """How far it is."""
        if self._task is not None:
            count = f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}"
            self._progress.update(self._task, completed=done, total=total or None, count=count)

    def ended(self, observation: Observation) -> None:
        """The line that stays."""
        if observation.ending is Ending.NOT_RUN:
            return  # the summary has them in one line
        from rich.text import Text

        self._remove()
        colour = COLOURS[observation.verdict.outcome]
        line = Text.assemble(f"{observation.step} ", (_words(observation), colour))
        self._progress.console.print(line, soft_wrap=True)
        self.told.add(observation.step)

    def note(self, text: str) -> None:
        """A line of its own."""
        from rich.text import Text

        self._progress.console.print(Text(f"note: {text}"), soft_wrap=True)

    def _remove(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _words(observation: Observation) -> str:
    """``good (1.2 s): 148 tensors``."""
    verdict = observation.verdict
    return f"{verdict.outcome.value} ({observation.seconds:.1f} s): {verdict.reason}"
