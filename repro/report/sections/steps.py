"""Every step as it ended, and the last lines of those that crashed."""

from collections.abc import Iterator, Sequence

from repro.core.answer import StepRow
from repro.core.records import Ending
from repro.core.steps import ABLATION
from repro.report.markdown import Row, block, cell, ending, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ table(["step", "verdict", "seconds", "reason"], rows) }}

{% for step, lines in stderr %}
Last lines of stderr, {{ step }} step:

{{ lines }}

{% endfor %}
"""
LINES = 25
FRAMES = 3
"""How many lines of a traceback tell one place from another."""
PLACES = 2
"""Of how many places the last lines are shown."""


def fill(shown: Shown) -> Variables | None:
    steps, found = shown.answer.steps, shown.answer.origin is not None
    rows = [_row(step, origin=found) for step in steps if not step.step.startswith(ABLATION)]
    stderr = list(_stderr(steps))[:PLACES]
    return {"rows": rows, "stderr": stderr} if rows or stderr else None


def _row(step: StepRow, *, origin: bool) -> Row:
    reason = "see Origin" if step.step == "bisect" and origin else text(step.reason)
    word = ending(step.verdict, step.ending, step.signal)
    return [cell(step.step), word, f"{step.seconds:.1f}", reason]


def _stderr(steps: Sequence[StepRow]) -> Iterator[tuple[str, str]]:
    """The last lines of steps that crashed, once for each place."""
    seen = set()
    for step in steps:
        lines = [line for line in step.stderr_tail[:LINES] if not line.startswith("Extension modules:")]
        place = tuple(line for line in lines if line.lstrip().startswith("File "))[:FRAMES] or tuple(lines)
        if step.ending is Ending.CRASHED and lines and place not in seen:
            seen.add(place)
            yield cell(step.step), block("\n".join(lines))


SECTION = Section("Steps", fill, TEMPLATE, rank=10)
