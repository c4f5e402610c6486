"""The commands that hand a run on: ``report`` fills a project's form, and ``lint`` checks it before it is posted.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, EXIT_STATUS, SETTINGS, Decorator, together
from repro.sharing.forms import projects

if TYPE_CHECKING:
    from repro.sharing.forms.folder import Filed, Run
    from repro.sharing.forms.forms import Form

REPORT_EXAMPLES = """
\b
Examples:
  repro report repro-runs/gpt2-20260101-120000
  repro report runs/eager --for transformers --try-latest
  repro report runs/eager/verdict.json --for pytorch
  repro report runs/bad --search runs/versions

\b
Exit status: 0 the report was written, 125 no project was named and the run names no owner, 2 wrong
usage.
"""
LINT_EXAMPLES = """
\b
Examples:
  repro lint repro-runs/gpt2-20260101-120000
  repro lint runs/eager --for transformers

\b
Exit status: 0 nothing to reject, 1 something is refused, 125 could not tell, 2 wrong usage.
"""
RUN = click.argument("place", metavar="RUN", type=click.Path(path_type=Path, exists=True))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else there.")


def _project(what: str) -> Decorator:
    """The option that names a project's form."""
    choice = click.Choice(["auto", *projects()])
    return click.option("--for", "project", type=choice, default="auto", show_default=True, help=what)


@click.command(context_settings=SETTINGS, epilog=REPORT_EXAMPLES, short_help="Fill in a project's bug report form.")
@together(
    RUN,
    _project("The project whose form is filled. auto: the owner that the run names."),
    click.option(
        "--try-latest/--no-try-latest",
        default=None,
        help="First run the script with that project's newest release, in an environment of its own.  "
        "[default: at a terminal, ask]",
    ),
    click.option(
        "--search",
        metavar="FOLDER",
        type=click.Path(path_type=Path, exists=True),
        help="Of `repro versions` with the same model or script: its releases stand in the first line, of this report "
        "and of later ones.",
    ),
    AS_JSON,
    DEBUG,
)
def report(place: Path, project: str, try_latest: bool | None, search: Path | None, as_json: bool, debug: bool) -> None:
    """Fill in a project's bug report form: RUN/report-PROJECT.md, and a URL that opens the form filled.

    RUN is the folder of a run, or a file in it. Where the report is too long for a URL, there is one file to paste
    for each field. What you write into RUN/words.md comes first, as your own words; `repro lint` refuses a report
    without them.
    """
    from repro.cli.screen import progress
    from repro.core.encoding import encode
    from repro.core.errors import ReproError
    from repro.core.locks import folder_held
    from repro.report.privacy.machine import private_words
    from repro.sharing.forms.folder import as_json as plain
    from repro.sharing.forms.folder import file, form_for, open_run
    from repro.sharing.latest import tried
    from repro.sharing.search import keep, with_kept

    run = open_run(place)
    form = form_for(run, project)
    announcer = progress.Announcer()
    with folder_held(run.folder, shlex.join(["repro", "report", str(place)]), announcer.line):
        if search is not None:
            keep(run, open_run(search))
        run = with_kept(run)
        if try_latest or (try_latest is None and _wanted(run, form)):
            from repro.environments.store import Store
            from repro.sharing.latest import try_latest as ask

            try:
                found = ask(run, form, Store(), announcer)
                announcer.line(f"{found.package} {found.version}: {found.verdict.value}: {found.reason}")
            except ReproError as error:
                if try_latest:
                    raise
                announcer.line(f"the newest release was not tried: {error}")
        private = private_words()
        filed = file(run, form, private, tried(run, form))
        if (run.folder / "bundle.zip").is_file():
            from repro.run.bundle.write import bundle

            bundle(run.folder, run.answer, private)
    click.echo(encode(plain(filed), indent=1) if as_json else "\n".join(_told(filed)))


def _wanted(run: "Run", form: "Form") -> bool:
    """Whether the person at the terminal wants the newest release to be tried; no where there is nobody to ask, or
    nothing to try it with.
    """
    from repro.sharing.forms.folder import chosen, latest_of

    if not (sys.stdin.isatty() and sys.stderr.isatty()) or latest_of(run, form) is not None:
        return False
    if not any(script.verified and form.package in script.needs for script in chosen(run, form)):
        return False
    question = f"Maintainers ask first whether the newest release of {form.package} has the fault. Try it now? "
    question += "It builds an environment, which takes minutes and some GB where it is not cached."
    return click.confirm(question, default=True, err=True)


def _told(filed: "Filed") -> list[str]:
    """The report, how to post it, and what is left to do by hand."""
    from repro.core.sentences import listed

    filled = filed.filled
    attach = "" if filled.form.self_contained else ". Attach bundle.zip"
    lines = [str(filed.report)]
    if filled.url:
        lines.append(filled.url)
        if filled.left_out_of_url:
            lines.append(f"not in the URL, for want of room: {listed(filled.left_out_of_url)}{attach}")
    else:
        lines.append(_where_to_paste(filed))
    if filled.left_out:
        lines.append(f"not in the report, for want of room: {listed(filled.left_out)}{attach}")
    lines += [f"tick: {box}" for box in filled.to_tick]
    lines += [f"the project asks: {line}" for line in filled.form.asks]
    return lines


def _where_to_paste(filed: "Filed") -> str:
    form = filed.filled.form
    if not form.template:
        return (
            f"there is no form of {form.package} here: open an issue where its makers take them (`pip show --verbose "
            f"{form.package}` names its pages), with the title in {filed.blocks}/00-title.md and the report as its text"
        )
    where = f"https://github.com/{form.repository}/issues/new/choose"
    why = "no URL can prefill this form" if form.prefill == "nothing" else "the report is too long for a URL"
    return f"{why}: paste each file of {filed.blocks} into its field of {form.template} at {where}"


@click.command(
    context_settings=SETTINGS, epilog=LINT_EXAMPLES, short_help="Check a report for what maintainers reject."
)
@together(
    RUN,
    _project("The project whose form is checked. auto: every form that RUN has filled."),
    AS_JSON,
    DEBUG,
)
def lint(place: Path, project: str, as_json: bool, debug: bool) -> None:
    """Check a report for what maintainers reject.

    That is: no script, or one that is not verified, or that breaks the project's own rules (its length, its running
    time, what it imports, values near the limits of a dtype, no assertion); no words of a person; an empty required
    field; the latest release not tried; a fault that is known, or is rounding; a report or an attachment that is too
    long; something private in a file to be posted. One line for each problem, with what to do.
    """
    from repro.core.encoding import encode
    from repro.core.sentences import visible
    from repro.report.privacy.machine import private_words
    from repro.sharing.forms.folder import open_run
    from repro.sharing.forms.forms import forms
    from repro.sharing.lint import lint as look
    from repro.sharing.lint import verdict
    from repro.sharing.search import with_kept

    run = with_kept(open_run(place))
    problems = look(run, () if project == "auto" else (forms()[project],), private_words())
    found = verdict(problems)
    if as_json:
        click.echo(encode({"verdict": found, "problems": problems}, indent=1))
    else:
        for problem in problems:
            click.echo(visible(problem.line))
        click.echo({"good": "passed", "bad": "refused", "skip": "could not tell"}[found.value])
    sys.exit(EXIT_STATUS[found.value])
