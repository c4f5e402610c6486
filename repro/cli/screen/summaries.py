"""What is printed at the end of a command: tables, the verdict, where the files are, and the command to rerun.

Summaries go to stdout. Where that is the same place as stderr, a summary does not repeat what the progress has said.
Each function raises NobodyReads where nobody reads any more, as all that prints does (``streams``).
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from repro.cli.screen.closing import closing
from repro.cli.screen.console import COLOURS, coloured, columns, console_on
from repro.core.answer import Ablation, StepRow
from repro.core.records import Ending, Outcome
from repro.core.sentences import first_bad_in, listed, many, pasteable, template_used, tried_on, unused_prompt
from repro.core.steps import ABLATION
from repro.core.sweep_answers import PromptAblation
from repro.sweeps.matrix.table import cell_ablations_table, cells_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from repro.run.run import Result


def summary(result: "Result", told: AbstractSet[str] = frozenset(), *, to_stderr: bool) -> None:
    """Of a run: tables of steps and ablations, the headline, the files, the command to rerun.

    Args:
        result: The run's.
        told: Steps that stderr has told of.
        to_stderr: The summary goes there too, and stdout stays free for something else.
    """
    answer = result.answer
    stream = sys.stderr if to_stderr else sys.stdout
    console = console_on(stream)
    # Where the model was not found, the answer is one sentence, and a table would only repeat it.
    nothing_ran = answer.files is not None and answer.files.fatal
    known = told if _same_place(stream, sys.stderr) else frozenset()
    steps = [row for row in answer.steps if not row.step.startswith(ABLATION) and row.step not in known]
    ablations = [row for row in answer.ablations if ABLATION + row.name not in known]
    if not nothing_ran:
        for table in (_steps_table(steps), _ablations_table(ablations)):
            if table.row_count:
                console.print(table)
        left = [row.step for row in answer.steps if row.ending is Ending.NOT_RUN]
        if left:
            _prose(console, f"not run: {_few(left)}")
    note = unused_prompt(answer.case.prompts, answer.forward)
    notes = [f"note: {note}"] if note else []
    if answer.model.weights == "random":
        notes.append(f"weights: random, seed {answer.model.seed}; no checkpoint was read")
    _end(console, result, notes)


def prompts(result: "Result", *, to_stderr: bool) -> None:
    """Of many prompts: where they first go bad, what tells them apart, and where the answers are."""
    from rich.text import Text

    console = console_on(sys.stderr if to_stderr else sys.stdout)
    found = result.answer.prompts
    if found is not None and found.places:
        shown = columns("first bad in", "token", "kind", "examples")
        for place in found.places:
            token = "-" if place.token is None else repr(place.token)
            shown.add_row(*map(Text, (first_bad_in(place), token, place.kind, f"{place.examples:,}")))
        console.print(shown)
    if found is not None and found.ablations:
        console.print(prompt_ablations_table(found.ablations))
        tried = tried_on(found.ablations)
        if tried is not None:
            _prose(console, tried)
    if found is not None and found.chat_template is not None:
        _line(console, f"chat template: {template_used(found.chat_template)}")
    for line in (found and found.why and found.why.sentences) or ():
        _prose(console, line)
    for line in (found and found.lost_why and found.lost_why.sentences) or ():
        _prose(console, f"lost pairs against the rest: {line}")
    if found is not None and found.vectors is not None:
        vectors = found.vectors
        where = vectors.path or "not written, for no pair is sound"
        _line(console, f"vectors: {where} ({many(vectors.used, 'pair')} used, {vectors.lost} lost)")
    _end(console, result, [f"answers: {result.folder / 'prompts.jsonl'}"] if found is not None and found.asked else [])


def prompt_ablations_table(rows: Sequence[PromptAblation]) -> "Table":
    """What each ablation saves, and what it costs; the report also says what was found."""
    from rich.text import Text

    shown = columns("ablation", "saves", "seconds", "weights")
    for row in rows:
        share = "-" if row.share is None else f"{row.saved}/{row.asked}"
        seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
        size = "-" if row.weights_bytes is None else f"{row.weights_bytes / 1e9:.2f} GB"
        shown.add_row(*map(Text, (row.name, share, seconds, size)))
    return shown


def table(result: "Result", *, to_stderr: bool) -> None:
    """Of a matrix: the cells, cells x ablations, and what the fault follows."""
    from repro.report.cells import same_outputs

    answer = result.answer
    console = console_on(sys.stderr if to_stderr else sys.stdout)
    console.print(cells_table(answer.cells or ()))
    ablations = cell_ablations_table(answer.cells or ())
    if ablations is not None:
        console.print(ablations)
    same = same_outputs(answer.cells or ())
    if same is not None:
        _prose(console, same)
    for statement in answer.differences.statements if answer.differences is not None else ():
        _prose(console, statement.text)
    _end(console, result)


def versions(result: "Result", *, to_stderr: bool) -> None:
    """Of a search: the releases that were asked, the interval, and what changed in it."""
    from rich.text import Text

    found = result.answer.versions
    assert found is not None  # a search always has this part
    console = console_on(sys.stderr if to_stderr else sys.stdout)
    asked = columns("release", "verdict", "runs")
    asked.add_column("what was found", overflow="fold")
    for probe in found.probes:
        pins = ", ".join(f"{name} {version}" for name, version in probe.pins.items() if name not in found.with_)
        runs = probe.votes or str(len(probe.runs))
        asked.add_row(Text(pins), coloured(probe.verdict), Text(runs), Text(probe.reason))
    console.print(asked)
    for line in (*found.notes, *(change.sentence for change in found.all_changes)):
        _prose(console, line)
    _end(console, result)


def comparison(result: "Result", *, to_stderr: bool) -> None:
    """Of sibling models: the table, what follows from it, and where the report is."""
    from repro.report.models import lines

    console = console_on(sys.stderr if to_stderr else sys.stdout)
    for line in lines(result.answer):
        _line(console, line)
    _end(console, result)


def cells_list(rows: Sequence[Mapping[str, Any]], folder: Path, stored_bytes: int, *, why: bool) -> None:
    """Every cell with its pins and its size, with ``why`` also what it can tell; and what all of them take together."""
    from rich.text import Text

    console = console_on(sys.stdout)
    shown = columns("cell", "python", "torch", "transformers", "device", "on disk")
    if why:
        shown.add_column("why", overflow="fold")
    for row in rows:
        size = "not built" if row["bytes"] is None else f"{row['bytes'] / 1e9:.1f} GB"
        pins = [str(row["pins"].get(name, "-")) for name in ("torch", "transformers")]
        words = [row["id"], row["python"], *pins, row["device"], size, *([row["why"]] if why else [])]
        shown.add_row(*(Text(str(word)) for word in words))
    console.print(shown)
    _line(
        console,
        f"{stored_bytes / 1e9:.1f} GB in {folder}, files that cells share counted once; uv's cache links to the same",
    )


def _handed_on(result: "Result") -> Iterator[str]:
    """The owner, the scripts, known faults, and where the report is."""
    answer, folder = result.answer, result.folder
    if answer.workarounds:
        yield f"workarounds: {', '.join(answer.workarounds)}"
    if answer.owner is not None:
        none = "nobody" if answer.is_rounding else "not known"
        yield f"owner: {answer.owner.project or none}. {answer.owner.reason}"
        if answer.owner.advice:
            yield f"to mend the call: {answer.owner.advice}"
    first = answer.reproducer
    for script in (first, *first.others) if first is not None else ():
        if script.path is not None:
            how = f"verified {script.runs} times" if script.verified else "not verified"
            yield f"reproducer: {folder / script.path} (needs {', '.join(script.needs) or 'Python alone'}; {how})"
    if first is not None and first.change is not None:
        own = next((item.path for item in (first, *first.others) if item.level == "script" and item.path), first.path)
        change, where = first.change, "" if first.change.script_before else f" ({own})"
        before, after = change.script_before or change.before, change.script_after or change.after
        yield from (f"before{where}: {line.strip()}" for line in before)
        yield from (f"after{where}:  {line.strip()}" for line in after)
    for known in answer.looks_like:
        yield known.sentence
    yield from _files(result)


def _files(result: "Result") -> Iterator[str]:
    yield f"report: {result.folder / 'report.md'}"
    outputs = result.answer.outputs
    for name in (outputs.html, outputs.bundle) if outputs is not None else ():
        yield f"        {result.folder / name}"


def _headline(console: "Console", result: "Result") -> None:
    from rich.text import Text

    verdict = result.answer.verdict
    headline = result.answer.headline
    line = Text.assemble((verdict.value.upper(), COLOURS[verdict]), f": {headline}")
    console.print(line, soft_wrap=not console.file.isatty())


def _end(console: "Console", result: "Result", notes: Sequence[str] = ()) -> None:
    """The answer: for a person in the rows that a terminal has; for a pipe, and where it is short, a line for each."""
    if result.answer.verdict is Outcome.BAD and console.file.isatty():
        for line in notes:
            _line(console, line)
        closing(console, result)
        return
    _headline(console, result)
    for line in (*notes, *_handed_on(result)):
        _line(console, line)
    _rerun(console, result)


def _rerun(console: "Console", result: "Result") -> None:
    """The command, as it can be pasted into a shell."""
    _line(console, f"rerun: {pasteable(result.answer.command, console.encoding)}")


def _prose(console: "Console", text: str) -> None:
    """Words that nobody pastes: on a terminal they are broken between words."""
    from rich.text import Text

    console.print(Text(text), soft_wrap=not console.file.isatty())


def _line(console: "Console", text: str) -> None:
    from rich.text import Text

    console.print(Text(text), soft_wrap=True)


def _steps_table(rows: Iterable[StepRow]) -> "Table":
    return _table("step", [(row.step, row) for row in rows])


def _ablations_table(rows: Iterable[Ablation]) -> "Table":
    return _table("ablation", [(row.name, row) for row in rows])


def _table(title: str, rows: Sequence[tuple[str, StepRow | Ablation]]) -> "Table":
    from rich.text import Text

    shown = columns(title, "verdict")
    shown.add_column("seconds", justify="right", no_wrap=True)
    shown.add_column("what was found", overflow="fold")
    for name, row in rows:
        if row.ending is not Ending.NOT_RUN:
            shown.add_row(Text(name), coloured(row.verdict), f"{row.seconds:.1f}", Text(row.reason))
    return shown


def _few(steps: Sequence[str]) -> str:
    """The names of steps; of several ablations only how many they are."""
    named = [step for step in steps if not step.startswith(ABLATION)]
    ablations = len(steps) - len(named)
    return listed([*named, f"{ablations} ablations"] if ablations > 1 else steps)


def _same_place(first: IO[str], second: IO[str]) -> bool:
    """Whether what is written to both comes out in one place: one terminal, or one file or pipe."""
    if first.isatty() and second.isatty():
        return True
    try:
        one, other = os.fstat(first.fileno()), os.fstat(second.fileno())
    except (OSError, ValueError):
        return False
    return one.st_ino != 0 and os.path.samestat(one, other)
