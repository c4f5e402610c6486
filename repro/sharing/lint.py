"""What maintainers reject, found before a report is posted. Nothing is run, and nothing is changed."""

import shlex
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from repro.core.errors import FetchError
from repro.core.foreign import open_foreign, read_foreign
from repro.core.paths import relative, sha256
from repro.core.records import Outcome
from repro.core.sentences import listed
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.render import LIMIT
from repro.sharing.forms.fill import BUNDLE, PLACEHOLDER, TITLE_LIMIT
from repro.sharing.forms.folder import BLOCKS_TITLE, WORDS, Run, chosen, report_path, script_path
from repro.sharing.forms.forms import OF_NO_PROJECT, Form, form_of, forms, parse
from repro.sharing.forms.sections import FILES
from repro.sharing.latest import newest, same, tried
from repro.sharing.problem import Problem
from repro.sharing.rules import of_body, of_result, of_script

ATTACHMENT_LIMIT = 25_000_000
"""The largest file that GitHub takes with an issue, in bytes (25 MB)."""
POSTED = ("report-*.md", "report-*/*.md", "report.md", "report.html", "reproducer*.py")
"""What of a run's folder is made to be posted, besides the bundle."""
SHOWN = 100
"""How many characters of a line with something private are shown, masked."""
RUN_AGAIN = "Run the model again to the end, which writes and verifies a script."


def lint(run: Run, projects: tuple[Form, ...], private: Private) -> tuple[Problem, ...]:
    """Every problem of the reports for these projects; with no project, of those that the folder holds."""
    own = form_of(run.answer.owner.project if run.answer.owner else None)
    known = {**forms(), **({own.project: own} if own else {})}
    chosen_forms = projects or tuple(form for form in known.values() if report_path(run, form).is_file())
    found = [*_verdict(run)]
    if not chosen_forms:
        found.append(Problem("refused", *_not_filled(run)))
    for form in chosen_forms:
        found += [*_script(run, form), *_report(run, form), *_latest(run, form), *_owner(run, form)]
    mask = Mask.of(run.answer, private)
    found += [*_no_bug(run), *_private(run, mask), *_attachment(run)]
    return tuple(dict.fromkeys(_masked(problem, mask) for problem in found))


def _masked(problem: Problem, mask: Mask) -> Problem:
    """A problem as it is printed: what is printed is pasted, too."""
    return Problem(problem.kind, *map(mask.text, (problem.what, problem.found, problem.to_do)))


def verdict(problems: tuple[Problem, ...]) -> Outcome:
    """Bad where something is refused, skip where something could not be told, else good."""
    kinds = {problem.kind for problem in problems}
    return Outcome.BAD if "refused" in kinds else Outcome.SKIP if "unknown" in kinds else Outcome.GOOD


def _again(run: Run, project: str) -> str:
    return f"Run: repro report {shlex.quote(str(relative(run.folder)))} --for {project}"


def _verdict(run: Run) -> Iterator[Problem]:
    outcome = run.answer.verdict
    if outcome is not Outcome.BAD:
        to_do = "Report a run that shows a fault."
        yield Problem("refused", "verdict", f"the run is {outcome.value}: {run.answer.reason}", to_do)


def _not_filled(run: Run) -> tuple[str, str, str]:
    owner = run.answer.owner
    if owner is not None and owner.project in OF_NO_PROJECT:
        return (
            "owner",
            f"the run says {owner.project} ({owner.reason.rstrip('.')})",
            "There is no project to report it to.",
        )
    return "report", "no project's form has been filled", f"{_again(run, 'PROJECT')}."


