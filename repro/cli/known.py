"""The command ``known``: list and search the known faults, show one, and make one of a run.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, SETTINGS, together

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from repro.jobs.content import Content
    from repro.sharing.known import Catalogue, Checked, Fault

EXAMPLES = """
\b
Examples:
  repro known                                (all of them)
  repro known padding float16                (those that have both words)
  repro known --device mps --package pytorch
  repro known show pytorch-103749
  repro known add runs/mine --issue pytorch/pytorch#103749
  repro known add runs/mine --check          (after you have filled the file in)

\b
Exit status: 0 found, written or sound, 1 nothing found, or the check of an entry fails, 2 wrong usage.
"""
SHOW_EXAMPLES = """
\b
Examples:
  repro known show transformers-36822
  repro known show pytorch#103749 --json
"""
ADD_EXAMPLES = """
\b
Examples:
  repro known add repro-runs/my-model-20260101-120000
  repro known add runs/mine --issue huggingface/transformers#36822 --out transformers-36822.toml
  repro known add runs/mine --check --out transformers-36822.toml

\b
Without --out the entry is written into your own folder, and the next run already knows it. To give it to everybody,
send the file as a pull request: see docs/extend/known-fault.md.

\b
Exit status: 0 the entry is written, or its check holds, 1 its check fails, 2 wrong usage.
"""
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else there.")
MOST = 100
"""Characters of a title in a table."""


class Known(click.Group):
    """A group whose command ``list`` need not be named: ``repro known WORDS`` is ``repro known list WORDS``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name in front, unless one is named or help is asked for."""
        helps = self.get_help_option(ctx)
        named = {*self.commands, *(helps.opts if helps else ())}
        if not ctx.resilient_parsing and (not args or args[0] not in named):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Known,
    context_settings=SETTINGS,
    epilog=EXAMPLES,
    no_args_is_help=False,
    options_metavar="[options]",
    subcommand_metavar="[WORDS]... | show NAME | add RUN",
    short_help="List and search the known faults, or add one.",
)
def known() -> None:
    """The known faults: public ones, each with its thread, what a run of it looks like, and the test that tells it from
    its neighbours. A run that looks like one says so.

    Your own entries are in a folder of your configuration, one TOML file each (its place: the end of the list).
    """


@known.command("list", context_settings=SETTINGS, epilog=EXAMPLES)
@together(
    click.argument("words", metavar="[WORDS]...", nargs=-1),
    click.option("--package", metavar="NAME", help="Only those of this project, such as pytorch or transformers."),
    click.option("--device", metavar="NAME", help="Only those that belong to this device: cpu, cuda, mps."),
    click.option("--mechanism", metavar="NAME", help="Only those of this mechanism, such as overflow or masked_row."),
    AS_JSON,
    DEBUG,
)
def known_list(
    words: Sequence[str],
    package: str | None,
    device: str | None,
    mechanism: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Every known fault, or those that have all of the WORDS, in any of their fields."""
    from repro.cli.screen.content import finish
    from repro.sharing.known import Wanted, catalogue, search
    from repro.sharing.known import as_json as plain

    if run := next((word for word in words if Path(word, "verdict.json").is_file()), None):
        raise click.UsageError(
            f"{run} is the folder of a run: what it looks like stands in its report.md. "
            f"WORDS are searched for; `repro known add {shlex.quote(run)}` makes an entry of a run."
        )
    every = catalogue()
    found = search(every, Wanted(tuple(words), package, device, mechanism))
    _tell_problems(every)
    finish(
        _listed(found, every), [plain(fault, every) for fault in found], as_json=as_json, status=0 if found else 1
    )  # fmt: skip


def _listed(found: "Sequence[Fault]", every: "Catalogue") -> "Content":
    from repro.core.sentences import many
    from repro.jobs.content import Table, cut
    from repro.sharing.known import own_folder

    rows = tuple(
        (fault.id, "" if fault.check is None else "yes", fault.outcome, cut(fault.title or fault.what, MOST))
        for fault in found
    )  # fmt: skip
    yield Table(("name", "script", "outcome", "title"), rows)
    yield f"{len(found)} of {many(len(every.faults), 'known fault')}; repro known show NAME has all of one."
    yield f"your own: {len(every.own)} in {own_folder()}"


def _tell_problems(every: "Catalogue") -> None:
    from repro.core.sentences import visible

    for problem in every.problems:
        click.echo(visible(problem), err=True)


