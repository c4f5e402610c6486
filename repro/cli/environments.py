"""The commands that work with many environments: ``matrix``, ``versions``, ``cells`` and ``merge``.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import (
    ABLATIONS,
    AS_JSON,
    CASE,
    DEBUG,
    DEVICE,
    DIVERGENT,
    GIVEN,
    LIMITS,
    LIMITS_OF_RELEASES,
    MODEL_OR_FACTORY,
    PHASES,
    SETTINGS,
    conclude,
    out,
    request_from,
    together,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


MATRIX_EXAMPLES = """
\b
Examples:
  repro matrix gpt2-medium                                 (every cell that this machine can run)
  repro matrix ./my-model --dtype float16 --cell torch-2.4.1 --cell torch-2.5.1
  repro matrix gpt2 --weights random:0 --jobs 2 --out runs/gpt2
  repro matrix gpt2 --weights random:0 --out runs/gpt2 --resume
  repro matrix --factory model.py:make --train-step 2 --cell torch-2.4.1 --cell torch-2.5.1

\b
Exit status: 0 good in every cell that answered, 1 bad in at least one, 125 no cell answered, 2 wrong usage,
130 Ctrl-C.
"""
CELLS_EXAMPLES = """
\b
Examples:
  repro cells list
  repro cells build torch-2.4.1 torch-2.5.1
  repro cells remove --all --cache

\b
Where wheels come from: pip's own settings hold (index-url, extra-index-url, find-links), unless uv has settings of its
own (UV_DEFAULT_INDEX and the like). UV_TORCH_BACKEND=cpu gives CPU cells the CPU-only wheels of PyTorch's own index,
a tenth of the size.
"""


VERSIONS_EXAMPLES = """
\b
Examples:
  repro versions examples/pytorch_103749.py --package torch --good 2.5.1 --bad 2.3.1
  repro versions ./my-model --package transformers --good 4.42.4 --bad 4.44.2 --with torch==2.4.1
  repro versions ./my-model --dtype float16 --package torch --good 2.5.1 --bad 2.2.0 --all
  repro versions ./my-model --package transformers --good 4.42.4 --bad 5.23.0 --fault divergent
  repro versions ./my-model --generate 20 --package transformers --good 4.57.3 --bad 5.23.0
  repro versions flaky.py --package torch --good 2.4.1 --bad 2.6.0 --runs 5

