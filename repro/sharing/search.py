"""search.json: what a search over releases found for the model or script of a run, kept beside the run.

So a report that is made again says the same of the releases, and the check of the report knows it too.
"""

from pathlib import Path

from repro.core.answer import Answer
from repro.core.encoding import SCHEMA, Record, encode, replace
from repro.core.errors import RecordError, UsageError
from repro.core.paths import read_record, write
from repro.core.sweep_answers import Versions
from repro.sharing.forms.folder import Run

NAME = "search.json"


class Search(Record, frozen=True, kw_only=True):
    """What was found, and what it is about: the model's or script's name, and the script's hash."""

    schema: int = SCHEMA
    model: str
    script_sha256: str | None = None
    versions: Versions


def keep(run: Run, search: Run) -> None:
    """Write it beside the run.

    Raises:
        UsageError: the other folder is no such search, or is one of something else.
        EvidenceError: the folder cannot be written.
    """
    found = search.answer
    if found.versions is None:
        raise UsageError(f"{search.folder} is no search over releases. Give the folder of `repro versions`.")
    kept = Search(model=_model(found), script_sha256=_script(found), versions=found.versions)
    if not _is_of(kept, run.answer):
        raise UsageError(
            f"{search.folder} is a search with {kept.model}, and {run.folder} a run of {_model(run.answer)}. Give one "
            "of it."
        )
    write(run.folder / NAME, encode(kept, indent=1) + "\n")


def with_kept(run: Run) -> Run:
    """The run together with the search that is kept beside it; without one, or with one of something else, as it is.

    Raises:
        UsageError: the file cannot be read.
    """
    path = run.folder / NAME
    if not path.exists():
        return run
    try:
        kept = read_record(path, Search)
    except RecordError as error:
        raise UsageError(f"{path} cannot be used: {error}. Remove it, or write it anew with --search.") from None
    return Run(run.folder, replace(run.answer, versions=kept.versions)) if _is_of(kept, run.answer) else run


def _is_of(kept: Search, answer: Answer) -> bool:
    digest = _script(answer)
    return kept.model == _model(answer) and (kept.script_sha256 is None or digest in (None, kept.script_sha256))


def _model(answer: Answer) -> str:
    return Path(answer.case.model).name


def _script(answer: Answer) -> str | None:
    return answer.script.script_sha256 if answer.script else None