class FaultName(click.ParamType):  # type: ignore[type-arg] # generic in click's annotations from 8.2 on only
    """The name of a known fault."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """Those of the catalogue."""
        from click.shell_completion import CompletionItem

        from repro.sharing.known import catalogue

        return [CompletionItem(name) for name in catalogue().by_id if name.startswith(incomplete)]


@known.command("show", context_settings=SETTINGS, epilog=SHOW_EXAMPLES)
@together(click.argument("name", metavar="NAME", type=FaultName()), AS_JSON, DEBUG)
def known_show(name: str, as_json: bool, debug: bool) -> None:
    """All of one known fault: its threads, what a run of it looks like, the test that decides, and its script.

    NAME is the name of the list, or the issue: pytorch#103749.
    """
    from repro.cli.screen.content import finish
    from repro.sharing.known import as_json as plain
    from repro.sharing.known import catalogue, find

    every = catalogue()
    fault = find(every, name)
    finish(_whole(fault, every), plain(fault, every), as_json=as_json, status=0)


def _whole(fault: "Fault", every: "Catalogue") -> "Content":
    yield f"{fault.id}: {fault.title or fault.what}"
    if fault.title:
        yield fault.what
    if fault.outcome != "bug":
        yield f"outcome: {fault.outcome}"
    yield from fault.links
    yield ""
    yield "A run looks like it where all of this holds:"
    for key, wanted in fault.fingerprint.conditions.items():
        yield f"  {key}: {_in_words(wanted)}"
    yield ""
    yield from _deciding(fault, every)
    if fault.check is not None:
        seen = ", ".join(f"{place} {said}" for place, said in fault.check.seen.items())
        yield ""
        yield f"As a script (seen on the CPU: {seen}):"
        yield from (f"  {line}" for line in fault.check.script.rstrip("\n").split("\n"))


def _in_words(wanted: Sequence[str] | str | bool) -> str:
    if isinstance(wanted, bool):
        return "yes" if wanted else "no"
    return wanted if isinstance(wanted, str) else " or ".join(wanted)


def _deciding(fault: "Fault", every: "Catalogue") -> Iterator[str]:
    test = fault.test
    yield f"What decides: {test.question}"
    if test.by_hand is not None:
        yield f"  {test.by_hand}"
    if test.key is not None:
        yield f"  {test.key} of verdict.json must be {test.is_}"
    asked = {} if test.cell is None else test.cell.conditions
    other = ", ".join(f"{key} {_in_words(value)}" for key, value in asked.items()) or test.ablation
    if other:
        yield f"  {other} must be {test.verdict}"
    if test.command is not None:
        yield f"  {test.command}"
    if test.neighbours:
        yield "What it may be instead:"
        for name in test.neighbours:
            yield f"  {name}: {every.by_id[name].title or every.by_id[name].what}"


@known.command("add", context_settings=SETTINGS, epilog=ADD_EXAMPLES)
@together(
    click.argument("place", metavar="RUN", type=click.Path(path_type=Path, exists=True)),
    click.option("--issue", metavar="OWNER/NAME#N", help="The thread about it."),
    click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The file to write."),
    click.option(
        "--check", "only_check", is_flag=True, help="Write nothing: hold the file against the run and others."
    ),
    DEBUG,
)
def known_add(place: Path, issue: str | None, out: Path | None, only_check: bool, debug: bool) -> None:
    """Write one TOML file from RUN: what the run knows of the fault, masked, and what is left to fill in.

    RUN is the folder of a bad run that names an origin, or a file in it.
    """
    import sys

    from repro.core.errors import UsageError
    from repro.core.paths import make, write
    from repro.core.sentences import visible
    from repro.sharing.forms.folder import open_run
    from repro.sharing.known import catalogue, check, destination, made_from, name_for

    run, every = open_run(place), catalogue()
    path = destination(out, name_for(run, issue))
    if not only_check:
        text = made_from(run, issue, every)
        if path.exists():
            raise UsageError(
                f"{path} is there already, and is not written over. Remove it, or name another with --out."
            )
        make(path.absolute().parent)
        write(path, text)
        click.echo(visible(f"written: {path}"))
    elif not path.is_file():
        raise UsageError(f"there is no {path} to check. Write it without --check, or name it with --out.")
    checked = check(path, run.answer, every)
    again = shlex.join(["repro", "known", "add", str(place), *(["--issue", issue] if issue else []), "--check",
                        *(["--out", str(out)] if out else [])])  # fmt: skip
    for line in _said(checked, path, again):
        click.echo(visible(line))
    if only_check and not checked.holds:
        sys.exit(1)


def _said(checked: "Checked", path: Path, again: str) -> Iterator[str]:
    """What is left to do, and the command that tells whether it is done."""
    if checked.problem:
        yield f"to do: {checked.problem}"
    if checked.fits:
        yield "the run is recognised by it"
    elif not checked.problem:
        yield "to do: the run is not recognised by it: a condition of [fingerprint] does not fit"
    for name in checked.too_wide_for:
        yield f"to do: a run of {name} would be taken for it: add a condition, or name it in 'neighbours'"
    for name in checked.also:
        yield f"to do: the run looks like {name} too: name it in 'neighbours', and ask in [test] what tells them apart"
    yield "nothing is left to do" if checked.holds and not checked.also else f"then: {again}"