\b
Exit status: 1 a boundary was found (the fault is there in the range), 0 every release that was asked is good,
125 could not tell, 2 wrong usage, 130 Ctrl-C.
"""


class CellName(click.ParamType):  # type: ignore[type-arg] # generic in click's annotations from 8.2 on only
    """The id of a cell."""

    name = "cell"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """The shipped cells."""
        from click.shell_completion import CompletionItem

        from repro.environments.cells import recipes

        return [CompletionItem(recipe.id) for recipe in recipes() if recipe.id.startswith(incomplete)]


SHARED_BYTES = 50_000_000
"""What is shared with others is told from here on."""
ENVS = click.option(
    "--envs",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Recipes of your own (ID.toml, with ID.txt as the lock). Default: those that ship with repro.",
)


@click.command(context_settings=SETTINGS, epilog=MATRIX_EXAMPLES, short_help="The same question in every pinned cell.")
@together(
    *MODEL_OR_FACTORY,
    click.option("--cell", "ids", multiple=True, type=CellName(), metavar="ID", help="Only this cell; repeatable."),
    *CASE,
    *GIVEN,
    *PHASES,
    ABLATIONS,
    click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Cells run in parallel."),
    out("repro-runs/MODEL-matrix-STAMP/"),
    click.option("--resume", is_flag=True, help="Resume in --out: cells that have answered are not run again."),
    ENVS,
    AS_JSON,
    *LIMITS,
    DEBUG,
)
def matrix(ids: Sequence[str], jobs: int, resume: bool, envs: Path | None, **options: Any) -> None:
    """Ask the same in every pinned environment, and say where the answer changes.

    Each cell pins a Python, a PyTorch and a Transformers (see `repro cells list`). Its environment is built with uv the
    first time. A cell whose interpreter, device or wheel is not there is skipped with the reason.
    """
    from repro.cli.screen.progress import Announcer
    from repro.cli.screen.summaries import summary, table
    from repro.core.errors import UsageError
    from repro.environments import cells
    from repro.environments.store import Store
    from repro.sweeps.matrix.run import Matrix
    from repro.sweeps.matrix.run import run as ask

    known = cells.recipes(envs)
    request = request_from("run", options)
    if resume and options["out"] is None:
        raise UsageError("--resume needs --out DIR: the folder of the matrix that was interrupted.")
    asked = Matrix(request, known, cells.chosen(known, ids), options["out"], jobs, resume, envs)
    result = ask(asked, Store(), Announcer())
    as_json = options["as_json"]

    def show() -> None:
        if result.answer.cells is None:  # a single cell is a run, whose progress has told of its steps
            summary(result, {step.step for step in result.answer.steps}, to_stderr=as_json)
        else:
            table(result, to_stderr=as_json)

    conclude(result.answer, show, as_json=as_json, folder=result.folder)


@click.command(context_settings=SETTINGS, short_help="Join the tables of several machines into one.")
@click.argument("places", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The new folder. Default: repro-runs/MODEL-merged-STAMP/.",
)
@AS_JSON
@DEBUG
def merge(places: tuple[Path, ...], out: Path | None, as_json: bool, debug: bool) -> None:
    """Join what several machines found into one table.

    DIR is the folder of a matrix or of a single run, or a folder that holds such, as downloaded from CI. All of them
    must have asked the same. A cell that ran on two platforms is two cells.
    """
    from repro.cli.screen.progress import Announcer
    from repro.cli.screen.summaries import table
    from repro.sweeps.matrix.merge import merge as join

    result = join(places, out, Announcer().line)
    conclude(result.answer, lambda: table(result, to_stderr=as_json), as_json=as_json, folder=result.folder)


@click.group(
    context_settings=SETTINGS,
    epilog=CELLS_EXAMPLES,
    no_args_is_help=False,
    short_help="List, build and remove the pinned cells.",
)
def cells() -> None:
    """The pinned environments: which there are, which are built, and what they take on disk."""


@cells.command("list", context_settings=SETTINGS)
@ENVS
@click.option("--verbose", "-v", is_flag=True, help="Also what each cell can tell that no other can.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@DEBUG
def cells_list(envs: Path | None, verbose: bool, as_json: bool, debug: bool) -> None:
    """Every cell: its versions, and what it takes on disk where it is built."""
    from repro.cli.screen.summaries import cells_list as show
    from repro.core.encoding import encode, to_json
    from repro.environments import cells
    from repro.environments.store import Store

    store = Store()
    standing = {item.recipe.id: item for item in store.standing()}
    known = {recipe.id: recipe for recipe in cells.recipes(envs)}
    rows = [
        {
            **{key: value for key, value in to_json(recipe).items() if key != "lock"},
            "built": name in standing,
            "bytes": standing[name].bytes if name in standing else None,
            "shipped": name in known,
        }
        for name, recipe in {**{name: item.recipe for name, item in standing.items()}, **known}.items()
    ]
    rows.sort(key=lambda row: (not row["shipped"], row["id"]))
    if as_json:
        click.echo(encode(rows, indent=1))
    else:
        show(rows, store.folder, store.stored_bytes(), why=verbose)


@cells.command("build", context_settings=SETTINGS)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=CellName())
@ENVS
@DEBUG
def cells_build(ids: Sequence[str], envs: Path | None, debug: bool) -> None:
    """Build cells; without ID, every one that this machine can run."""
    from repro.cli.screen.progress import Announcer
    from repro.core.errors import BuildError
    from repro.environments import cells
    from repro.environments.store import Store, missing_device

    store, announcer, failed = Store(), Announcer(), []
    for recipe in cells.chosen(cells.recipes(envs), ids):
        reason = missing_device(recipe.device)
        try:
            if reason is None:
                with announcer.task(f"building {recipe.id}") as progress:
                    store.build(recipe, progress, announcer.line)
        except BuildError as error:
            reason = str(error)
        announcer.line(f"{recipe.id}: {'built' if reason is None else f'not built: {reason}'}")
        failed += [] if reason is None else [recipe.id]
    if failed and len(failed) == len(ids or failed):
        raise BuildError(f"not built: {', '.join(failed)}")


@cells.command("remove", context_settings=SETTINGS)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=CellName())
@click.option("--all", "every", is_flag=True, help="Every cell that is built.")
@click.option("--cache", is_flag=True, help="Drop its packages from uv's cache too, where no other cell has them.")
@DEBUG
def cells_remove(ids: Sequence[str], every: bool, cache: bool, debug: bool) -> None:
    """Remove cells that are built. Most of the disk comes back with --cache only: uv keeps what it has downloaded."""
    from repro.cli.screen.progress import Announcer
    from repro.core.errors import UsageError
    from repro.environments.store import Store

    if bool(ids) == every:
        raise UsageError("name the cells to remove, or give --all.")
    store = Store()
    built = store.names()
    for name in ids:
        if name not in built:
            raise UsageError(f"the cell {name!r} is not built. Built: {', '.join(built) or 'none'}.")
    wanted = built if every else ids
    size = sum(item.bytes for item in store.standing() if item.recipe.id in wanted)
    freed = store.remove(wanted, cache=cache, say=Announcer().line)
    told = f"removed {', '.join(wanted) or 'nothing'}: {freed / 1e9:.1f} GB free again"
    if size - freed > SHARED_BYTES:
        by = "other cells" if cache else "other cells or uv's cache (--cache drops what no other cell has)"
        told += f"; {(size - freed) / 1e9:.1f} GB of the {size / 1e9:.1f} GB are shared with {by}, and stay"
    click.echo(told)


@click.command(context_settings=SETTINGS, epilog=VERSIONS_EXAMPLES, short_help="The release where the answer changed.")
@together(
    *MODEL_OR_FACTORY,
    click.option("--package", required=True, metavar="NAME", help="The package to search, such as torch."),
    click.option("--good", required=True, metavar="VERSION", help="A release that is good; older or newer than --bad."),
    click.option("--bad", required=True, metavar="VERSION", help="A release that is bad."),
    click.option(
        "--with", "pins", multiple=True, metavar="NAME==VERSION", help="Pin in every environment; repeatable."
    ),
    click.option("--py", metavar="3.N", help="Python of the environments. Default: that of repro itself."),
    click.option("--all", "walk_all", is_flag=True, help="Ask every release: for a fault that comes and goes."),
    click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each release."),
    click.option(
        "--bad-from",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many bad runs make a release bad; good is one whose runs all ended with fewer.",
    ),
    click.option("--trace/--no-trace", default=True, help="Whether the operators of the two sides are compared."),
    DEVICE,
    *CASE,
    *GIVEN,
    *PHASES,
    out("repro-runs/MODEL-versions-STAMP/"),
    AS_JSON,
    *LIMITS_OF_RELEASES,
    DEBUG,
)
def versions(**options: Any) -> None:
    """Search the releases of a package for the one in which the answer changed, and say what changed there.

    MODEL is as for `repro run`; a script (.py) answers by its exit status: 0 good, 1 bad, 125 could not tell. Both ends
    are asked first. With --fault divergent the numbers of each release are held against those of --good, as `repro
    diff` does it. A release that does not install, import or resolve is skipped, not guessed; what is found is an
    interval. The package that must go together with the one searched (torch and transformers) is chosen by what the
    releases declare, unless --with holds it.
    """
    from repro.cli.screen.progress import Announcer
    from repro.cli.screen.summaries import versions as show
    from repro.environments.store import Store
    from repro.sweeps.releases import run

    divergent = options["fault"] == DIVERGENT
    request = request_from("diff", {**options, "fault": "nonfinite"}) if divergent else request_from("forward", options)
    question = run.question(**{key: options[key] for key in run.ASKED}, case=request.case, divergent=divergent)
    search = run.Search(request, question, options["out"], options["trace"])
    result = run.run(search, Store(), Announcer())
    as_json = options["as_json"]
    conclude(result.answer, lambda: show(result, to_stderr=as_json), as_json=as_json, folder=result.folder)
