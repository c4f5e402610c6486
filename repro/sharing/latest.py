"""The newest release of a project's package: which it is, whether a run has tried it, and trying it.

Maintainers ask first whether the fault is still there in what they would fix.
"""

import platform
from pathlib import Path

from packaging.version import InvalidVersion, Version

from repro.core.answer import CellInfo, ScriptRecord
from repro.core.encoding import encode, replace
from repro.core.errors import BuildError, UsageError
from repro.core.paths import sha256, write
from repro.core.payloads import Environment
from repro.core.records import Cell, Outcome, Recipe
from repro.core.sweep_answers import CellRow
from repro.environments import registry
from repro.environments.store import Announcer, Store, missing_device
from repro.reproducer.verify import verify
from repro.sharing.forms.folder import Run, chosen, latest_of, script_path
from repro.sharing.forms.forms import Form
from repro.sharing.tried import NAME, Latest, Tried, answers

RUNS = 3
"""How often the script is run there, as when it was made."""
SECONDS = 300.0
"""What a run of it may take there: a script that a maintainer has to wait longer for is none."""
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""The Python of a new environment: the one that runs this toolkit, so that there is one."""
OUTCOMES: dict[int | None, Outcome] = {0: Outcome.GOOD, 1: Outcome.BAD}
"""What every run's exit status says; anything else, or not the same each time, says nothing."""
WHY = "Built by `repro report --try-latest` to test the newest release."


def newest(package: str) -> str:
    """The newest release that this toolkit's own Python can install.

    Raises:
        FetchError: the registry cannot be asked.
    """
    return registry.releases(package, PYTHON)[-1]


def tried(run: Run, form: Form) -> dict[str, set[Outcome]]:
    """The releases of the form's package that gave this run an answer, oldest first, and their answers: those of the
    run's own environment where it is bad, of the cells of a matrix, of the releases of a search, and of latest.json.
    """
    answer, latest = run.answer, latest_of(run, form)
    found: list[tuple[str | None, Outcome]] = []
    if answer.verdict is Outcome.BAD:
        found.append((_own(run, form.package), Outcome.BAD))
    found += [(_installed(row.environment, row, form.package), row.verdict) for row in answer.cells or ()]
    found += [
        (item.pins.get(form.package), item.verdict) for item in (answer.versions.probes if answer.versions else ())
    ]
    found += [(latest.version, latest.verdict)] if latest else []
    known = [(version, verdict) for version, verdict in found if version and verdict is not Outcome.SKIP]
    ordered = registry.ordered([version for version, _ in known], pre=True)
    return {release: {verdict for version, verdict in known if same(version, release)} for release in ordered}


def same(one: str, other: str) -> bool:
    """Whether two versions are the same release, whatever local version follows."""
    try:
        return Version(one).public == Version(other).public
    except InvalidVersion:
        return one == other


def try_latest(run: Run, form: Form, store: Store, announcer: Announcer) -> Tried:
    """Run the run's script in an environment with the newest release of the form's package, and write latest.json.

    Where the run itself used that release, it is the answer. A release that does not install, or a script that cannot
    be run there, is a skip with its reason.

    Raises:
        UsageError: no verified script of the run uses the package.
        FetchError: the registry cannot be asked.
        RecordError: there is a latest.json that cannot be read.
        EvidenceError: the folder cannot be written.
    """
    package, scripts = form.package, chosen(run, form)
    with announcer.task(f"releases of {package}"):
        version = newest(package)
    if run.answer.verdict is Outcome.BAD and same(_own(run, package) or "", version):
        own = Tried(package=package, version=version, verdict=Outcome.BAD, reason="the run itself used it")
        return _keep(run, scripts[0] if scripts else None, own)
    script = next((item for item in scripts if item.verified and package in item.needs), None)
    if script is None:
        raise UsageError(
            f"no verified script of {run.folder} uses {package}, so {package} {version} cannot be tried with one. Run "
            f"the model again in an environment with it: {run.answer.command}"
        )
    pins = _pins(run, script, package, version)
    beside = {name: held for name, held in pins.items() if name != package}
    return _keep(run, script, replace(_ask(run, script, pins, package, store, announcer), with_=beside))


