"""The search for a version from a request to verdict.json and report.md. Reads top to bottom as a list of steps."""

import functools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from repro import __version__
from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.errors import FetchError, Stopped, UsageError
from repro.core.folders import Claim, check_held_still, claim, seen
from repro.core.locks import folder_held, remove_unused
from repro.core.records import Case
from repro.core.sweep_answers import Boundary, Release, Versions
from repro.core.trace_answers import Changes
from repro.environments.cells import NAME, recipes
from repro.environments.store import Announcer, Store, disk_use
from repro.run import output
from repro.run.conversion import convert_once
from repro.run.run import Request, Result, Terminated, terminable
from repro.sweeps import traces
from repro.sweeps.matrix.join import nothing, read_answer
from repro.sweeps.releases import Change, Found, Question, investigate
from repro.sweeps.releases.world import RealWorld

HEADER = "versions.json"
NUMPY_2 = Version("2.3")
"""The first release of PyTorch whose wheels know NumPy 2 (release notes of PyTorch 2.3)."""
LAST_NUMPY_1 = "1.26.4"


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked.

    Attributes:
        request: The run that every release is asked for.
        question: The package, its two ends and the rest of the question.
        out: The folder of the search; None for a new one. One that was stopped resumes.
        trace: Whether the operators of the two sides are compared.
    """

    request: Request
    question: Question
    out: Path | None = None
    trace: bool = True

    def argv(self) -> tuple[str, ...]:
        """The command that gives it again, without the folder."""
        question = self.question
        words = ["repro", "versions", *self.request.argv()[2:]]
        words += ["--package", question.package, "--good", question.good, "--bad", question.bad]
        words += ["--py", question.python]
        words += [word for name, version in question.pins for word in ("--with", f"{name}=={version}")]
        words += ["--runs", str(question.runs)] if question.runs > 1 else []
        words += ["--bad-from", str(question.bad_from)] if question.bad_from > 1 else []
        words += ["--all"] if question.walk_all else []
        words += ["--fault", "divergent"] if question.divergent else []
        return (*words, *([] if self.trace else ["--no-trace"]))


ASKED = ("package", "good", "bad", "pins", "py", "runs", "bad_from", "walk_all")
"""The options that ``question`` takes."""


def question(
    *,
    package: str,
    good: str,
    bad: str,
    pins: tuple[str, ...],
    py: str | None,
    runs: int,
    bad_from: int,
    walk_all: bool,
    case: Case,
    divergent: bool = False,
) -> Question:
    """The question that the options stand for.

    A script that never names Transformers is asked without it.

    Raises:
        UsageError: a name or a version is none, a pin is no ``NAME==VERSION``, the Python is no ``3.N``, or a script,
            a generation or a training is to be held against itself.
    """
    if divergent and case.is_script:
        raise UsageError(
            f"--fault divergent holds the modules of a model against each other, and {case.model} is a script: it "
            "answers by its own exit status. Leave --fault out."
        )
    if divergent and case.phase_words:
        raise UsageError(
            f"--fault divergent holds forward passes against each other, and {case.phase_words[0]} asks for more than"
            f" one. Leave --fault out to look for NaN and Inf there, or {case.phase_words[0]}."
        )
    _refuse_other_words("--package", package, "torch", NAME.fullmatch(package))
    for option, version in (("--good", good), ("--bad", bad)):
        _refuse_other_words(option, version, "2.4.1", _is_version(version))
    held = []
    for pin in pins:
        name, equals, version = pin.partition("==")
        if not equals or not name.strip() or not version.strip():
            raise UsageError(f"--with {pin}: expected NAME==VERSION, such as transformers==4.57.3.")
        _refuse_other_words(
            "--with", pin, "transformers==4.57.3", NAME.fullmatch(name.strip()) and _is_version(version)
        )
        held.append((name.strip(), version.strip()))
    python = py or ".".join(map(str, sys.version_info[:2]))
    if not re.fullmatch(r"3\.\d+", python):
        raise UsageError(f"--py {python}: expected a version such as 3.11.")
    return Question(
        package=canonicalize_name(package),
        good=good,
        bad=bad,
        python=python,
        pins=tuple(held),
        runs=runs,
        bad_from=bad_from,
        walk_all=walk_all,
        alone=case.is_script and "transformers" not in Path(case.model).read_text(encoding="utf-8", errors="replace"),
        divergent=divergent,
    )


def _refuse_other_words(option: str, given: str, example: str, fits: object) -> None:
    """These words reach uv: one that is no name or version might be an option or a path there."""
    if not fits:
        raise UsageError(
            f"{option} {given!r} is not what a package index knows. Give something like {option} {example}."
        )


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def run(search: Search, store: Store, announcer: Announcer) -> Result:
    """Search, compare the two sides, and write the answer.

    Raises:
        UsageError: the question has no answer as it is put, the folder holds something else, or another search is
            writing there.
        FetchError: the registry could not be asked for the releases.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the releases that have answered stay.
    """
    folder = paths.make(search.out or paths.run_folder(search.request.case, datetime.now(UTC), "versions"))
    words = shlex.join(["repro", "versions", search.request.named])
    try:
        with folder_held(folder, words, announcer.line):
            return _run(folder, search, store, announcer)
    except (UsageError, FetchError):
        # Nobody named the folder, and where nothing was asked yet it would only be in the way.
        if search.out is None:
            remove_unused(folder, HEADER)
        raise


def _run(folder: Path, search: Search, store: Store, announcer: Announcer) -> Result:
    inputs = seen(search.request.case)
    claim(folder / HEADER, Claim(command=search.argv(), inputs=inputs), "a search for")
    question, extra = search.question, _held_numpy(search.question)
    if extra:
        held = ", ".join(f"{name} {version}" for name, version in extra.items())
        announcer.line(f"every environment has {held}: PyTorch before {NUMPY_2} does not know NumPy 2")
    world = RealWorld(search.request, question.python, extra, folder, store, announcer)
    try:
        with terminable():
            build = functools.partial(store.build, say=announcer.line)
            convert_once(search.request, recipes(), build, world.children, folder / "conversion", announcer.line)
            found = investigate(question, world, announcer.line)
            compared = [_compare(change, world) for change in found.changes] if search.trace else []
    except KeyboardInterrupt as error:
        world.children.stop()
        again = shlex.join([*search.argv(), "--out", str(search.out or paths.relative(folder))])
        raise Stopped(143 if isinstance(error, Terminated) else 130, again) from None
    check_held_still(inputs, seen(search.request.case), folder)
    if world.built_some:
        announcer.line(disk_use(store))
    answer = _answer(search, found, extra, compared, folder)
    return Result(folder, output.write(folder, answer, whole=True))


def _held_numpy(question: Question) -> Mapping[str, str]:
    """NumPy 1 for the whole range where one of its releases of PyTorch knows no other: so that it does not move too."""
    versions = [question.good, question.bad] if question.package == "torch" else [question.held.get("torch", "")]
    try:
        old = any(Version(version) < NUMPY_2 for version in versions if version)
    except InvalidVersion:
        return {}  # the search says what is wrong with it
    return {"numpy": LAST_NUMPY_1} if old and "numpy" not in question.held else {}


def _compare(change: Change, world: RealWorld) -> Changes:
    """What is different between the operators of the two sides."""
    sides = []
    for release in (change.last_good, change.first_bad):
        traced = world.trace(release.pins, _label(release))
        if isinstance(traced, str):
            return Changes(sentence=f"The operators could not be compared: {_label(release)}: {traced}")
        sides.append(traced)
    return traces.compare(*sides)


def _label(release: Release) -> str:
    return "-".join(f"{package}-{version}" for package, version in release.pins.items())


def _answer(
    search: Search, found: Found, extra: Mapping[str, str], compared: Sequence[Changes], folder: Path
) -> Answer:
    """The run of the first bad release, with the verdict of the search."""
    shown = next((release for release in _shown(found) if release.runs and release.runs[0].folder), None)
    base = read_answer(folder / str(shown.runs[0].folder)) if shown is not None else None
    if base is None:
        base = nothing(found.verdict, search.request.case, search.argv(), __version__)
    return replace(
        base,
        verdict=found.verdict.outcome,
        reason=found.verdict.reason,
        headline=found.verdict.reason,
        command=shlex.join(search.argv()),
        versions=_versions(search.question, found, extra, compared),
    )


def _versions(question: Question, found: Found, extra: Mapping[str, str], compared: Sequence[Changes]) -> Versions:
    boundaries = tuple(map(_boundary, found.changes))
    first = boundaries[0] if boundaries else None
    return Versions(
        package=question.package,
        direction=first.direction if first else None,
        last_good=first.last_good if first else None,
        first_bad=first.first_bad if first else None,
        skipped=first.skipped if first else (),
        python=question.python,
        with_={**extra, **question.held},
        moved=first.moved if first else None,
        pairs=found.pairs,
        probes=found.probes,
        boundaries=boundaries,
        releases=len(found.pairs),
        environments=found.environments,
        notes=found.notes,
        sentence=found.verdict.reason,
        attribution=first.why if first else None,
        changes=compared[0] if compared else None,
        all_changes=tuple(compared),
    )


def _shown(found: Found) -> list[Release]:
    """The releases whose run may stand for all, the best one first."""
    bad = [change.first_bad for change in found.changes]
    return [*bad, *sorted(found.probes, key=lambda release: release.verdict.value)]


def _boundary(change: Change) -> Boundary:
    return Boundary(
        direction=change.direction,
        last_good=change.last_good.version,
        first_bad=change.first_bad.version,
        skipped=tuple(release.version for release in change.skipped),
        moved=change.moved,
        why=change.why,
        crossed=change.crossed,
    )
