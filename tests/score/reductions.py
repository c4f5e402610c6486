"""How small the scripts get, and what that costs: all of examples/, and a seeded draw of the score's injected faults.

    python -m score.reductions --page FILE     all of them; the page for people
    python -m score.reductions mlp/ examples/  cases by parts of their names; the table on standard output
    python -m score.reductions --json FILE     each result as a line

Of each case the whole chain is run: the kit's steps with ablations and reduction, the host's judgement, and each script
three times in a clean interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DRAWN = {
    "folder": 26, "script": 14, "backward": 4, "loss": 3, "generate": 3, "vision": 3, "audio": 3, "quantised": 2,
    "inputs": 2,
}  # fmt: skip
"""How many faults of each way in."""
SEED = 20261129
EXAMPLES = Path(__file__).parents[2] / "examples"
LINES, SECONDS = 20, 60
"""What the medians should be below."""


@dataclass(frozen=True)
class Reduced:
    """What came of one case.

    ``lines``: of the script that is offered, without header, docstring and comments. ``before``: those of the user's
    script; None for a model. ``seconds``, ``processor``: of the reduce step, by the clock and of all processors.
    ``verifying``: seconds of the host, most of which the scripts run. ``failed``: why there is none of it.
    """

    name: str
    level: str | None = None
    owner: str | None = None
    verified: bool = False
    before: int | None = None
    lines: int = 0
    trials: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    verifying: float = 0.0
    failed: str | None = None


def main(argv: list[str]) -> int:
    """Parse, run, print. Ends with 0 when every case was asked."""
    parser = argparse.ArgumentParser(prog="score.reductions", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="parts of names; all cases without")
    parser.add_argument("--page", type=Path, help="write the page for people")
    parser.add_argument("--json", type=Path, help="write each result as a line of JSON, as it comes")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time; with more than one, seconds grow")
    given = parser.parse_args(argv)
    home = tempfile.TemporaryDirectory(prefix="score-home-")
    os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=home.name)
    from . import session

    cases = drawn()
    if given.words:
        cases = [case for case in cases if any(word in case.name for word in given.words)]
    session.prepare()
    found = []
    for row in results(cases, given.jobs):
        found.append(row)
        if given.json:
            with given.json.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
        if sys.stderr.isatty():
            print(f"\r{len(found)} of {len(cases)}", end="", file=sys.stderr, flush=True)
    found.sort(key=lambda row: row.name)
    made = text(found, given.jobs)
    print(made)
    if given.page:
        given.page.write_text(made, encoding="utf-8")
    return 0


def drawn() -> list:
    """The examples, and as many faults of each way as ``DRAWN`` says; other faults before the same one again."""
    from . import session
    from .records import Case

    faults = [case for case in session.every() if case.truth is not None]
    chance, found = random.Random(SEED), []
    for way, count in DRAWN.items():
        here = sorted((case for case in faults if case.way == way), key=lambda case: case.name)
        chance.shuffle(here)
        first = {case.fault: case for case in here}
        rest = [case for case in here if case not in first.values()]
        found += [*first.values(), *rest][:count]

    def copied(path: Path):
        def write(folder: Path) -> Path:
            (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
            return folder / path.name

        return write

    own = [
        Case(f"examples/{path.name}", "examples", path.stem, "script", copied(path), None, lambda: None, seconds=600)
        for path in sorted(EXAMPLES.glob("*.py"))
    ]
    return [*own, *found]


def results(cases: list, jobs: int) -> Iterator[Reduced]:
    """As they come, each from a process of its own."""
    import dataclasses

    from support import pool

    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        home = Path(folder)

        def work(case) -> Reduced:
            with tempfile.TemporaryDirectory(dir=home) as place:
                return reduced(case, Path(place), home / "cache")

        slow = [dataclasses.replace(case, seconds=900.0) for case in cases]
        for case, found in pool.each(slow, work, jobs, home / "log"):
            yield found if isinstance(found, Reduced) else Reduced(case.name, failed=found)


def reduced(case, place: Path, cache: Path) -> Reduced:
    """The whole chain for one case."""
    from repro.core.encoding import replace
    from repro.core.payloads import Reduction
    from repro.core.steps import asked_by
    from repro.diagnosis.known import excluded
    from repro.diagnosis.owner import owner
    from repro.report.privacy.machine import Private
    from repro.report.privacy.mask import Mask
    from repro.reproducer.offer import offer

    from . import drive

    path = case.write(place)
    subject = "script" if case.is_script else "model"
    steps = [step.name for step in asked_by("run", subject) if step.name not in ("environment", "reduce")]
    before = os.times()
    found = drive.judged(case, path, cache, [*steps, "reduce"])
    after = os.times()
    out = place / "out"
    out.mkdir()
    begin = time.monotonic()

    def project_of(answer) -> str | None:
        whose = owner(answer, excluded(answer))
        return None if whose is None else whose.project

    made = offer(found, sys.executable, out, Mask(Private()), project_of=project_of)
    verifying = time.monotonic() - begin
    whose = owner(replace(found, reproducer=made), excluded(found))
    reduction = found.reduction or Reduction()
    seconds = next((row.seconds for row in found.steps if row.step == "reduce"), 0.0)
    return Reduced(
        case.name,
        level=None if made is None else made.level,
        owner=None if whose is None else whose.project,
        verified=made is not None and made.verified,
        before=None if reduction.listing is None else reduction.listing.lines_before,
        lines=0 if made is None else made.lines,
        trials=reduction.trials,
        seconds=seconds,
        processor=sum(after[:4]) - sum(before[:4]),
        verifying=verifying,
        failed=None if made is not None else f"no script: the verdict is {found.verdict.value}",
    )


def text(rows: list[Reduced], jobs: int) -> str:
    """The page."""
    shown = [row for row in rows if row.failed is None]
    lines, seconds = [row.lines for row in shown], [row.seconds for row in shown]
    processor = [row.processor for row in shown]
    before = [row.before for row in shown if row.before is not None]
    own = [row.lines for row in shown if row.before is not None]
    of_scripts = [row.seconds for row in shown if row.before is not None]
    faults = sum(not row.name.startswith("examples/") for row in rows)
    longest = f"{max(seconds, default=0):.0f}"
    head = f"""\
