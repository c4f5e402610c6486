"""The command ``logs``: what failed in the logs of earlier jobs, and the failed prompts for another run.

Nothing is imported here that ``--help`` does not need.
"""

import contextlib
import functools
import itertools
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, EXIT_STATUS, PYTHON, SETTINGS, together
from repro.cli.screen.content import finish, show

if TYPE_CHECKING:
    from repro.jobs.logs import Failure, Reading

EXAMPLES = """
\b
Examples:
  repro logs job_1067566.err
  repro logs job_4b.err job_12b.err.gz job_27b.err --out failures
  repro logs train.log --hidden-size 4096 --total 500
  repro logs job_12b.err --out failures --rerun google/gemma-3-12b-it

\b
Exit status: 0 no failures, 1 failures, 125 could not tell (unknown log format, or a job that may have ended early),
2 wrong usage, 130 Ctrl-C.
"""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Find which prompts failed in job logs.")
@together(
    click.argument(
        "files",
        metavar="FILE...",
        nargs=-1,
        required=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
    ),
    click.option(
        "--hidden-size",
        "sizes",
        metavar="N",
        multiple=True,
        type=click.IntRange(min=1),
        help="Hidden size, to give NaN counts in token rows. Default: the model's, where repro knows it.",
    ),
    click.option("--total", metavar="N", type=click.IntRange(min=1), help="Prompts per job. Default: from the log."),
    click.option("--encoding", metavar="NAME", help="Text encoding of the logs. Default: detected."),
    click.option(
        "--patterns",
        "own",
        metavar="FILE|DIR",
        multiple=True,
        type=click.Path(path_type=Path, exists=True),
        help="Your own log patterns (TOML), tried before the shipped ones.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write records.jsonl, skipped.txt, skipped.jsonl and logs.json to DIR, replacing earlier ones.",
    ),
    click.option("--rerun", "model", metavar="MODEL", help="Run the failed prompts on MODEL with `repro prompts`."),
    click.option("--dtype", metavar="DTYPE", help="With --rerun: dtype to load the model in."),
    PYTHON,
    click.option("--json", "as_json", is_flag=True, help="Print logs.json on stdout."),
    DEBUG,
)
def logs(
    files: tuple[Path, ...],
    sizes: tuple[int, ...],
    total: int | None,
    encoding: str | None,
    own: tuple[Path, ...],
    out: Path | None,
    model: str | None,
    dtype: str | None,
    python: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Find which prompts failed in job logs: how many, with what NaN counts, and which fail in several logs.

    Reads plain text, gzip, bzip2 and xz, with lines of several ranks interleaved. Errors that no pattern recognises are
    counted and shown; add patterns with --patterns.
    """
    from repro.cli.screen.progress import Announcer
    from repro.core import paths
    from repro.core.errors import UsageError
    from repro.core.locks import folder_held
    from repro.jobs.logs.answer import answer, content, document
    from repro.jobs.logs.files import SKIPPED_JSON, check_ours, records, write

    _check(files, encoding)
    if model is not None and out is None:
        raise UsageError("--rerun needs a folder for the failed prompts. Name one with --out DIR.")
    began = time.perf_counter()
    with contextlib.ExitStack() as held:
        give = None
        if out is not None:
            held.enter_context(folder_held(paths.make(out), "repro logs", Announcer().line))
            check_ours(out)
            give = held.enter_context(records(out, [str(file) for file in files]))
        readings = _read(files, sizes, encoding, own, give)
        found = answer(readings, total=total, seconds=time.perf_counter() - began)
        shown = document(found)
        if out is not None:
            write(out, readings, shown)
    written: list[str] = []
    again: list[str] = []
    if out is not None:
        written.append(f"written to: {out}")
        if model is not None:
            again = [model, str(out / SKIPPED_JSON), "--field", "text", "--out", str(out / "rerun")]
            again += [*(["--dtype", dtype] if dtype else []), *(["--python", python] if python else [])]
            written.append(f"rerun: {shlex.join(['repro', 'prompts', *again])}")

    told = itertools.chain(content(found), written)
    if out is not None and again and (out / SKIPPED_JSON).stat().st_size:
        from repro.cli.prompts import prompts

        show(told, err=as_json)
        # The answer of the run is the command's.
        prompts.main([*again, *(["--json"] if as_json else [])], prog_name="repro prompts", standalone_mode=False)
    finish(told, shown, as_json=as_json, status=EXIT_STATUS[found.verdict.outcome.value], both=True)


def _check(files: Sequence[Path], encoding: str | None) -> None:
    """Refuse what would give a wrong answer.

    Raises:
        UsageError: a log is named twice, or there is no such encoding.
    """
    import codecs

    from repro.core.errors import UsageError

    places = [file.resolve() for file in files]
    twice = next((file for file, place in zip(files, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice, so its failures would count twice. Give each log once.")
    try:
        if encoding is not None and not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise UsageError(
            f"--encoding {encoding} is not a text encoding that Python knows. Give one such as utf-16-le or gbk."
        ) from None


def _read(
    files: Sequence[Path],
    sizes: Sequence[int],
    encoding: str | None,
    own: Sequence[Path],
    give: "Callable[[Failure], None] | None",
) -> "list[Reading]":
    """Every log, with its progress on stderr."""
    from repro.cli.screen.progress import Announcer
    from repro.core.errors import RecordError, UsageError
    from repro.jobs.logs import read_log
    from repro.jobs.logs.patterns import patterns

    try:
        known = [*(one for place in own for one in patterns(place)), *patterns()]
    except RecordError as error:
        raise UsageError(f"--patterns {error}") from None
    names = [file.name for file in files]
    readings = []
    for file, name in zip(files, names, strict=True):
        label = name if names.count(name) == 1 else str(file)
        with Announcer().task(label) as told:
            progress = functools.partial(_progress, told, file.stat().st_size)
            reading = read_log(
                file, name=label, sizes=sizes, encoding=encoding, give=give, progress=progress, known=known
            )
        readings.append(reading)
    return readings


def _progress(told: Callable[[int, int, str], None], size: int, done: int) -> None:
    """For a compressed log, only how much text was read so far: its whole length is not known."""
    told(done >> 20, size >> 20 if done <= size else 0, "MiB")
