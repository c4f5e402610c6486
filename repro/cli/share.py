"""The commands that end a run's life here: ``report`` in a project's own form, and ``lint`` before it is posted.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, EXIT_STATUS, SETTINGS, Decorator, together

if TYPE_CHECKING:
    from repro.sharing.forms.folder import Filed

PROJECTS = ("pytorch", "pytorch-compile", "transformers", "safetensors", "accelerate", "vllm")
"""The forms under ``repro/forms``; held against them by a test, so that ``--help`` reads no file."""
REPORT_EXAMPLES = """
\b
Examples:
  repro report repro-runs/gpt2-20260101-120000
  repro report runs/eager --for transformers --try-latest
  repro report runs/eager/verdict.json --for pytorch

\b
Exit status: 0 the report was made, 125 no project was named and the run does not say whose fault it is, 2 wrong
usage.
"""
LINT_EXAMPLES = """
\b
Examples:
  repro lint repro-runs/gpt2-20260101-120000
  repro lint runs/eager --for transformers

\b
Exit status: 0 nothing would come back, 1 something would, 125 could not tell, 2 wrong usage.
"""
RUN = click.argument("place", metavar="RUN", type=click.Path(path_type=Path, exists=True))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else there.")


def _project(what: str) -> Decorator:
    """The option that names a project's form."""
    choice = click.Choice(["auto", *PROJECTS])
    return click.option("--for", "project", type=choice, default="auto", show_default=True, help=what)


@click.command(context_settings=SETTINGS, epilog=REPORT_EXAMPLES, short_help="A run as a report in a project's form.")
@together(
    RUN,
    _project("Whose form is filled. auto: the owner's that the run names."),
    click.option("--try-latest", is_flag=True, help="First run the script with the newest release of that project."),
    AS_JSON,
    DEBUG,
)
def report(place: Path, project: str, try_latest: bool, as_json: bool, debug: bool) -> None:
    """Fill the form of the project that a fault belongs to: RUN/report-PROJECT.md, and a URL that opens it filled.

    RUN is the folder of a run, or its verdict.json. Where no URL can hold the report, there is one file to paste for
    each field. What you write into RUN/words.md stands on top, as your own words.
    """
    from repro.core.encoding import encode
    from repro.report.privacy.redact import private_words
    from repro.sharing.forms.folder import as_json as plain
    from repro.sharing.forms.folder import file, form_for, open_run

    run = open_run(place)
    form = form_for(run, project)
    if try_latest:
        from repro.cli.screen import progress
        from repro.environments.store import Store
        from repro.sharing.latest import try_latest as ask

        announcer = progress.Announcer()
        found = ask(run, form, Store(), announcer)
        announcer.line(f"{found['package']} {found['version']}: {found['verdict']}: {found['reason']}")
    private = private_words()
    filed = file(run, form, private)
    if (run.folder / "bundle.zip").is_file():
        from repro.report.privacy.prompts import prompts_of
        from repro.run.bundle.write import bundle

        withheld = bool(run.document.get("private_prompts"))
        bundle(run.folder, run.document, private, prompts_of(run.document) if withheld else None)
    click.echo(encode(plain(filed), indent=1) if as_json else "\n".join(_told(filed)))


def _told(filed: "Filed") -> list[str]:
    """The report, how to post it, and what is left to do by hand."""
    from repro.core.sentences import listed

    filled = filed.filled
    lines = [str(filed.report)]
    if filled.url:
        lines.append(filled.url)
        if filled.left_out_of_url:
            lines.append(f"the URL has no room for {listed(filled.left_out_of_url)}: attach bundle.zip")
    else:
        where = f"https://github.com/{filled.form.repository}/issues/new/choose"
        why = "no field of it can be prefilled" if filled.form.prefill == "nothing" else "it is too long for a URL"
        lines.append(f"{why}: paste each file of {filed.blocks} into its field of {filled.form.template} at {where}")
    if filled.left_out:
        lines.append(f"the report has no room for {listed(filled.left_out)}: attach bundle.zip")
    lines += [f"tick: {box}" for box in filled.to_tick]
    lines += [f"asked there: {line}" for line in filled.form.asks]
    return lines


@click.command(context_settings=SETTINGS, epilog=LINT_EXAMPLES, short_help="What would come back from a report.")
@together(
    RUN,
    _project("Whose form is looked at. auto: every one that RUN holds a report for."),
    AS_JSON,
    DEBUG,
)
def lint(place: Path, project: str, as_json: bool, debug: bool) -> None:
    """Refuse what a maintainer would send back: no script, or one that is not verified; a required field that is empty;
    the latest release not tried; too long; something private in a file to be posted. One line for each problem.
    """
    from repro.core.encoding import encode
    from repro.report.privacy.redact import private_words
    from repro.sharing.forms.folder import open_run
    from repro.sharing.forms.forms import forms
    from repro.sharing.lint import lint as look
    from repro.sharing.lint import verdict

    run = open_run(place)
    problems = look(run, () if project == "auto" else (forms()[project],), private_words())
    found = verdict(problems)
    if as_json:
        click.echo(encode({"verdict": found, "problems": problems}, indent=1))
    else:
        for problem in problems:
            click.echo(problem.line)
        click.echo({"good": "passed", "bad": "refused", "skip": "could not tell"}[found])
    sys.exit(EXIT_STATUS[found])
