"""The commands that look at files of earlier jobs, without a model: ``config-diff`` and ``scan``.

Nothing is imported here that ``--help`` does not need; each command imports what it runs.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import DEBUG, EXIT_STATUS, FILE_LIMITS, PYTHON, SETTINGS, together
from repro.cli.screen.content import finish

if TYPE_CHECKING:
    from repro.jobs.scan.findings import Looked

CONFIG_DIFF_EXAMPLES = """
\b
Examples:
  repro config-diff works_4b.yaml fails_12b.yaml
  repro config-diff 4b.yaml 12b.yaml 27b.yaml --json
  repro config-diff 4b.yaml 12b.yaml --base base.yaml      (each job over base.yaml)
  repro config-diff 12b.yaml+base.yaml                     (one job: what base.yaml overrides)

\b
Exit status: 0 no difference, 1 the settings differ (for one job: a value is overridden), 125 a file cannot be read,
2 wrong usage.
"""
SCAN_EXAMPLES = """
\b
Examples:
  repro scan results/
  repro scan results/ --include "*.safetensors" --exclude "checkpoint-*"
  repro scan activations.npz scores.csv --json
  repro scan checkpoints/ --python ~/envs/train/bin/python      (the environment that has torch)

\b
Text: .json .jsonl .ndjson .csv .tsv .txt .log (also with .gz), and .parquet if pyarrow is installed. null and empty
fields are missing values, not NaN.
Tensors: .npy .npz .safetensors .pt .pth .bin, read by the Python that --python names, which needs torch.
No file is trusted: pickled code is never run, and files are read in pieces.

\b
Exit status: 0 nothing found, 1 found, 125 nothing could be read, 2 wrong usage.
"""
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else there.")


@click.command(
    "config-diff", context_settings=SETTINGS, epilog=CONFIG_DIFF_EXAMPLES, short_help="Compare the settings of jobs."
)
@together(
    click.argument("jobs", metavar="JOB...", nargs=-1, required=True),
    click.option(
        "--base",
        "bases",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Settings below those of every job; may be repeated, later files win.",
    ),
    click.option("--all", "everything", is_flag=True, help="List overrides that change no value too."),
    AS_JSON,
    DEBUG,
)
def config_diff(jobs: Sequence[str], bases: Sequence[Path], everything: bool, as_json: bool, debug: bool) -> None:
    """Compare the settings of jobs (YAML, JSON, TOML), listing first those that can cause NaN.

    JOB is a file, or several joined by "+", where later files win. Files that a job includes (base, _base_, extends,
    defaults) are read too. An overridden value is shown with the one that won. Types count: 384 is not "384".
    """
    from repro.jobs.settings.comparing import compare, content, document
    from repro.jobs.settings.layers import job_from

    compared = compare([job_from(job, bases) for job in jobs])
    shown = content(compared, everything=everything)
    unknown = any(job.missing for job in compared.jobs)  # what it holds may differ
    finish(shown, document(compared), as_json=as_json, status=1 if compared.differs else 125 if unknown else 0)


@click.command(
    context_settings=SETTINGS, epilog=SCAN_EXAMPLES, short_help="Find the result files that hold a NaN or Inf."
)
@together(
    click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
    click.option("--include", multiple=True, metavar="GLOB", help="In folders, only files that match. Repeatable."),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders that match. Repeatable."
    ),
    click.option("--all", "everything", is_flag=True, help="Also list the files that are clean."),
    PYTHON,
    FILE_LIMITS,
    AS_JSON,
    DEBUG,
)
def scan(
    paths: Sequence[Path],
    include: Sequence[str],
    exclude: Sequence[str],
    everything: bool,
    python: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Find NaN and Inf in result files: which file, which key, column or tensor, how many, and where first.

    Folders are searched recursively. A file that could not be read, or not to its end, is listed with the reason.
    """
    from repro.core.records import Outcome
    from repro.environments.cells import cell_from
    from repro.jobs.scan.looking import scan as look_at

    def told(looked: "Looked") -> None:
        if everything or looked.verdict.outcome is not Outcome.GOOD:
            for line in looked.lines():
                click.echo(line, err=as_json)

    start = time.monotonic()
    found = look_at(paths, cell_from(python), include, exclude, told)
    seconds = time.monotonic() - start

    status = EXIT_STATUS[found.verdict.outcome.value]
    finish(found.summary(seconds), found.as_json(seconds), as_json=as_json, status=status, both=True)
