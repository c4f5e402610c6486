"""The command ``logs``: read the logs of earlier jobs, say what failed in them, hand the failed prompts on.

Nothing is imported here that ``--help`` does not need.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, PYTHON, SETTINGS, conclude, together

if TYPE_CHECKING:
    from repro.jobs.logs import Failure, Reading
    from repro.jobs.logs.patterns import Pattern

EXAMPLES = """
\b
Examples:
  repro logs job_1067566.err
  repro logs job_4b.err job_12b.err.gz job_27b.err --out failures
  repro logs train.log --hidden-size 4096 --total 500
  repro logs job_12b.err --out failures --rerun google/gemma-3-12b-it

\b
Exit status: 0 no failure in the logs, 1 failures, 125 could not tell (a log of no known form, or one that may have
ended early), 2 wrong usage, 130 Ctrl-C.
"""
DOCUMENT = "logs.json"
SKIPPED = "skipped.jsonl"


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="What failed in the logs of earlier jobs.")
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
        help="Elements of one token, to divide NaN counts by. Default: the model's, where its configuration ships.",
    ),
    click.option("--total", metavar="N", type=click.IntRange(min=1), help="Prompts of each job. Default: as it says."),
    click.option("--encoding", metavar="NAME", help="The encoding of the logs. Default: found out for each."),
    click.option(
        "--patterns",
        "own",
        metavar="FILE|DIR",
        multiple=True,
        type=click.Path(path_type=Path, exists=True),
        help="More forms of lines, as TOML; they are tried before those that ship.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write records.jsonl, skipped.txt, skipped.jsonl and logs.json there. Those of before are replaced.",
    ),
    click.option("--rerun", "model", metavar="MODEL", help="Run the failed prompts on MODEL, as `repro prompts` does."),
    click.option("--dtype", metavar="DTYPE", help="With --rerun: the dtype to load in."),
    PYTHON,
    click.option("--json", "as_json", is_flag=True, help="Print logs.json on stdout, and nothing else there."),
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
    """Read the logs of earlier jobs: which prompts failed, of how many, with which counts, and in which logs the same.

    Plain, gzip, bzip2 and xz; any encoding; lines of several ranks may alternate. Lines of no known form are counted
    and shown. The forms are data: --patterns adds more.
    """
    from repro.core.errors import UsageError
    from repro.core.sentences import visible
    from repro.jobs.logs.files import rerun, write_skip_lists
    from repro.jobs.logs.output import document
    from repro.jobs.logs.terminal import shown

    _check(files, encoding)
    if model is not None and out is None:
        raise UsageError("--rerun needs a place for the failed prompts. Name a folder with --out DIR.")
    began = time.perf_counter()
    with _records(out, files) as give:
        readings = _read(files, sizes, encoding, own, give)
    found = document(readings, total=total, seconds=time.perf_counter() - began)
    lines = list(shown(found))
    if out is not None:
        from repro.core import paths
        from repro.core.encoding import encode

        prompts = write_skip_lists(out, readings)
        paths.write(out / DOCUMENT, encode(found, indent=1) + "\n")
        lines.append(f"records: {out}")
        if model is not None:
            lines.append(f"the failed prompts again: {rerun(prompts, model)}")

    def summary() -> None:
        for line in lines:
            click.echo(visible(line), err=as_json)

    if model is not None and out is not None and (out / SKIPPED).stat().st_size:
        summary()
        _run_again(model, out, {"--dtype": dtype, "--python": python}, as_json=as_json)
    conclude(found, summary, as_json=as_json)


def _run_again(model: str, out: Path, more: Mapping[str, str | None], *, as_json: bool) -> None:
    """The failed prompts in a new run; its answer is the command's."""
    from repro.cli.prompts import prompts

    words = [model, str(out / SKIPPED), "--field", "text", "--out", str(out / "rerun")]
    for option, value in more.items():
        words += [] if value is None else [option, value]
    words += ["--json"] if as_json else []
    prompts.main(words, prog_name="repro prompts", standalone_mode=False)


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
        raise UsageError(f"{twice} is named twice, and its failures would count twice. Name each log once.")
    try:
        if encoding is not None and not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise UsageError(
            f"--encoding {encoding} is no encoding of text that Python knows: such as utf-16-le, gbk."
        ) from None


@contextlib.contextmanager
def _records(out: Path | None, files: Sequence[Path]) -> "Iterator[Callable[[Failure], None]]":
    """What takes each failure as it is found: a file in ``out``, or nothing."""
    if out is None:
        yield lambda _: None
        return
    from repro.core import paths
    from repro.jobs.logs.files import records

    with records(paths.make(out), [str(file) for file in files]) as give:
        yield give


def _read(
    files: Sequence[Path],
    sizes: Sequence[int],
    encoding: str | None,
    own: Sequence[Path],
    give: "Callable[[Failure], None]",
) -> "list[Reading]":
    """Every log, with its progress on stderr."""
    from repro.cli.screen.progress import Announcer
    from repro.jobs.logs import read_log

    known = _known(own)
    names = [file.name for file in files]
    readings = []
    for file, name in zip(files, names, strict=True):
        label = name if names.count(name) == 1 else str(file)
        with Announcer().task(label) as told:
            progress = functools.partial(_progress, told, file.stat().st_size)
            readings.append(
                read_log(file, name=label, sizes=sizes, encoding=encoding, give=give, progress=progress, known=known)
            )
    return readings


def _progress(told: Callable[[int, int, str], None], size: int, done: int) -> None:
    """Of a compressed log only how much text it was so far."""
    told(done >> 20, size >> 20 if done <= size else 0, "MiB")


def _known(own: Sequence[Path]) -> "tuple[Pattern, ...]":
    from repro.jobs.logs.patterns import patterns

    return tuple(one for place in own for one in patterns(place)) + patterns()
