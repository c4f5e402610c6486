"""A .gguf file is converted once: which cell is asked, and when none is."""

import hashlib

import pytest
from support.hosting import OPTIONS, recipe

from repro.cli.options import request_from
from repro.core.errors import BuildError
from repro.core.records import Cell
from repro.run.conversion import convert_once

ABLE = recipe("able", pins={"torch": "2.13.0", "transformers": "5.23.0", "gguf": "0.19.0"})


class Children:
    def __init__(self):
        self.asked = []

    def ask(self, request, cell, folder, *, aloud):
        self.asked.append((request.command, cell.python, folder.name))


@pytest.fixture
def converting(tmp_path, monkeypatch):
    """(what was asked of which cell, what was said) for a model file of this name."""
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / "cache"))

    def run(*recipes, name="model.gguf", build=lambda recipe: Cell(recipe.id)):
        (tmp_path / name).write_bytes(b"GGUF")
        children, said = Children(), []
        request = request_from("forward", {**OPTIONS, "model": str(tmp_path / name)})
        convert_once(request, recipes, build, children, tmp_path / "conversion", said.append)
        return children.asked, said

    return run


def test_the_first_cell_that_can_is_asked(converting):
    asked, said = converting(recipe("a"), ABLE)
    assert asked == [("weights", "able", "conversion")]
    assert said == ["model.gguf is converted once, in cell able"]


def test_a_conversion_that_is_there_is_not_made_again(converting, tmp_path):
    """Where the kit puts it: probes/convert.py, under the file's SHA-256."""
    place = tmp_path / "cache" / "gguf" / hashlib.sha256(b"GGUF").hexdigest()
    place.mkdir(parents=True)
    (place / "converted.json").write_text("{}")
    assert converting(ABLE) == ([], [])


def test_where_no_cell_can_nothing_is_asked(converting):
    assert converting(recipe("a")) == ([], [])


def test_a_script_is_no_model_to_convert(converting):
    assert converting(ABLE, name="asks.py") == ([], [])


def test_a_cell_that_cannot_be_built_is_left_to_those_that_are_asked(converting):
    def broken(recipe):
        raise BuildError("no Python 3.11")

    assert converting(ABLE, build=broken)[0] == []
