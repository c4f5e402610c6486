"""What the search for a version needs from outside: releases from the registry, environments, and runs in them."""

import dataclasses
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from repro.core.encoding import replace
from repro.core.errors import BuildError
from repro.core.paths import relative
from repro.core.payloads import Trace
from repro.core.records import Case, Cell, Outcome, Recipe
from repro.core.sweep_answers import ReleaseRun
from repro.diagnosis.sections import section
from repro.engine.evidence import Evidence
from repro.engine.kit import NAME as KIT
from repro.engine.runner import PLAN
from repro.environments import registry
from repro.environments.store import Announcer, Store
from repro.run.child import Children
from repro.run.run import Request

REFERENCE, TRACE = "reference", "reference-trace"
"""The run whose numbers every release is held against, and these."""


class RealWorld:
    """``World`` on this machine, for one question.

    Args:
        request: The run that every release is asked for.
        python: The Python of every environment, such as "3.11".
        extra: Packages that every environment has beside those of the question, at exact versions.
        folder: Of the search; each run has its own below it.
        store: Where environments are built.
        announcer: Is told what happens.
    """

    def __init__(
        self, request: Request, python: str, extra: Mapping[str, str], folder: Path, store: Store, announcer: Announcer
    ) -> None:
        self._request, self._python, self._extra = request, python, dict(extra)
        self._folder, self._store, self._announcer = folder, store, announcer
        self.children = Children()
        self.built_some = False
        self._reference: Mapping[str, str] | None = None
        self._recorded = False

    def hold(self, pins: Mapping[str, str]) -> None:
        """As ``World`` says. It is recorded with the first probe."""
        self._reference = dict(pins)

    def releases(self, package: str) -> tuple[str, ...]:
        """As ``World`` says."""
        with self._announcer.task(f"releases of {package}"):
            return registry.releases(package, self._python)

    def requirements(self, package: str, version: str) -> tuple[str, ...]:
        """As ``World`` says."""
        return registry.requirements(package, version, self._python)

    def probe(self, pins: Mapping[str, str], label: str) -> ReleaseRun:
        """As ``World`` says."""
        begin = time.monotonic()
        request = self._request
        if self._reference is not None:
            missing = self._record(self._reference)
            if missing is not None:
                return replace(missing, seconds=time.monotonic() - begin)
            request = self._against("held")
        try:
            cell = self._build(pins)
        except BuildError as error:
            return ReleaseRun(
                verdict=Outcome.SKIP,
                reason=f"it does not install: {error}",
                command=self._install(pins),
                seconds=time.monotonic() - begin,
            )
        place = Path("probes", label)
        with self._announcer.task(f"asking {label}"):
            ran = self.children.ask(request, cell, self._folder / place, aloud=False)
        answer = ran.answer
        return ReleaseRun(
            verdict=Outcome.SKIP if answer is None else answer.verdict,
            reason=str(ran.reason) if answer is None else answer.reason,
            command=self._command(pins, place) if self._reference is None else _beside(request, cell),
            kind=None if answer is None else answer.kind,
            folder=str(place),
            seconds=time.monotonic() - begin,
        )

    def trace(self, pins: Mapping[str, str], label: str) -> Trace | str:
        """Every operator of the pass in the environment of these pins; a sentence where there is no such record."""
        folder = self._folder / "traces" / label
        try:
            cell = self._build(pins)
        except BuildError as error:
            return str(error)
        with self._announcer.task(f"tracing {label}"):
            ran = self.children.ask(dataclasses.replace(self._request, command="trace"), cell, folder, aloud=False)
        observed = {seen.step: seen for seen in Evidence(folder).observations}
        traced = observed.get("trace")
        if traced is None or not (traced.payload or {}).get("rows"):
            reasons = [seen.verdict.reason for seen in observed.values() if seen.verdict.outcome is Outcome.SKIP]
            return ran.reason or "; ".join(reasons) or "the trace step gave nothing"
        return section(observed, "trace", Trace) or "the trace step gave nothing"

    def _record(self, pins: Mapping[str, str]) -> ReleaseRun | None:
        """The recording that every release is held against, made once; None where it is there, else the skip."""
        if self._recorded:
            return None
        try:
            cell = self._build(pins)
        except BuildError as error:
            reason = f"what it is held against does not install: {error}"
            return ReleaseRun(verdict=Outcome.SKIP, reason=reason, command=self._install(pins))
        request = self._against("record")
        with self._announcer.task("recording what every release is held against"):
            ran = self.children.ask(request, cell, self._folder / REFERENCE, aloud=False)
        answer = ran.answer
        self._recorded = answer is not None and answer.verdict is Outcome.GOOD
        if self._recorded:
            return None
        reason = f"what it is held against was not recorded: {ran.reason if answer is None else answer.reason}"
        return ReleaseRun(verdict=Outcome.SKIP, reason=reason, command=_beside(request, cell))

    def _against(self, kind: str) -> Request:
        return dataclasses.replace(self._request, extra=("--against", f"{kind}:{(self._folder / TRACE).absolute()}"))

    def _build(self, pins: Mapping[str, str]) -> Cell:
        recipe = self._recipe(pins)
        cell = self._store.built(recipe)
        if cell is not None:
            return cell
        self.built_some = True
        with self._announcer.task(f"building {recipe.id}") as progress:
            return self._store.build(recipe, progress, self._announcer.line)

    def _recipe(self, pins: Mapping[str, str]) -> Recipe:
        every = {**self._extra, **pins}
        name = "-".join([f"{package}-{version}" for package, version in every.items()] + [f"py{self._python}"])
        why = "Built by `repro versions` to ask one release."
        return Recipe(id=name, python=self._python, device=self._request.case.device or "cpu", why=why, pins=every)

    def _install(self, pins: Mapping[str, str]) -> str:
        """The command that shows that it does not install."""
        return shlex.join(["uv", "run", "--no-project", *self._environment(pins), "--", "python", "-V"])

    def _command(self, pins: Mapping[str, str], place: Path) -> str:
        """The command that asks this release again, from the current folder, with uv and the folder of the search."""
        case, run = self._request.case, relative(self._folder / place)
        model = [self._request.model] if self._request.model else []
        if case.is_script:
            asked = ["python", self._request.model]
        elif case.config is None:
            asked = ["python", str(run / KIT), case.phase, *model, *_kit_options(case)]
        else:  # a shipped configuration: the kit by itself knows none
            asked = ["python", str(run / KIT), "run", str(run / PLAN)]
        return shlex.join(["uv", "run", "--no-project", *self._environment(pins), "--", *asked])

    def _environment(self, pins: Mapping[str, str]) -> list[str]:
        every = {**self._extra, **pins}
        named = [word for package, version in every.items() for word in ("--with", f"{package}=={version}")]
        return ["--python", self._python, *named]


def _beside(request: Request, cell: Cell) -> str:
    """The command that asks this again with the same recording, on this machine."""
    return shlex.join(dataclasses.replace(request, python=cell.python, out=None).argv())


def _kit_options(case: Case) -> list[str]:
    """The case in the words of the kit's own command line."""
    named = {"--factory": case.factory, "--device": case.device, "--dtype": case.dtype, "--attn": case.attn}
    if case.weights.startswith("random"):
        named["--weights"] = case.weights
    words = [word for option, value in named.items() if value is not None for word in (option, value)]
    words += case.phase_words
    words += [word for option, path in case.given.items() for word in (option, path)]
    words += [word for prompt in case.prompts for word in ("--prompt", prompt)]
    return words + (["--trust-remote-code"] if case.trust_remote_code else [])
