"""What the commands share: their arguments and options, the request that these stand for, and how a command ends.

Nothing is imported here that ``--help`` does not need.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from repro.core.records import Outcome
    from repro.run.run import Request

    _Choice = click.Choice[str]
    _ParamType = click.ParamType[str]
else:
    _Choice, _ParamType = click.Choice, click.ParamType  # generic in their annotations only, up to click 8.2

EXIT_STATUS = {"good": 0, "bad": 1, "skip": 125}
"""What ``git bisect run`` reads: 0 good, 1 bad, 125 could not tell. Usage errors end with 2, Ctrl-C with 130."""

DTYPES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp64": "float64"}
DIVERGENT = "divergent"
"""The fault of finite numbers that rounding does not explain."""
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class Seconds(click.FloatRange):
    """A time limit: a number above 0. NaN passes every comparison, so it is refused by name."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number of seconds."""
        seconds = super().convert(value, param, ctx)
        if not seconds < float("inf"):
            self.fail(f"{value} is no number of seconds; leave the option out for no limit", param, ctx)
        return seconds


class Dtype(_Choice):
    """A dtype by torch's name, or by one of its common short names."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name."""
        return super().convert(DTYPES.get(value, value), param, ctx)


class FaultSought(_Choice):
    """The fault to look for; a divergent one only where the command has something to hold the numbers against."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The fault, as it was given."""
        if value == DIVERGENT and DIVERGENT not in self.choices:
            self.fail(
                "this command holds nothing against another release: `repro versions` does, and"
                " `repro diff MODEL --against WHAT` takes two ways of running it",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


class Model(_ParamType):
    """MODEL: a Hub id with an optional revision, a folder, a .gguf file, or a script."""

    name = "model"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """MODEL as it was written; an empty word would stand for the current folder."""
        if not value.strip():
            self.fail("it is empty", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """Names of shipped configurations, then files."""
        from click.shell_completion import CompletionItem

        from repro.core.case import SHIPPED

        names = [CompletionItem(name) for name in SHIPPED if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


def _raise_limits(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Set the limits on what a file may ask for, for this process and the kit's."""
    from repro.core.foreign import limits

    if value is not None:
        try:
            limits.raise_to(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a factor above 0 nor none.", ctx=ctx, param=param) from None


def factory(more: str = "", *, multiple: bool = False) -> Decorator:
    """The option for a function that gives the model; ``more`` is said of it beside that."""
    return click.option(
        "--factory",
        "factories" if multiple else "factory",
        metavar="FILE.py:FUNCTION",
        multiple=multiple,
        help="A function that gives (module, inputs) in place of MODEL, or package.module:function."
        f" MODEL is then a file or folder of weights for it, or left out.{more}",
    )


def refused(**reasons: str) -> tuple[Decorator, ...]:
    """Options of other commands that this one does not take, each with the sentence that says why and what to do."""

    def refuse(reason: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
        def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
            if value is not None:
                raise click.UsageError(reason, ctx)

        return callback

    return tuple(
        click.option(
            f"--{name.replace('_', '-')}",
            name,
            hidden=True,
            is_flag=False,
            flag_value="",
            expose_value=False,
            callback=refuse(reason),
        )
        for name, reason in reasons.items()
    )


MODEL = click.argument("model", type=Model())
MODEL_OR_FACTORY: tuple[Decorator, ...] = (
    click.argument("model", type=Model(), required=False, metavar="MODEL"),
    factory(),
)
PHASES: tuple[Decorator, ...] = (
    click.option(
        "--generate",
        type=click.IntRange(min=1, max=100_000),
        metavar="N",
        help="Generate N tokens too, and look at prefill, each decoding step and the logits processors.",
    ),
    click.option(
        "--train-step",
        type=click.IntRange(min=1, max=10_000),
        metavar="[N]",
        is_flag=False,
        flag_value=1,
        help="Train N steps too (1 without N): forward, loss, backward, clipping, optimizer.",
    ),
    click.option(
        "--accumulate",
        type=click.IntRange(min=2, max=10_000),
        metavar="N",
        help="With --train-step: split each step's batch into N micro batches, whose gradients are accumulated.",
    ),
)
KEEP: tuple[Decorator, ...] = (
    click.option(
        "--keep-float32",
        type=click.Choice(["auto"]),
        help="Look for the smallest set of modules that must stay in float32 for the rest to be sound in --dtype.",
    ),
    click.option(
        "--keep-bfloat16",
        type=click.Choice(["auto"]),
        help="The same with these modules in bfloat16, which takes no more memory than float16.",
    ),
)
DEVICE = click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), help="Device to run on.")
CASE: tuple[Decorator, ...] = (
    click.option(
        "--dtype",
        type=Dtype(["float32", "float16", "bfloat16", "float64"]),
        help="Dtype to load in (fp16, bf16, ... work too). Default: the model's own.",
    ),
    click.option("--prompt", "prompts", multiple=True, help="Prompt text; repeatable."),
    click.option("--attn", type=click.Choice(["eager", "sdpa"]), help="Attention implementation."),
    click.option(
        "--weights",
        default="checkpoint",
        metavar="checkpoint|random:SEED",
        help="random:SEED builds the model from its configuration with seeded weights.",
    ),
)
GIVEN: tuple[Decorator, ...] = (
    click.option("--image", metavar="FILE", help="Picture for the model, through its own processor."),
    click.option("--audio", metavar="FILE", help="Sound for the model, through its own processor."),
    click.option("--inputs", metavar="FILE", help="Exact inputs by argument: .safetensors, .npz, or a saved dict."),
)
PYTHON = click.option(
    "--python", metavar="PATH", help="Interpreter whose torch is examined. Default: the one that runs repro."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print verdict.json on stdout instead of the summary.")
ABLATIONS = click.option(
    "--ablations/--no-ablations",
    default=True,
    help="Try ablations: the case with one thing changed (dtype, attention, ...).",
)
REFERENCE = click.option(
    "--reference/--no-reference",
    default=True,
    help="Hold each operator of a finite pass against float64 of its own inputs; of large ones a part.",
)
SKETCH = click.option("--sketch", is_flag=True, help="Keep what `repro matrix` compares the outputs of cells by.")
FILE_LIMITS = click.option(
    "--limits",
    metavar="FACTOR|none",
    expose_value=False,
    callback=_raise_limits,
    help="What a file asks for is limited: 1,000,000 tensors in a header or an index, the memory of this machine,"
    " 60 s for building a model, 4,000,000 characters in a prompt, ... FACTOR multiplies every limit; none takes"
    " them away. Default: REPRO_LIMITS, or 1.",
)
_BOUNDS: tuple[Decorator, ...] = (
    click.option("--trust-remote-code", is_flag=True, help="Allow code that comes with the model to run."),
    click.option("--timeout", type=Seconds(), metavar="SECONDS", help="Time limit of the whole run."),
    click.option("--step-timeout", type=Seconds(), metavar="SECONDS", help="Time limit per step (loading excluded)."),
)
_FAULTS = ("nonfinite", "crash")
_CRASH = "The fault to look for. A crash counts as bad only with --fault crash; otherwise it is skip."
LIMITS: tuple[Decorator, ...] = (
    *_BOUNDS,
    click.option("--fault", type=FaultSought(_FAULTS), default="nonfinite", help=_CRASH),
    FILE_LIMITS,
)
LIMITS_OF_RELEASES: tuple[Decorator, ...] = (
    *_BOUNDS,
    click.option(
        "--fault",
        type=FaultSought((*_FAULTS, DIVERGENT)),
        default="nonfinite",
        help=f"{_CRASH} divergent: bad is a release whose numbers differ from those of --good beyond rounding.",
    ),
    FILE_LIMITS,
)
_REDUCE = "Reduce the case and write a verified reproducer. Without it, a script is not asked where its fault is born."
REDUCE = click.option("--reduce/--no-reduce", default=True, help=_REDUCE)
BUNDLE = click.option("--bundle/--no-bundle", "deliver", default=True, help="Write report.html and bundle.zip.")
PRIVATE = click.option("--private-prompts", is_flag=True, help="Withhold prompt texts from everything that is shared.")
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")


def out(default: str) -> Decorator:
    """The option for the folder of a run; ``default`` says what it is without the option."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help=f"Run folder; an interrupted run resumes. Default: {default}.",
    )


def together(*decorators: Decorator) -> Decorator:
    """Several decorators as one, in the order in which their options are to be listed."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


ENVIRONMENT: tuple[Decorator, ...] = (PYTHON, out("repro-runs/MODEL-STAMP/"), AS_JSON, *LIMITS, DEBUG)
RUN = together(MODEL, DEVICE, *CASE, *GIVEN, *ENVIRONMENT)
"""The argument and options of every command that runs steps in one environment."""
PASSES = together(*MODEL_OR_FACTORY, DEVICE, *CASE, *GIVEN, *PHASES, *ENVIRONMENT)
"""Those of the commands that run the model."""


def request_from(command: str, options: Mapping[str, Any]) -> "Request":
    """The request that a command's options stand for.

    Raises:
        UsageError: one of them cannot be used.
    """
    from repro.core import case as cases
    from repro.core.errors import UsageError
    from repro.environments import cells

    model, place = options["model"] or "", options.get("out")
    if not model and options.get("factory") is None:
        raise UsageError("Missing argument 'MODEL', or --factory FILE.py:function in its place.")
    if place is not None and model and place.absolute() == Path(model).absolute():
        raise UsageError(f"--out {place} is where MODEL would be looked for as well. Give another folder.")
    case = cases.case_from(
        model,
        weights=options["weights"],
        device=options.get("device"),
        dtype=options["dtype"],
        attn=options["attn"],
        prompts=options["prompts"],
        trust_remote_code=options["trust_remote_code"],
        **{name: options.get(name) for name in ("image", "audio", "inputs", "factory")},
        **{name: options.get(name) for name in ("generate", "train_step", "accumulate")},
        **{name: options.get(name) for name in ("keep_float32", "keep_bfloat16")},
    )
    if case.inputs is not None and options.get("private_prompts"):
        raise UsageError("--private-prompts withholds texts, and --inputs holds token ids. Give one of them.")
    cell = cells.cell_from(options.get("python"))

    from repro.core.records import Fault
    from repro.engine.runner import Limits
    from repro.run.run import Request

    return Request(
        command=command,
        model=model,
        case=case,
        cell=cell,
        python=options.get("python"),
        ablations=options.get("ablations", False),
        reference=options.get("reference", True),
        sketch=options.get("sketch", False),
        reduce=options.get("reduce", True),
        deliver=options.get("deliver", True),
        private_prompts=options.get("private_prompts", False),
        fault=Fault(options["fault"]),
        limits=Limits(run_seconds=options["timeout"], step_seconds=options["step_timeout"]),
        out=options.get("out"),
    )


class Judged(Protocol):
    """A record with a verdict: an answer, or what a replay found."""

    @property
    def verdict(self) -> "Outcome": ...


def conclude(answer: Judged, summary: Callable[[], None], *, as_json: bool, folder: Path) -> NoReturn:
    """End a command with its verdict: the summary, the answer as JSON where it is asked for, the exit status.

    The answer is in the folder of the run as well, so that a summary that nobody can read changes nothing.
    """
    end(answer, summary, as_json=as_json, status=EXIT_STATUS[answer.verdict.value], kept=folder)


def end(document: object, say: Callable[[], None], *, as_json: bool, status: int, kept: Path | None = None) -> NoReturn:
    """End a command: what it says, then with ``as_json`` the document on stdout, then the exit status.

    ``kept``: the folder that holds the answer too, where there is one.

    Raises:
        NotPrinted: it was to be on stdout alone, and could not be printed there.
    """
    from repro.core.encoding import encode
    from repro.core.errors import NobodyReads, NotPrinted
    from repro.core.sentences import visible

    try:
        say()
        if as_json:
            click.echo(encode(document, indent=1))
        sys.stdout.flush()
    except NobodyReads:
        pass  # `| head` has seen enough; the status says it too
    except NotPrinted as error:
        if kept is None:
            raise
        where = f"{str(error).rstrip('.')}; it is in {kept}."
        if as_json:
            raise NotPrinted(where) from error
        click.echo(f"repro: {visible(where)}", err=True)
    sys.exit(status)
