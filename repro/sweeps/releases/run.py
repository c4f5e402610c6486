"""The search for a version from a request to verdict.json and report.md. Reads top to bottom as a list of steps."""

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from repro import __version__
from repro.core import paths
from repro.core.encoding import to_json
from repro.core.errors import FetchError, Stopped, UsageError
from repro.core.records import Case
from repro.environments.cells import recipes
from repro.environments.store import Announcer, Store, disk_use
from repro.run import output
from repro.run.conversion import convert_once
from repro.run.run import Request, Result, Terminated, terminable
from repro.sweeps import traces
from repro.sweeps.matrix.join import nothing, read_document
from repro.sweeps.releases import Answer, Change, Probe, Question, investigate
from repro.sweeps.releases.world import RealLaboratory

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
        out: The folder of the search; None for a new one. One that was stopped goes on.
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
) -> Question:
    """The question that the options stand for.

    A script that never names Transformers is asked without it.

    Raises:
        UsageError: a pin is no ``NAME==VERSION``, or the Python is no ``3.N``.
    """
    held = []
    for pin in pins:
        name, equals, version = pin.partition("==")
        if not equals or not name.strip() or not version.strip():
            raise UsageError(f"--with {pin}: expected NAME==VERSION, such as transformers==4.57.3.")
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
    )


def run(search: Search, store: Store, announcer: Announcer) -> Result:
    """Search, compare the two sides, and write the answer.

    Raises:
        UsageError: the question has no answer as it is put, or the folder holds something else.
        FetchError: the registry could not be asked for the releases.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the releases that have answered stay.
    """
    folder = paths.make(search.out or paths.run_folder(search.request.case, datetime.now(UTC), "versions"))
    paths.claim(folder / HEADER, search.argv(), "a search for")
    question, extra = search.question, _held_numpy(search.question)
    if extra:
        held = ", ".join(f"{name} {version}" for name, version in extra.items())
        announcer.line(f"every environment has {held}: PyTorch before {NUMPY_2} does not know NumPy 2")
    laboratory = RealLaboratory(search.request, question.python, extra, folder, store, announcer)
    try:
        with terminable():
            convert_once(
                search.request, recipes(), store.build, laboratory.children, folder / "conversion", announcer.line
            )
            answer = investigate(question, laboratory, announcer.line)
            compared = [_compare(change, laboratory) for change in answer.boundaries] if search.trace else []
    except (UsageError, FetchError):
        # Nobody named the folder, and where nothing was asked yet it would only be in the way.
        if search.out is None and [path.name for path in folder.iterdir()] == [HEADER]:
            shutil.rmtree(folder)
        raise
    except KeyboardInterrupt as error:
        laboratory.children.stop()
        again = shlex.join([*search.argv(), "--out", str(search.out or paths.relative(folder))])
        raise Stopped(143 if isinstance(error, Terminated) else 130, again) from None
    if laboratory.built_some:
        announcer.line(disk_use(store))
    content = _content(search, answer, extra, compared, folder)
    return Result(folder, output.write(folder, content, whole=True))


def _held_numpy(question: Question) -> Mapping[str, str]:
    """NumPy 1 for the whole range where one of its releases of PyTorch knows no other: so that it does not move too."""
    versions = [question.good, question.bad] if question.package == "torch" else [question.held.get("torch", "")]
    try:
        old = any(Version(version) < NUMPY_2 for version in versions if version)
    except InvalidVersion:
        return {}  # the search says what is wrong with it
    return {"numpy": LAST_NUMPY_1} if old and "numpy" not in question.held else {}


def _compare(change: Change, laboratory: RealLaboratory) -> dict[str, Any]:
    """What is different between the operators of the two sides."""
    sides = {}
    for name, probe in (("good", change.last_good), ("bad", change.first_bad)):
        traced = laboratory.trace(probe.pins, _label(probe))
        if isinstance(traced, str):
            return {"sentence": f"The operators could not be compared: {_label(probe)}: {traced}"}
        sides[name] = traced
    found = traces.compare(sides["good"], sides["bad"])
    return {**to_json(found), "sentence": traces.sentence(found)}


def _label(probe: Probe) -> str:
    return "-".join(f"{package}-{version}" for package, version in probe.pins.items())


def _content(
    search: Search, answer: Answer, extra: Mapping[str, str], compared: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """The content of verdict.json: the run of the first bad release, with the verdict of the search."""
    shown = next((probe for probe in _shown(answer) if probe.trials and probe.trials[0].folder), None)
    base = read_document(folder / str(shown.trials[0].folder)) if shown is not None else None
    if base is None:
        base = nothing(answer.verdict, search.request.case, search.argv(), __version__)
    return {
        **base,
        "verdict": answer.verdict.outcome.value,
        "reason": answer.verdict.reason,
        "headline": answer.verdict.reason,
        "command": shlex.join(search.argv()),
        "versions": {
            "package": answer.package,
            "direction": answer.direction,
            "last_good": answer.last_good,
            "first_bad": answer.first_bad,
            "skipped": list(answer.skipped),
            "python": search.question.python,
            "with": {**extra, **search.question.held},
            "moved": answer.moved,
            "pairs": [list(pair) for pair in answer.pairs],
            "probes": [_probe(probe) for probe in answer.probes],
            "boundaries": [_boundary(change) for change in answer.boundaries],
            "releases": answer.releases,
            "environments": answer.environments,
            "notes": list(answer.notes),
            "sentence": answer.verdict.reason,
            "attribution": answer.boundaries[0].why if answer.boundaries else None,
            "changes": compared[0] if compared else None,
            "all_changes": compared,
        },
    }


def _shown(answer: Answer) -> list[Probe]:
    """The probes whose run may stand for all, the best one first."""
    bad = [change.first_bad for change in answer.boundaries]
    return [*bad, *sorted(answer.probes, key=lambda probe: probe.verdict.outcome.value)]


def _probe(probe: Probe) -> dict[str, Any]:
    return {
        "version": probe.version,
        "pins": dict(probe.pins),
        "verdict": probe.verdict.outcome.value,
        "reason": probe.verdict.reason,
        "kind": probe.kind,
        "votes": probe.votes if len(probe.trials) > 1 else None,
        "command": probe.command,
        "runs": [dataclasses.asdict(trial) | {"verdict": to_json(trial.verdict)} for trial in probe.trials],
    }


def _boundary(change: Change) -> dict[str, Any]:
    return {
        "direction": change.direction,
        "last_good": change.last_good.version,
        "first_bad": change.first_bad.version,
        "skipped": [probe.version for probe in change.skipped],
        "moved": change.moved,
        "why": change.why,
        "crossed": [_probe(probe) for probe in change.crossed],
    }
