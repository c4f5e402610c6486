"""Every verdict.json that a test makes is held against the JSON Schema that ``repro schema`` prints.

Stricter than the schema: a key that it does not name is an error too, so that no part of an answer is without a record.
Tests that write a wrong one on purpose carry the marker ``wrong_verdicts``.
"""

import functools
import json
from pathlib import Path

import pytest

KNOWN = {}
"""The files that were looked at, with their time of change and size."""


@pytest.fixture(autouse=True)
def verdicts_fit_the_schema(request):
    """Look at every verdict.json below the folders that the test was given."""
    yield
    if request.node.get_closest_marker("wrong_verdicts"):
        return
    problems = [line for folder in _folders(request.node.funcargs.values()) for line in found_below(folder)]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def _folders(values):
    """Those among the values of a test's fixtures that lie where pytest makes folders, and no other folder's parts."""
    root = Path(pytest_root())
    found = {value for value in values if isinstance(value, Path) and value.is_relative_to(root) and value.is_dir()}
    return [folder for folder in found if not found & set(folder.parents)]


@functools.cache
def pytest_root():
    import tempfile

    return Path(tempfile.gettempdir()).resolve()


def found_below(folder):
    """One line for each thing that is wrong in a file that was not looked at before."""
    for path in sorted(folder.rglob("verdict.json")):
        state = path.stat().st_mtime_ns, path.stat().st_size
        if KNOWN.get(path) != state:
            KNOWN[path] = state
            yield from problems_of(path)


def problems_of(path):
    """One line for each thing that is wrong in a file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"{path}: no JSON: {error}"]
    return [f"{path}: {error.json_path}: {error.message[:300]}" for error in _validator().iter_errors(data)]


@functools.cache
def _validator():
    from jsonschema import Draft202012Validator

    from repro.core.answer import json_schema

    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
