"""The JSON Schema of verdict.json, and the watch over every verdict.json that a test makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support import verdicts
from support.hosting import ROOT
from support.injected_run import change, run_folder

from repro.cli import main
from repro.core.answer import json_schema
from repro.core.encoding import encode, to_json


def test_repro_schema_prints_it(capsys):
    assert main.main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(encode(json_schema()))
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in printed
    Draft202012Validator.check_schema(printed)


def test_every_part_says_what_it_is():
    schema = json_schema()
    assert [name for name, part in schema["$defs"].items() if not part.get("description")] == []
    assert not [part for part in schema["$defs"].values() if "\n    " in part["description"]]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({}, None),
        ({"more": 1}, "$"),  # allowed to a reader, and not to a test
        ({"schema": 1}, "$.schema"),
        ({"verdict": "worse"}, "$.verdict"),
        ({"origin": {"limit": "much"}}, "$.origin.limit"),
        ({"steps": [{"step": "load"}]}, "$.steps[0]"),
        ({"model": {"id": "m", "size": 3}}, "$.model"),
    ],
)
@pytest.mark.wrong_verdicts
def test_what_does_not_fit_is_named(tmp_path, changed, place):
    change(run_folder(tmp_path), **changed)
    problems = list(verdicts.found_below(tmp_path))
    assert [f": {place}: " in line for line in problems] == ([] if place is None else [True])
    assert list(verdicts.found_below(tmp_path)) == []  # a file is looked at once


TEST = """
def test_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "verdict.json").write_text('{}')
"""


@pytest.mark.parametrize(("key", "status"), [("reason", 0), ("reasons", 1)])
def test_a_test_fails_that_makes_a_wrong_one(tmp_path, key, status):
    whole = {"schema": 2, "verdict": "good", "model": {"id": "m"}, "cell": {}, "case": {"model": "m"}, key: "r"}
    (tmp_path / "test_it.py").write_text(TEST.replace("{}", json.dumps(whole)))
    options = ["-q", "-p", "support.verdicts", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-o", "addopts="]
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == status, ran.stdout
    assert ("$: 'reason' is a required property" in ran.stdout) == (status == 1)


def test_a_key_without_a_value_is_written_too():
    """So that a reader of one verdict.json sees every key there is."""
    from support.injected_run import verdict

    assert set(to_json(verdict())) == set(json_schema()["properties"])
