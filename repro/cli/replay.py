"""The command ``replay``: open a bundle, show what would be run, ask, run, and say what came of it.

Nothing is imported here that ``--help`` does not need.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, FILE_LIMITS, PYTHON, SETTINGS, Seconds, conclude, out, together

if TYPE_CHECKING:
    from repro.run.bundle.read import Opened
    from repro.sharing.replay.plan import Proposal
    from repro.sharing.replay.run import Change, Replay

EXAMPLES = """
\b
Examples:
  repro replay bundle.zip
  repro replay bundle.zip --python ~/torch-nightly/bin/python
  repro replay bundle.zip --model ~/models/my-model --yes
  repro replay repro-runs/my-model-20260101-120000
  repro replay nan-report/step --factory train.py:make_model

\b
Exit status: 1 the same fault, 0 it is gone, 125 another fault or could not tell (also where the bundle is not what its
manifest says), 2 wrong usage, 130 Ctrl-C.
"""
STEP = "step.json"
"""What the folder of a saved step holds."""
AGAIN = "import sys; from repro.inprocess.stepping import main; sys.exit(main(sys.argv[1:]))"
LONGEST = 200
"""Lines of a script that are shown; of a longer one only its place."""
NAMED = ("python", "torch", "transformers", "numpy", "platform", "device")
"""What is named of the differences, in this order; of the others, how many there are."""
OTHERS = 3
"""How many are named where none of these differs."""
"""How many differences are named; replay.json has all of them."""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Check whether the fault of a bundle shows here.")
@together(
    click.argument("place", metavar="bundle.zip|DIR", type=click.Path(path_type=Path)),
    PYTHON,
    click.option(
        "--model", metavar="MODEL", help="Where the model is on this machine. Default: where it was, if it is there."
    ),
    click.option(
        "--factory",
        metavar="FILE.py:FUNCTION",
        help="The function that gives the model, for a step or a call that was saved.",
    ),
    click.option("--yes", is_flag=True, help="Run without asking."),
    out("repro-runs/NAME-replay-STAMP/"),
    click.option(
        "--timeout",
        type=Seconds(),
        metavar="SECONDS",
        help="Time limit for each script, and for the run of the model.",
    ),
    FILE_LIMITS,
    click.option("--json", "as_json", is_flag=True, help="Print replay.json on stdout instead of the summary."),
    DEBUG,
)
def replay(
    place: Path,
    python: str | None,
    model: str | None,
    factory: str | None,
    yes: bool,
    out: Path | None,
    timeout: float | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Check whether the fault of somebody's bundle or run folder shows on this machine.

    Every file is checked against the bundle's manifest first. Then you see what would be run, and nothing runs before
    you agree: the scripts of the bundle and, where it is on this machine, the model.

    A training step that repro.Guard has saved (the folder `step` of its report), or a call that a finding's save_step
    has, is made again with your own model.
    """
    if (place / STEP).is_file():
        sys.exit(_step(place, factory, out, {"--python": python, "--model": model, "--json": as_json}))
    if factory is not None:
        from repro.core.errors import UsageError

        raise UsageError(f"--factory is for a saved step, and {place} holds no {STEP}.")
    from repro.cli.screen import progress
    from repro.core import paths
    from repro.core.locks import folder_held
    from repro.engine.runner import Limits
    from repro.environments import cells
    from repro.run.bundle.read import open_bundle
    from repro.sharing.replay.plan import new_folder, propose
    from repro.sharing.replay.run import NAME
    from repro.sharing.replay.run import replay as run_again

    cell = cells.cell_from(python)
    folder = new_folder(place, out)
    command = shlex.join(["repro", "replay", str(place)])
    with _dropped_if_unused(paths.make(folder)), folder_held(folder, command, progress.Announcer().line):
        opened = open_bundle(place, folder / "bundle")
        proposal = propose(opened, cell, Limits(run_seconds=timeout), folder, model)
        for line in shown(place, proposal):
            click.echo(line, err=True)
        _consent(yes, paths.relative(opened.folder))
        with progress.listener() as listener:
            result = run_again(proposal, folder.absolute(), listener)

    def summary() -> None:
        for line in told(result):
            click.echo(line, err=as_json)
        click.echo(f"replay: {paths.relative(folder) / NAME}", err=as_json)

    conclude(result, summary, as_json=as_json, folder=paths.relative(folder))