def _keep(run: Run, script: ScriptRecord | None, found: Tried) -> Tried:
    """Write latest.json: this answer, and those about other packages."""
    if script is not None:
        found = replace(found, script=script.path, script_sha256=sha256(script_path(run, script)))
    others = tuple(item for item in answers(run.folder) if item.package != found.package)
    values = {name: getattr(found, name) for name in Tried.__struct_fields__}
    write(run.folder / NAME, encode(Latest(**values, others=others), indent=1) + "\n")
    return found


def _pins(run: Run, script: ScriptRecord, package: str, version: str) -> dict[str, str]:
    """The package at its newest, and what else the script needs as it was in the run, or newest where the two do not
    go together.
    """
    pins = {package: version}
    for name in script.needs:
        held = (_own(run, name) or "").partition("+")[0]
        if name == package:
            continue
        # What torch declares is never asked: for it pip would download the whole wheel.
        wanted = [] if package == "torch" else registry.requirements(package, version, PYTHON)
        fits = held and registry.excluding(wanted, name, held, PYTHON) is None
        pins[name] = held if fits else newest(name)
    return pins


def _ask(
    run: Run, script: ScriptRecord, pins: dict[str, str], package: str, store: Store, announcer: Announcer
) -> Tried:
    """What the script gives where these releases are installed."""
    found = Tried(package=package, version=pins[package], verdict=Outcome.SKIP, reason="")
    device = run.answer.cell.device or "cpu"
    missing = missing_device(device)
    if missing is not None:
        return replace(found, reason=missing)
    name = "-".join(["latest", *(f"{package}-{version}" for package, version in pins.items()), f"py{PYTHON}"])
    recipe = Recipe(id=name, python=PYTHON, device=device, why=WHY, pins=pins)
    try:
        cell = _standing(store, recipe) or _build(store, recipe, announcer)
    except BuildError as error:
        return replace(found, reason=f"it does not install: {error}")
    with announcer.task(f"running {script.path}"):
        text = script_path(run, script).read_text(encoding="utf-8")
        # One by one, because several runs in one call end with the first that does not show the fault.
        seen = [
            verify(cell.python, text, _arguments(run, script), runs=1, timeout_seconds=SECONDS) for _ in range(RUNS)
        ]
    statuses = tuple(item.exit_statuses[0] for item in seen)
    if len(set(statuses)) > 1:
        verdict, reason = Outcome.SKIP, f"{RUNS} runs did not agree: {', '.join(map(str, statuses))}"
    elif statuses[0] in OUTCOMES:
        verdict = OUTCOMES[statuses[0]]
        reason = f"run {RUNS} times in a clean interpreter, each time with exit status {statuses[0]}"
    else:
        verdict, reason = Outcome.SKIP, seen[-1].reason
    return replace(found, verdict=verdict, reason=reason, output=seen[-1].output, exit_statuses=statuses)


def _standing(store: Store, recipe: Recipe) -> Cell | None:
    """A cell that is built already and has these releases, whatever else it has."""
    for item in store.standing():
        had = item.recipe
        alike = all(same(had.pins.get(name, ""), version) for name, version in recipe.pins.items())
        if alike and had.device == recipe.device:
            return store.built(had)
    return None


def _build(store: Store, recipe: Recipe, announcer: Announcer) -> Cell:
    with announcer.task(f"building {recipe.id}") as progress:
        return store.build(recipe, progress, announcer.line)


def _arguments(run: Run, script: ScriptRecord) -> tuple[str, ...]:
    """Where a script that reads the checkpoint finds it; a Hub id stands in the script itself."""
    model = run.answer.model.id
    return (model,) if script.checkpoint and Path(model).is_absolute() else ()


def _own(run: Run, package: str) -> str | None:
    """The version of a package that the run itself used."""
    return _installed(run.answer.environment, run.answer.cell, package)


def _installed(environment: Environment | None, cell: CellInfo | CellRow, package: str) -> str | None:
    """The version of a package in an environment, as it was recorded there or is said of its cell."""
    found = environment or Environment()
    known = {"torch": cell.torch, "transformers": cell.transformers, **found.packages, **found.distributions}
    return known.get(package)
