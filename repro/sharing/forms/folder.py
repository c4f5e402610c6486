"""A run's folder made into a report in a project's own form: ``report-PROJECT.md``, and a URL or blocks to paste."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.answer import NAME as VERDICT
from repro.core.answer import Answer, ScriptRecord, read
from repro.core.errors import RecordError, ReproError, UsageError
from repro.core.paths import sha256
from repro.core.records import Outcome
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.run.bundle.manifest import wrong_name
from repro.sharing.forms.fill import Filled, fill
from repro.sharing.forms.first import Releases
from repro.sharing.forms.forms import Form, form_of
from repro.sharing.forms.sections import Quoted
from repro.sharing.tried import Tried, answers

BLOCKS_TITLE = "00-title.md"
WORDS = "words.md"
"""The reporter's own words, where they are kept beside the run."""
MOST_WORDS = 1 << 16
"""Bytes of them: no form takes more."""
NOWHERE = {
    "checkpoint": "the fault is in the checkpoint: report it to the model's authors, not to a library",
    "caller": "the fault is in the call, not in a library",
}
"""Owners that have no form, and why."""


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of a run, and its answer."""

    folder: Path
    answer: Answer


@dataclass(frozen=True, slots=True)
class Filed:
    """What was written: the report, and the folder of one block a field where no URL opens the form filled."""

    report: Path
    blocks: Path | None
    filled: Filled


def open_run(place: Path) -> Run:
    """A run by its folder, or by a file in it.

    Raises:
        UsageError: there is no run of this version; the message names the file, the place in it and what is expected.
    """
    path = place if place.name == VERDICT else place / VERDICT
    if place.is_file() and place.name != VERDICT:
        path = place.parent / VERDICT
        if not path.is_file():
            raise UsageError(f"{place} is a file, and there is no {VERDICT} beside it. Give the folder of a run.")
    try:
        return Run(path.parent, read(path))
    except RecordError as error:
        raise UsageError(f"{path} cannot be used: {error}. Give the folder of a run.") from None


def form_for(run: Run, project: str) -> Form:
    """The form of ``project``, or for "auto" of the owner that the run names.

    Raises:
        UsageError: the run is good, so that there is nothing to report.
        ReproError: "auto", and the owner is not known or has no form: could not tell where to.
    """
    answer = run.answer
    if answer.verdict is Outcome.GOOD:
        raise UsageError(f"{run.folder} is good, so there is no fault to report: {answer.reason}")
    owner = answer.owner
    name = project if project != "auto" else owner.project if owner else None
    form = form_of(name)
    if form is not None:
        return form
    why = NOWHERE.get(name or "", "the run names no owner")
    said = " ".join(part for part in (owner.reason, owner.advice) if part).rstrip(".") if owner else ""
    raise ReproError(
        f"no form was chosen: {why}{f' ({said})' if said else ''}. Name a project with --for to fill its form."
    )


def scripts_of(answer: Answer) -> tuple[ScriptRecord, ...]:
    """Every script of the run, the smallest first."""
    first = answer.reproducer
    return () if first is None else (first, *first.others)


def chosen(run: Run, form: Form) -> tuple[ScriptRecord, ...]:
    """The scripts for a form: first a verified one with the project's own package and as few others as there is; then
    the run's first.

    Scripts whose files are not in the folder are left out.
    """
    known = [record for record in scripts_of(run.answer) if _is_there(run, record)]
    own = [record for record in known if form.package in record.needs and record.verified]
    own.sort(key=lambda record: len(set(record.needs) - {form.package, "torch"}))
    return (*own[:1], *(record for record in known[:1] if record not in own[:1]))


def _is_there(run: Run, record: ScriptRecord) -> bool:
    """Whether a script's file lies in the run's folder, and nowhere else."""
    return record.path is not None and wrong_name(record.path) is None and script_path(run, record).is_file()


def script_path(run: Run, record: ScriptRecord) -> Path:
    """Where a script lies."""
    return run.folder / str(record.path)


def latest_of(run: Run, form: Form) -> Tried | None:
    """The answer about the newest release of the form's package, where it is about the form's first script as it is."""
    scripts = chosen(run, form)
    digest = sha256(script_path(run, scripts[0])) if scripts else None
    known = (item for item in answers(run.folder) if item.package == form.package)
    return next((item for item in known if item.script_sha256 == digest), None)


def report_path(run: Run, form: Form) -> Path:
    """Where the filled form is."""
    return run.folder / f"report-{form.project}.md"


def file(run: Run, form: Form, private: Private, releases: Releases | None = None) -> Filed:
    """Fill the form and write it.

    Args:
        run: The run.
        form: The project's.
        private: What must not be in it.
        releases: What the releases of the project's package gave.

    Raises:
        UsageError: the reporter's words cannot be used.
        EvidenceError: the folder cannot be written.
    """
    mask = Mask.of(run.answer, private)
    latest = latest_of(run, form)
    quoted = [_quoted(run, record, mask) for record in chosen(run, form)]
    own = mask.text(own_words(run))
    tried = mask.record(latest) if latest else None
    filled = fill(form, mask.answer(run.answer), quoted, mask.text, words=own or None, latest=tried, releases=releases)
    mask.write(report_path(run, form), filled.body)
    shutil.rmtree(_blocks_folder(run, form), ignore_errors=True)  # those of another time
    return Filed(report_path(run, form), None if filled.url else _write_blocks(run, filled, mask), filled)


def own_words(run: Run) -> str:
    """What the reporter has written into the run's folder.

    Raises:
        UsageError: it is no text file of the folder's own. A folder may come from somebody else, and a link in it would
            put any file of this machine into a report.
    """
    path = run.folder / WORDS
    if not path.exists() and not path.is_symlink():
        return ""
    if path.is_symlink() or not path.is_file():
        raise UsageError(
            f"{path} is no plain file of the folder: it leads elsewhere. Write your words into such a file."
        )
    if path.stat().st_size > MOST_WORDS:
        raise UsageError(f"{path} has {path.stat().st_size:,} bytes, and {MOST_WORDS:,} is the most. Shorten it.")
    return path.read_text("utf-8", "backslashreplace").strip()


def _quoted(run: Run, record: ScriptRecord, mask: Mask) -> Quoted:
    text = script_path(run, record).read_text(encoding="utf-8", errors="backslashreplace")
    shown = mask.script(text)
    return Quoted(mask.record(record), shown, masked=record.masked or shown != text)


def _write_blocks(run: Run, filled: Filled, mask: Mask) -> Path:
    """One file for each field that has a text, numbered in the form's order."""
    folder = _blocks_folder(run, filled.form)
    folder.mkdir()
    mask.write(folder / BLOCKS_TITLE, filled.title + "\n")
    for place, (field, text) in enumerate(zip(filled.form.fields, filled.texts, strict=True), start=1):
        if text:
            mask.write(folder / f"{place:02}-{_file_name(field.label)}.md", text + "\n")
    return folder


def _blocks_folder(run: Run, form: Form) -> Path:
    return run.folder / f"report-{form.project}"


def _file_name(label: str) -> str:
    """A label in letters that every file system takes."""
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in label).split())


def as_json(filed: Filed) -> dict[str, Any]:
    """What was written, for programs."""
    filled = filed.filled
    return {
        "project": filled.form.project,
        "repository": filled.form.repository,
        "title": filled.title,
        "report": str(filed.report),
        "url": filled.url,
        "blocks": None if filed.blocks is None else str(filed.blocks),
        **{key: value for key, value in dataclasses.asdict(filled).items() if key.startswith("left_out")},
        "to_tick": filled.to_tick,
        "asks": filled.form.asks,
    }