def _step(place: Path, factory: str | None, out: Path | None, others: Mapping[str, object]) -> int:
    """Make a saved step again, in a process of its own: the model's code may do anything. Its exit status.

    Raises:
        UsageError: there is no factory, or an option is of bundles only.
    """
    import subprocess

    from repro.core.errors import UsageError

    if factory is None:
        raise UsageError(
            f"{place} is a saved step: add --factory FILE.py:function, a function that gives a model of its class."
        )
    if beside := [option for option, value in others.items() if value]:
        raise UsageError(f"{beside[0]} is for bundles; a saved step is made again by this Python, with your factory.")
    command = [sys.executable, "-c", AGAIN, str(place.absolute()), factory]
    return subprocess.call([*command, str(out.absolute())] if out is not None else command)


@contextlib.contextmanager
def _dropped_if_unused(folder: Path) -> Iterator[None]:
    """Of a bundle that is refused nothing is left."""
    from repro.core.locks import remove_unused

    try:
        yield
    finally:
        remove_unused(folder)


def _consent(yes: bool, folder: Path) -> None:
    """Go on only if somebody has agreed.

    Raises:
        UsageError: there is nobody to ask.
        ReproError: no.
    """
    from repro.core.errors import ReproError, UsageError

    if yes:
        return
    where = f"The files are in {folder}."
    if not sys.stdin.isatty():
        raise UsageError(
            f"nothing was run: there is no terminal to ask on. Read what would be run, and add --yes. {where}"
        )
    if not click.confirm("Nothing was run yet. Run this?", err=True):
        raise ReproError(f"nothing was run. {where}")


def shown(place: Path, proposal: "Proposal") -> Iterator[str]:
    """What would be run, for a person to judge: nothing in it can move the cursor, hide text, or look like another."""
    for line in _shown(place, proposal):
        yield from (harmless(part) for part in line.split("\n"))


def _shown(place: Path, proposal: "Proposal") -> Iterator[str]:
    yield f"{place}: {_verified(proposal.opened)}"
    yield f"made with: {proposal.opened.answer.command}"
    yield f"its answer: {proposal.opened.answer.reason}"
    for note in proposal.notes:
        yield f"note: {note}"
    yield f"With {proposal.cell.python} this would be run, with all your own permissions (there is no sandbox):"
    for script in proposal.scripts:
        path = proposal.opened.folder / script.name
        number = len(script.text.splitlines())
        yield f"- {path} ({number} lines, {script.runs} times at most)"
        if script.argv:
            yield f"  with the argument {shlex.join(script.argv)}"
        if number <= LONGEST:
            yield from (f"  | {line}" for line in script.text.rstrip("\n").split("\n"))
        else:
            yield "  It is too long to show: read it there."
    if proposal.request is not None:
        yield f"- {shlex.join(proposal.request.argv())}"
    yield f"- {proposal.kit}"


def _verified(opened: "Opened") -> str:
    """What was held against what."""
    if opened.manifest is None:
        return "the folder of a run, without a manifest"
    said = opened.manifest
    left = f"; {len(said.left_out)} files of the run are not in it" if said.left_out else ""
    return f"{len(said.files)} files, each as its manifest says{left}. Made by repro {said.tool}"


def harmless(line: str) -> str:
    """A line in which every character shows itself; a tab is kept."""
    from repro.core.sentences import visible

    return "\t".join(map(visible, line.split("\t")))


def told(result: "Replay") -> Iterator[str]:
    """What came of it."""
    for part in result.parts:
        yield harmless(f"{part.what}: {part.answer.value}: {part.reason}")
    yield harmless(_differing(result.differences))
    yield harmless(f"{result.overall.value.upper()}: {result.reason}")


def _differing(found: "tuple[Change, ...] | None") -> str:
    """What is another here than where the bundle was made."""
    if found is None:
        return "Differences are not known: one of the two environments was not recorded."
    if not found:
        return "No recorded difference: versions, packages, platform and settings are the same."
    named = sorted((one for one in found if one.name in NAMED), key=lambda one: NAMED.index(one.name))
    named = named or list(found[:OTHERS])
    changes = [f"{change.name} {_value(change.there)} -> {_value(change.here)}" for change in named]
    more = [f"and {len(found) - len(named)} more"] if len(found) > len(named) else []
    return f"Differences (there -> here): {', '.join([*changes, *more])}"


def _value(value: object) -> str:
    return "none" if value is None else str(value)