def _script(run: Run, form: Form) -> Iterator[Problem]:
    """No script, one that is not verified or was changed since, one that downloads where the project wants none."""
    scripts = chosen(run, form)
    if not scripts:
        yield Problem("refused", "script", "no script shows the fault by itself", RUN_AGAIN)
        return
    script = scripts[0]
    if not script.verified:
        why = script.reason or "no reason is given"
        yield Problem("refused", "script", f"{script.path} is not verified ({why})", RUN_AGAIN)
    if script.sha256 and script.sha256 != sha256(script_path(run, script)):
        yield Problem("refused", "script", f"{script.path} was changed after it was verified", RUN_AGAIN)
    if form.self_contained and script.checkpoint:
        found = f"{script.path} reads a checkpoint, and {form.repository} accepts no script that needs a download"
        yield Problem("refused", "script", found, "Find a smaller one, or say why none shows the fault.")
    if script.reads:
        found = f"{script.path} reads {listed(list(script.reads[:FILES]))}, which nobody else has"
        to_do = "Write what it needs of them into the script, or make it from a seed."
        yield Problem("refused", "script", found, to_do)
    yield from of_script(form, script, _read(script_path(run, script)))
    yield from of_result(form, script, run.answer)


def _report(run: Run, form: Form) -> Iterator[Problem]:
    """A report that is missing, has an empty required field, is of another script, or is too long."""
    path = report_path(run, form)
    if not path.is_file():
        yield Problem("refused", "report", f"there is no {path.name}", f"{_again(run, form.project)}.")
        return
    text = _read(path)
    filled = parse(form, text)
    for field in form.fields:
        if field.required and not field.boxes and not _without_comments(filled.get(field.label, "")):
            found = f"{field.label!r} is required, and it is {'empty' if field.label in filled else 'missing'}"
            yield Problem("refused", path.name, found, "Fill it.")
        if field.required and field.boxes and "[ ]" in filled.get(field.label, ""):
            yield Problem("note", path.name, f"the box of {field.label!r} is not ticked", "Tick it where it is true.")
    if len(text) > LIMIT:
        found = f"{len(text):,} characters, and GitHub takes {LIMIT:,}"
        yield Problem("refused", path.name, found, "Move a part of it into an attached file.")
    title = _read(run.folder / f"report-{form.project}" / BLOCKS_TITLE).strip()
    if len(title) > TITLE_LIMIT:
        yield Problem("refused", "title", f"{len(title)} characters, and GitHub takes {TITLE_LIMIT}", "Shorten it.")
    if PLACEHOLDER in text:
        found = "the place for your own words is empty, and a report without a person's words is closed"
        to_do = f"Write what you were doing and what you expected into {WORDS}, and make the report again."
        yield Problem("refused", path.name, found, to_do)
    yield from of_body(form, path.name, text)
    yield from _quoted(run, form, text)


def _quoted(run: Run, form: Form, text: str) -> Iterator[Problem]:
    """Every script that belongs into the report stands in it, whole or named as an attachment."""
    named = "".join(line for line in text.split("\n") if f"the attached `{BUNDLE}`" in line)
    for script in chosen(run, form):
        if _read(script_path(run, script)).strip() not in text and f"`{script.path}`" not in named:
            found = f"it does not quote {script.path} as it is now"
            yield Problem("refused", report_path(run, form).name, found, f"{_again(run, form.project)}.")


def _latest(run: Run, form: Form) -> Iterator[Problem]:
    known = tried(run, form)
    said = f"tried: {form.package} {listed(list(known))}" if known else f"no release of {form.package} was tried"
    try:
        latest = newest(form.package)
    except FetchError as error:
        found = f"the registry could not be asked which one it is; {said} ({error})"
        yield Problem("unknown", "latest release", found, "Ask again where the registry answers.")
        return
    answers = next((answers for release, answers in known.items() if same(release, latest)), None)
    if answers is None:
        to_do = f"{_again(run, form.project)} --try-latest"
        yield Problem("refused", "latest release", f"{form.package} {latest} was not tried; {said}", f"{to_do}.")
    elif answers == {Outcome.GOOD}:
        to_do = "Upgrade. Report it only if an older release must be fixed too, and say so."
        yield Problem("refused", "latest release", f"the fault is gone in {form.package} {latest}", to_do)


