"""What a person sees: progress while the run goes on, and a summary at its end.

On a terminal a progress bar with the step's name, the time so far and the time left; otherwise plain lines. Progress
goes to stderr, the summary to stdout. Where both go to the same place, the summary does not say again what the progress
has said. Colour follows NO_COLOR and TERM, as rich does.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from repro.core.records import Ending, Observation
from repro.core.sentences import listed, unused_prompt
from repro.core.steps import ABLATION
from repro.engine.runner import Listener
from repro.sweeps.matrix.table import COLOURS, cell_ablations_table, cells_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from repro.run.run import Result

WIDTH = 110
"""Columns where there is no terminal to ask."""


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

    console = _console(sys.stderr)
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
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

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
        self.close()
        self._write(f"note: {text}\n")

    def close(self) -> None:
        """End a line that is still open."""
        if self._open is not None:
            self._write("\n")
            self._open = None

    def _write(self, text: str) -> None:
        self._stream.write(text)
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
        colour = COLOURS[observation.verdict.outcome.value]
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


def summary(result: "Result", told: AbstractSet[str] = frozenset(), *, to_stderr: bool) -> None:
    """Tables of steps and ablations, the headline, where the report is, and the command that gives it again.

    Args:
        result: The run's.
        told: Steps that stderr has told of.
        to_stderr: The summary goes there too, and stdout stays free for something else.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from rich.text import Text

    document = result.document
    stream = sys.stderr if to_stderr else sys.stdout
    console = _console(stream)
    # Where the model was not found, the answer is one sentence, and a table would only say it twice.
    nothing_ran = (document["files"] or {}).get("fatal") is True
    known = told if _same_place(stream, sys.stderr) else frozenset()
    steps = [step for step in document["steps"] if not step["step"].startswith(ABLATION) and step["step"] not in known]
    ablations = [
        {**ablation, "step": ablation["name"]}
        for ablation in document["ablations"]
        if ABLATION + ablation["name"] not in known
    ]
    for title, rows in (("step", steps), ("one change", ablations)):
        ran = [row for row in rows if row["ending"] != "not_run"]
        if ran and not nothing_ran:
            console.print(_table(title, ran))
    left = [step["step"] for step in document["steps"] if step["ending"] == "not_run"]
    if left and not nothing_ran:
        console.print(Text(f"not run: {_few(left)}"), soft_wrap=True)
    verdict = document["verdict"]
    console.print(Text.assemble((verdict.upper(), COLOURS[verdict]), f": {document['headline']}"), soft_wrap=True)
    if document["workarounds"]:
        console.print(Text(f"workarounds: {', '.join(document['workarounds'])}"), soft_wrap=True)
    note = unused_prompt(document)
    if note:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    if document["model"]["weights"] == "random":
        console.print(Text(f"weights: random, seed {document['model']['seed']}; no checkpoint was read"))
    for line in _handed_on(result):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"again: {document['command']}"), soft_wrap=True)


def prompts(result: "Result", *, to_stderr: bool) -> None:
    """Where the examples go bad first, why these, and where the answers are.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from rich.text import Text

    document = result.document
    console = _console(sys.stderr if to_stderr else sys.stdout)
    found = document.get("prompts") or {}
    places = found.get("places") or ()
    if places:
        shown = _columns("first bad in", "token", "kind", "examples")
        for item in places:
            token = "-" if item["token"] is None else repr(item["token"])
            shown.add_row(Text(item["layer"]), Text(token), Text(str(item["kind"])), Text(f"{item['examples']:,}"))
        console.print(shown)
    if found.get("ablations"):
        console.print(ablations_table(found["ablations"]))
    for line in (found.get("why") or {}).get("sentences") or ():
        console.print(Text(line), soft_wrap=True)
    for line in (found.get("lost_why") or {}).get("sentences") or ():
        console.print(Text(f"lost pairs against the rest: {line}"), soft_wrap=True)
    vectors = found.get("vectors")
    if vectors:
        where = vectors["path"] or "not written, for no pair is sound"
        console.print(Text(f"vectors: {where} ({vectors['used']} pairs used, {vectors['lost']} lost)"), soft_wrap=True)
    verdict = document["verdict"]
    console.print(Text.assemble((verdict.upper(), COLOURS[verdict]), f": {document['headline']}"), soft_wrap=True)
    if found:
        console.print(Text(f"answers: {result.folder / 'prompts.jsonl'}"), soft_wrap=True)
    for line in _handed_on(result):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"again: {document['command']}"), soft_wrap=True)


def ablations_table(rows: Sequence[Mapping[str, Any]]) -> "Table":
    """What each change saves, and what it costs; the report also says what was found."""
    from rich.text import Text

    shown = _columns("one change", "saves", "seconds", "weights")
    for row in rows:
        share = "-" if row["share"] is None else f"{row['saved']}/{row['asked']}"
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        size = "-" if row["weights_bytes"] is None else f"{row['weights_bytes'] / 1e9:.2f} GB"
        shown.add_row(*map(Text, (row["name"], share, seconds, size)))
    return shown


def _handed_on(result: "Result") -> Iterator[str]:
    """Whose fault it is, the scripts, and where the report is."""
    document, folder = result.document, result.folder
    owner, first = document.get("owner"), document.get("reproducer")
    if owner is not None:
        yield f"whose fault: {owner['project'] or 'not known'}. {owner['reason']}"
        if owner.get("advice"):
            yield f"to mend the call: {owner['advice']}"
    for script in (first, *first["others"]) if first else ():
        if script["path"] is not None:
            how = f"verified {script['runs']} times" if script["verified"] else "not verified"
            yield f"script: {folder / script['path']} (needs {', '.join(script['needs']) or 'Python alone'}; {how})"
    for match in document.get("looks_like") or ():
        yield str(match["sentence"])
    yield f"report: {folder / 'report.md'}"
    for name in (document.get("delivered") or {}).values():
        yield f"        {folder / name}"


def table(result: "Result", *, to_stderr: bool) -> None:
    """The tables of a matrix: cells, cells x changes, what differs, and where the report is.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from rich.text import Text

    document = result.document
    console = _console(sys.stderr if to_stderr else sys.stdout)
    console.print(cells_table(document["cells"]))
    ablations = cell_ablations_table(document["cells"])
    if ablations is not None:
        console.print(ablations)
    for statement in document["differences"]["statements"]:
        console.print(Text(statement["text"]), soft_wrap=True)
    verdict = document["verdict"]
    console.print(Text.assemble((verdict.upper(), COLOURS[verdict]), f": {document['headline']}"), soft_wrap=True)
    for line in _handed_on(result):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"again: {document['command']}"), soft_wrap=True)


