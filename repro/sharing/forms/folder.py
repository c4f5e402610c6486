"""A run's folder made into a report in a project's own form: ``report-PROJECT.md``, and a URL or blocks to paste."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.errors import RecordError, ReproError, UsageError
from repro.core.paths import read_object, sha256, write
from repro.report.privacy.prompts import without_prompts
from repro.report.privacy.redact import Private, redact, redact_json, scope
from repro.sharing.forms.fill import Filled, fill
from repro.sharing.forms.forms import Form, forms
from repro.sharing.forms.sections import Quoted

VERDICT = "verdict.json"
LATEST = "latest.json"
BLOCKS_TITLE = "00-title.md"
WORDS = "words.md"
"""The reporter's own words, where they are kept beside the run."""
NOWHERE = {
    "checkpoint": "the fault is in the checkpoint: it is for the makers of the model, not for a library",
    "caller": "the fault is in the call, and no project's",
}
"""Owners that have no form, and why."""


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of a run, and the content of its verdict.json."""

    folder: Path
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filed:
    """What was written: the report, and the folder of one block a field where no URL opens the form filled."""

    report: Path
    blocks: Path | None
    filled: Filled


def open_run(place: Path) -> Run:
    """A run by its folder or its verdict.json.

    Raises:
        UsageError: there is no run.
    """
    path = place if place.name == VERDICT else place / VERDICT
    try:
        document = read_object(path)
    except RecordError as error:
        raise UsageError(f"{place} is no run: {path} cannot be read ({error}). Give the folder of a run.") from None
    missing = {"verdict", "reason", "model", "cell", "tool"} - document.keys()
    if missing:
        raise UsageError(f"{path} is no verdict of repro: it has no {sorted(missing)[0]!r}. Give the folder of a run.")
    return Run(path.parent, document)


def form_for(run: Run, project: str) -> Form:
    """The form of ``project``, or for "auto" of the owner that the run names.

    Raises:
        UsageError: the run is good, so that there is nothing to report.
        ReproError: "auto", and the owner is not known or has no form: could not tell where to.
    """
    if run.document["verdict"] == "good":
        raise UsageError(f"{run.folder} is good, so there is no fault to report: {run.document['reason']}")
    if project != "auto":
        return forms()[project]
    owner = run.document.get("owner") or {}
    name = str(owner.get("project"))
    if name in forms():
        return forms()[name]
    why = NOWHERE.get(name, "the run does not say whose fault it is")
    said = " ".join(str(part) for part in (owner.get("reason"), owner.get("advice")) if part)
    raise ReproError(
        f"no form was chosen, for {why}{f' ({said})' if said else ''}. Name a project with --for to fill its form."
    )


def entries(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every script of the run, the smallest first, as verdict.json has them."""
    first = document.get("reproducer")
    return [first, *(first.get("others") or ())] if first else []


def chosen(run: Run, form: Form) -> list[Mapping[str, Any]]:
    """The scripts for a form: the one that runs the project's own package first, if it is verified; then the smallest.

    Scripts whose files are not there are left out.
    """
    known = [entry for entry in entries(run.document) if (run.folder / str(entry["path"])).is_file()]
    own = [entry for entry in known if form.package in (entry.get("needs") or ()) and entry.get("verified")]
    return [*own[:1], *(entry for entry in known[:1] if entry not in own[:1])]


def script_sha256(run: Run, entry: Mapping[str, Any]) -> str:
    """The hash of a script as it lies in the folder."""
    return sha256(run.folder / str(entry["path"]))


def answers(run: Run) -> list[Mapping[str, Any]]:
    """What latest.json says, one answer for each package; none where there is no such file."""
    try:
        found = read_object(run.folder / LATEST)
    except RecordError:
        return []
    others = found.pop("others", ())
    return [item for item in (found, *others) if {"package", "version", "verdict", "reason"} <= item.keys()]


def latest_of(run: Run, entry: Mapping[str, Any] | None, package: str) -> Mapping[str, Any] | None:
    """The answer about the newest release of a package, where it is about this very script; None else."""
    sha256 = None if entry is None else script_sha256(run, entry)
    return next((a for a in answers(run) if a["package"] == package and a.get("script_sha256") == sha256), None)


def report_path(run: Run, form: Form) -> Path:
    """Where the filled form is."""
    return run.folder / f"report-{form.project}.md"


def file(run: Run, form: Form, private: Private) -> Filed:
    """Fill the form and write it.

    Raises:
        EvidenceError: the folder cannot be written.
    """
    scripts, (here, keep) = chosen(run, form), scope(run.document, private)
    latest = latest_of(run, scripts[0] if scripts else None, form.package)
    quoted = [_quoted(run, entry, here, keep) for entry in scripts]
    words = run.folder / WORDS
    own = redact(words.read_text(encoding="utf-8").strip(), here, keep) if words.is_file() else None
    public = without_prompts(run.document) if run.document.get("private_prompts") else run.document
    shown = redact_json({**public, "latest": latest}, here, keep)
    filled = fill(form, shown, quoted, words=own or None, latest=shown["latest"])
    write(report_path(run, form), filled.body)
    shutil.rmtree(_blocks_folder(run, form), ignore_errors=True)  # those of another time
    return Filed(report_path(run, form), None if filled.url else _write_blocks(run, filled), filled)


def _quoted(run: Run, entry: Mapping[str, Any], private: Private, keep: tuple[str, ...]) -> Quoted:
    text = (run.folder / str(entry["path"])).read_text(encoding="utf-8", errors="backslashreplace")
    shown = redact(text, private, keep)
    return Quoted(redact_json(entry, private, keep), shown, masked=shown != text)


def _write_blocks(run: Run, filled: Filled) -> Path:
    """One file for each field that has a text, numbered in the form's order."""
    folder = _blocks_folder(run, filled.form)
    folder.mkdir()
    write(folder / BLOCKS_TITLE, filled.title + "\n")
    for place, (field, text) in enumerate(zip(filled.form.fields, filled.texts, strict=True), start=1):
        if text:
            write(folder / f"{place:02}-{_file_name(field.label)}.md", text + "\n")
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