# How small the scripts get

Written by `python -m score.reductions --page docs/reductions.md` (with `tests` on the path), never by hand. All of
[examples/](../examples/README.md), and {faults} injected faults drawn by a seed from those of [the score](score.md),
through the whole chain: the kit's steps with ablations and reduction, the host's judgement, and
each script three times in a clean interpreter. Cases at a time: {jobs}, on {os.cpu_count()} cores.

| what | result |
|---|---|
| cases | {len(rows)}; without a script: {len(rows) - len(shown)} |
| verified three times | {sum(row.verified for row in shown)} of {len(shown)} |
| lines of the script | median {_median(lines)}, nine of ten within {_most(lines)}, longest {max(lines, default=0)} |
| of a user's script, before and after | median {_median(before)} and {_median(own)} |
| seconds of the reduction | median {_median(seconds)}, nine of ten within {_most(seconds)}, longest {longest} |
| of them with a user's script | median {_median(of_scripts)}, nine of ten within {_most(of_scripts)} |
| processor seconds of the whole run | median {_median(processor)}, nine of ten within {_most(processor)} |
| goal: medians below {LINES} lines and {SECONDS} s | {_reached(lines, of_scripts or seconds)} |

Lines are those of code, without header, docstring and comments. **Before**: of the user's script; a model has none.
**Level**: operator and operators are PyTorch alone, script is the user's own made smaller, configuration the class of
the model with seeded weights, module one layer of it, files and weights read the checkpoint. **Processor**: seconds of
all processes of the run, which include bisection and ablations. **Verifying**: seconds in which scripts were run.

| case | level | owner | verified | before | lines | trials | seconds | processor | verifying |
|---|---|---|---|---|---|---|---|---|---|
"""
    return head + "".join(f"{_row(row)}\n" for row in rows)


def _row(row: Reduced) -> str:
    if row.failed is not None:
        return f"| {row.name} | {row.failed} | | | | | | | | |"
    cells = (
        row.name, row.level, row.owner or "not known", "yes" if row.verified else "no",
        "" if row.before is None else row.before, row.lines, row.trials, f"{row.seconds:.1f}",
        f"{row.processor:.1f}", f"{row.verifying:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _median(values: list) -> str:
    return f"{statistics.median(values):.0f}" if values else "none"


def _most(values: list) -> str:
    """What nine of ten stay within."""
    return f"{sorted(values)[max(0, -(-9 * len(values) // 10) - 1)]:.0f}" if values else "none"


def _reached(lines: list[int], seconds: list[float]) -> str:
    if not lines:
        return "not known"
    return "reached" if statistics.median(lines) < LINES and statistics.median(seconds) < SECONDS else "**missed**"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