def versions(result: "Result", *, to_stderr: bool) -> None:
    """The releases that were asked, the interval, what changed in it, and where the report is.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from rich.text import Text

    found = result.document["versions"]
    console = _console(sys.stderr if to_stderr else sys.stdout)
    asked = _columns("release", "verdict", "runs")
    asked.add_column("what was found", overflow="fold")
    for probe in found["probes"]:
        pins = ", ".join(f"{name} {version}" for name, version in probe["pins"].items() if name not in found["with"])
        verdict = Text(probe["verdict"], style=COLOURS[probe["verdict"]])
        asked.add_row(Text(pins), verdict, Text(probe["votes"] or str(len(probe["runs"]))), Text(probe["reason"]))
    console.print(asked)
    for line in (*found["notes"], *(change["sentence"] for change in found["all_changes"])):
        console.print(Text(line), soft_wrap=True)
    verdict = result.document["verdict"]
    console.print(Text.assemble((verdict.upper(), COLOURS[verdict]), f": {found['sentence']}"), soft_wrap=True)
    console.print(Text(f"report: {result.folder / 'report.md'}"), soft_wrap=True)
    console.print(Text(f"again: {result.document['command']}"), soft_wrap=True)


def cells_list(rows: Sequence[Mapping[str, Any]], folder: Path, stored_bytes: int) -> None:
    """Every cell with its pins and its size, and what all of them take together.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from rich.text import Text

    console = _console(sys.stdout)
    listed_rows = _columns("cell", "python", "torch", "transformers", "device", "on disk")
    listed_rows.add_column("why", overflow="fold")
    for row in rows:
        size = "not built" if row["bytes"] is None else f"{row['bytes'] / 1e9:.1f} GB"
        pins = [str(row["pins"].get(name, "-")) for name in ("torch", "transformers")]
        words = [row["id"], row["python"], *pins, row["device"], size, row["why"]]
        listed_rows.add_row(*(Text(str(word)) for word in words))
    console.print(listed_rows)
    where = (
        f"{stored_bytes / 1e9:.1f} GB in {folder}, files that cells share counted once; uv's cache links to the same"
    )
    console.print(Text(where), soft_wrap=True)


def _columns(*names: str) -> "Table":
    """A table without a frame, whose columns are not to be broken."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        made.add_column(name, no_wrap=True)
    return made


def _table(title: str, rows: Iterable[Mapping[str, Any]]) -> "Table":
    from rich.text import Text

    table = _columns(title, "verdict")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for row in rows:
        verdict = Text(row["verdict"], style=COLOURS[row["verdict"]])
        table.add_row(Text(row["step"]), verdict, f"{row['seconds']:.1f}", Text(row["reason"]))
    return table


def _few(steps: Sequence[str]) -> str:
    """The names of steps; of several ablations only how many they are."""
    named = [step for step in steps if not step.startswith(ABLATION)]
    ablations = len(steps) - len(named)
    return listed([*named, f"{ablations} single changes"] if ablations > 1 else steps)


def _same_place(first: IO[str], second: IO[str]) -> bool:
    """Whether what is written to both comes out in one place: one terminal, or one file or pipe."""
    if first.isatty() and second.isatty():
        return True
    try:
        one, other = os.fstat(first.fileno()), os.fstat(second.fileno())
    except (OSError, ValueError):
        return False
    return one.st_ino != 0 and os.path.samestat(one, other)


def _console(stream: IO[str]) -> "Console":
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with 1, which means "bad" here

    return Plain(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, emoji=False, markup=False)