def _no_bug(run: Run) -> Iterator[Problem]:
    """What the run itself says is none."""
    if run.answer.is_rounding:
        found = "every operator is within its dtype's own rounding of float64"
        yield Problem("refused", "no bug", found, "Compare with a tolerance that fits the dtype.")
    for fault in run.answer.looks_like:
        if fault.result == "not run" and fault.outcome == "bug":
            found = f"whether it is {fault.issue} ({fault.title or fault.what}) is not known"
            yield Problem("unknown", "duplicate", found, f"What tells: {fault.question}. If it is, add to that issue.")
        if fault.result != "agrees":
            continue
        if fault.outcome != "bug":
            found = f"it looks like {fault.issue}, which is not a bug"
            yield Problem("refused", "no bug", found, "Read that issue first.")
        else:
            found = f"it looks like {fault.issue} ({fault.title}), and the test that tells it from others agrees"
            to_do = "Add to that issue what is new here; open another only if it is not the same, and say why."
            yield Problem("refused", "duplicate", found, to_do)


def _owner(run: Run, form: Form) -> Iterator[Problem]:
    owner = run.answer.owner
    project = owner.project if owner else None
    if not form.is_for(project):
        found = f"the run says {project}" if project else "the run names no owner"
        found += f" ({owner.reason.rstrip('.')})" if owner and owner.reason else ""
        to_do = f"If it is for {form.repository} all the same, say in your own words why."
        yield Problem("refused" if project else "note", "owner", found, to_do)


def _private(run: Run, mask: Mask) -> Iterator[Problem]:
    """Whatever masking would take out of a file that is to be posted; the first such line of each file."""
    for name, content in _posted(run):
        masked = mask.content(name, content)
        if masked == content:
            continue
        lines = enumerate(zip(_lines(content), _lines(masked), strict=False), start=1)
        place, shown = next(((place, new) for place, (old, new) in lines if old != new), (1, ""))
        found = f"line {place} has something private, masked here: {shown.strip()[:SHOWN]}"
        yield Problem("refused", name, found, "Take it out.")


def _posted(run: Run) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that is made to be posted, those in the bundle included."""
    for pattern in POSTED:
        for path in sorted(run.folder.glob(pattern)):
            yield str(path.relative_to(run.folder)), read_foreign(path)
    for name, content in (_members(run.folder / BUNDLE) or {}).items():
        yield f"{BUNDLE}: {name}", content


def _members(bundle: Path) -> dict[str, bytes] | None:
    """Name and content of what is in a bundle; None where it is not there, or is not a complete archive."""
    try:
        with open_foreign(bundle) as file, zipfile.ZipFile(file) as archive:
            return {member.filename: archive.read(member) for member in archive.infolist()}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return None


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").split("\n")


def _attachment(run: Run) -> Iterator[Problem]:
    path = run.folder / BUNDLE
    named = [file.name for file in run.folder.glob("report-*.md") if f"attached `{BUNDLE}`" in _read(file)]
    if named and not path.is_file():
        found = f"{listed(sorted(named))} says that it is attached, and it does not exist"
        yield Problem("note", BUNDLE, found, "Attach the files that the report leaves out.")
    if path.is_file() and _members(path) is None:
        yield Problem("refused", BUNDLE, "it is not a complete zip archive", f"{_again(run, 'PROJECT')}.")
    if path.is_file() and path.stat().st_size > ATTACHMENT_LIMIT:
        found = f"{path.stat().st_size:,} bytes, and GitHub takes {ATTACHMENT_LIMIT:,}"
        yield Problem("refused", BUNDLE, found, "Leave out what is not needed, or share it elsewhere.")


def _without_comments(text: str) -> str:
    """What of a field shows in an issue."""
    while "<!--" in text and "-->" in text.partition("<!--")[2]:
        before, _, rest = text.partition("<!--")
        text = before + rest.partition("-->")[2]
    return text.strip()


def _read(path: Path) -> str:
    try:
        return read_foreign(path).decode("utf-8", "replace")
    except OSError:
        return ""
