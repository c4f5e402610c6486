"""The registry of steps: each line has its module, and each ablation its function."""

import importlib
import json
from pathlib import Path

import pytest

from repro.probes.model.ablations import ABLATIONS
from repro.probes.phases.ablations import OWN
from repro.probes.program.settings import SETTINGS
from repro.probes.steps import registry

FOLDER = Path(registry.__file__).parent
NAMES = [row["name"] for row in registry.every()]


@pytest.mark.parametrize("name", NAMES)
def test_each_step_has_a_module_that_runs_it(name):
    module = importlib.import_module(f"repro.probes.steps.{name.partition(':')[0]}")
    assert callable(module.run)


def test_no_module_is_without_its_line():
    modules = {path.stem for path in FOLDER.glob("[!_]*.py")} - {"registry"}
    assert modules == {name.partition(":")[0] for name in NAMES}


def test_the_ablations_are_those_of_the_kit():
    of = {"model": set(ABLATIONS) | set(OWN), "script": set(SETTINGS) - {"compile=eager", "compile=aot_eager"}}
    for subject, known in of.items():
        names = [
            row["name"]
            for row in registry.every()
            if row["name"].startswith("ablation:") and subject in row["subjects"]
        ]
        assert {name.partition(":")[2] for name in names} == known


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("environment", ["environment"]),
        ("files", ["files"]),
        ("weights", ["files", "weights"]),
        ("load", ["files", "load"]),
        ("forward", ["files", "load", "forward"]),
        ("bisect", ["files", "load", "forward", "bisect"]),
        ("ablation:threads=1", ["files", "load", "ablation:threads=1"]),
        ("reduce", ["files", "load", "forward", "bisect", "reduce"]),
    ],
)
def test_a_single_step_runs_what_it_stands_on_first(step, expected):
    assert registry.single(step, scripted=False) == expected


def test_a_module_of_a_factory_has_no_files_to_look_at_first():
    assert registry.single("bisect", scripted=False, made=True) == ["load", "forward", "bisect"]


def test_a_script_is_asked_the_step_alone():
    assert registry.single("bisect", scripted=True) == ["bisect"]


def test_what_is_announced_is_what_was_asked_for():
    (row,) = registry.announced(["load"])
    listed = next(item for item in json.loads((FOLDER / "registry.json").read_text()) if item["name"] == "load")
    assert row == {key: listed[key] for key in ("name", "question", "needs")}


class Session:
    case = {"model": "m.py"}  # noqa: RUF012 - never written to


@pytest.mark.parametrize(
    ("step", "scripted", "words"),
    [
        ("no such step", False, "there is no step 'no such step'; known: environment"),
        ("load", True, "a script has no load step"),
        ("script", False, "m.py is no script"),
    ],
)
def test_a_step_that_cannot_be_asked_is_skip_with_the_reason(step, scripted, words):
    verdict, reason, payload = registry.run(Session(), step, scripted)
    assert (verdict, payload) == ("skip", None)
    assert reason.startswith(words)
