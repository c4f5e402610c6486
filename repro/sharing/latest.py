"""The newest release of a project's package: which it is, whether a run has tried it, and trying it.

Maintainers ask first whether the fault is still there in what they would fix.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from repro.core.encoding import SCHEMA, encode
from repro.core.errors import BuildError, UsageError
from repro.core.paths import write
from repro.core.records import Cell, Recipe
from repro.environments import registry
from repro.environments.store import Announcer, Store, missing_device
from repro.reproducer.verify import verify
from repro.sharing.forms.folder import LATEST, Run, answers, chosen, latest_of, script_sha256
from repro.sharing.forms.forms import Form

RUNS = 3
"""How often the script is run there, as when it was made."""
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""The Python of a new environment: the one that runs this toolkit, so that there is one."""
ANSWERS = {0: "good", 1: "bad"}
"""What every run's exit status says; anything else, or not the same each time, says nothing."""
OWN: Mapping[str, Any] = {
    "verdict": "bad",
    "reason": "the run itself used it",
    "output": None,
    "exit_statuses": (),
    "with": {},
}
"""The answer where the newest release is that of the run's own environment."""
WHY = "Built by `repro report --try-latest` to ask the newest release."


def newest(package: str) -> str:
    """The newest release that this toolkit's own Python can install.

    Raises:
        FetchError: the registry cannot be asked.
    """
    return registry.releases(package, PYTHON)[-1]


def tried(run: Run, form: Form) -> tuple[str, ...]:
    """The releases of the form's package that gave this run an answer, oldest first: its own cell, the cells of a
    matrix, the releases of a search, and latest.json.
    """
    document, package = run.document, form.package
    found = [_installed(document, package)] if document["verdict"] == "bad" else []
    rows = [row for row in document.get("cells") or () if row["verdict"] != "skip"]
    found += [row.get(package) or _installed(row, package) for row in rows]
    probes = (document.get("versions") or {}).get("probes") or ()
    found += [probe["pins"].get(package) for probe in probes if probe["verdict"] != "skip"]
    scripts = chosen(run, form)
    latest = latest_of(run, scripts[0] if scripts else None, package)
    if latest is not None and latest["verdict"] != "skip":
        found.append(str(latest["version"]))
    return registry.ordered([str(version) for version in found if version], pre=True)


def gone(run: Run, form: Form, release: str) -> bool:
    """Whether a release has answered, and every answer from it is good."""
    rows = [row for row in run.document.get("cells") or () if row["verdict"] != "skip"]
    answers_of = [(row.get(form.package) or _installed(row, form.package), row["verdict"]) for row in rows]
    scripts = chosen(run, form)
    latest = latest_of(run, scripts[0] if scripts else None, form.package)
    answers_of += [] if latest is None else [(latest["version"], latest["verdict"])]
    said = {verdict for version, verdict in answers_of if version and same(str(version), release)}
    return said - {"skip"} == {"good"}


def same(one: str, other: str) -> bool:
    """Whether two versions are the same release, whatever local version follows."""
    try:
        return Version(one).public == Version(other).public
    except InvalidVersion:
        return one == other


def try_latest(run: Run, form: Form, store: Store, announcer: Announcer) -> Mapping[str, Any]:
    """Run the run's script in an environment with the newest release of the form's package, and write latest.json.

    Where the run itself used that release, it is the answer. A release that does not install, or a script that cannot
    be asked there, is a skip with its reason.

    Raises:
        UsageError: no verified script of the run uses the package.
        FetchError: the registry cannot be asked.
        EvidenceError: the folder cannot be written.
    """
    with announcer.task(f"releases of {form.package}"):
        version = newest(form.package)
    scripts = chosen(run, form)
    if run.document["verdict"] == "bad" and same(_installed(run.document, form.package) or "", version):
        return _keep(run, scripts[0] if scripts else None, form.package, version, OWN)
    entry = next((item for item in scripts if item.get("verified") and form.package in (item.get("needs") or ())), None)
    if entry is None:
        raise UsageError(
            f"no verified script of {run.folder} uses {form.package}, so {form.package} {version} cannot be tried with "
            f"one. Run the model again in an environment with it: {run.document['command']}"
        )
    pins = _pins(run, entry, form.package, version)
    beside = {name: held for name, held in pins.items() if name != form.package}
    return _keep(run, entry, form.package, version, {**_answer(run, entry, pins, store, announcer), "with": beside})


