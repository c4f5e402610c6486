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
def verdicts_fit_the_schema(request, tmp_path_factory):
    """Look at every verdict.json below the folders that the test's fixtures are."""
    yield
    if request.node.get_closest_marker("wrong_verdicts"):
        return
    base = tmp_path_factory.getbasetemp()
    given = {value for value in request.node.funcargs.values() if isinstance(value, Path)}
    folders = {value for value in given if value.is_relative_to(base) and value.is_dir()}
    outermost = [folder for folder in folders if not folders & set(folder.parents)]
    problems = [line for folder in outermost for line in found_below(folder)]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


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
    from jsonschema.exceptions import best_match

    # The innermost reason: of a part that may be null, what is wrong in it, not that it is not null.
    found = [best_match([error]) for error in _validator().iter_errors(data)]
    return [f"{path}: {error.json_path}: {error.message[:300]}" for error in found]


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