def _keep(
    run: Run, entry: Mapping[str, Any] | None, package: str, version: str, found: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write latest.json: this answer, and below "others" those about other packages."""
    answer = {
        "package": package,
        "version": version,
        **found,
        "script": None if entry is None else str(entry["path"]),
        "script_sha256": None if entry is None else script_sha256(run, entry),
    }
    others = [item for item in answers(run) if item["package"] != package]
    write(run.folder / LATEST, encode({"schema": SCHEMA, **answer, "others": others}, indent=1) + "\n")
    return answer


def _pins(run: Run, entry: Mapping[str, Any], package: str, version: str) -> dict[str, str]:
    """The package at its newest, and what else the script needs as it was in the run, or newest where the two do not
    go together.
    """
    pins = {package: version}
    for name in entry.get("needs") or ():
        held = (_installed(run.document, name) or "").partition("+")[0]
        if name == package:
            continue
        # What torch declares is never asked: for it pip would download the whole wheel.
        wanted = [] if package == "torch" else registry.requirements(package, version, PYTHON)
        fits = held and registry.excluding(wanted, name, held, PYTHON) is None
        pins[name] = held if fits else newest(name)
    return pins


def _answer(
    run: Run, entry: Mapping[str, Any], pins: Mapping[str, str], store: Store, announcer: Announcer
) -> dict[str, Any]:
    device = run.document["cell"].get("device") or "cpu"
    missing = missing_device(device)
    if missing is not None:
        return {"verdict": "skip", "reason": missing, "output": None, "exit_statuses": []}
    name = "-".join(["latest", *(f"{package}-{version}" for package, version in pins.items()), f"py{PYTHON}"])
    recipe = Recipe(id=name, python=PYTHON, device=device, why=WHY, pins=pins)
    try:
        cell = _standing(store, recipe) or _build(store, recipe, announcer)
    except BuildError as error:
        return {"verdict": "skip", "reason": f"it does not install: {error}", "output": None, "exit_statuses": []}
    with announcer.task(f"running {entry['path']}"):
        text = (run.folder / str(entry["path"])).read_text(encoding="utf-8")
        # One by one, because several runs in one call end with the first that does not show the fault.
        seen = [verify(cell.python, text, _arguments(run, entry), runs=1) for _ in range(RUNS)]
    statuses = [item.exit_statuses[0] for item in seen]
    verdict = ANSWERS.get(statuses[0], "skip") if statuses[0] is not None else "skip"
    reason = f"run {RUNS} times in a clean interpreter, each time with exit status {statuses[0]}"
    if len(set(statuses)) > 1:
        verdict, reason = "skip", f"{RUNS} runs did not agree: {', '.join(map(str, statuses))}"
    elif verdict == "skip":
        reason = seen[-1].reason
    return {"verdict": verdict, "reason": reason, "output": seen[-1].output, "exit_statuses": statuses}


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
        return store.build(recipe, progress)


def _arguments(run: Run, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a script that reads the checkpoint finds it; a Hub id stands in the script itself."""
    if entry.get("argv"):
        return tuple(map(str, entry["argv"]))
    model = str(run.document["model"]["id"])
    return (model,) if entry.get("checkpoint") and Path(model).is_absolute() else ()


def _installed(found: Mapping[str, Any], package: str) -> str | None:
    """The version of a package in a run's or a row's environment."""
    environment = found.get("environment") or {}
    known = {**(environment.get("packages") or {}), **(environment.get("distributions") or {})}
    version = known.get(package) or (found.get("cell") or {}).get(package)
    return None if version is None else str(version)
