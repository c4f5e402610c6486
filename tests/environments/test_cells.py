"""Recipes are read strictly, and errors name file and key."""

import sys
from pathlib import Path

import pytest

from repro.core.errors import UsageError
from repro.environments.cells import cell_from, chosen, read_recipe, recipes, recipes_folder

RECIPE = """python = "3.11"
device = "cpu"
why = "One sentence."

[pins]
torch = "2.4.1"
transformers = "4.57.3"
"""


def written(folder, text=RECIPE, name="cell"):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_has_the_name_of_its_file_and_the_lock_beside_it(tmp_path):
    (tmp_path / "cell.txt").write_text("torch==2.4.1\n")
    recipe = read_recipe(written(tmp_path))
    assert (recipe.id, recipe.lock) == ("cell", str(tmp_path / "cell.txt"))
    assert recipe.words == "Python 3.11, torch 2.4.1, transformers 4.57.3"


def test_the_lock_of_a_relative_folder_is_found_from_another_one(tmp_path, monkeypatch):
    written(tmp_path)
    (tmp_path / "cell.txt").write_text("torch==2.4.1\n")
    monkeypatch.chdir(tmp_path)
    (recipe,) = recipes(Path())
    assert recipe.lock == str(tmp_path / "cell.txt")


def test_a_recipe_without_a_lock_has_none(tmp_path):
    assert read_recipe(written(tmp_path)).lock is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("why", "wye", "'why' must be of type str, got None"),
        ("[pins]", 'index = "x"\n[pins]', "unknown key 'index'; known: python, device, why, pins"),
        ('device = "cpu"\n', "", "'device' must be of type str, got None"),
        ('"cpu"', "1", "'device' must be of type str, got 1"),
        ('"cpu"', '"tpu"', "'device' must be one of cpu, cuda, mps, got 'tpu'"),
        ('"3.11"', '">=3.11"', "'python' must be a version such as '3.11', got '>=3.11'"),
        ('transformers = "4', 'transformers = ">=4', "pins.transformers must be one exact version, got '>=4.57.3'"),
        ('"2.4.1"', "2.4", "pins.torch must be one exact version, got 2.4"),
        ('torch = "2.4.1"\n', "", "pins.torch is missing; a cell pins torch and transformers"),
        ("[pins]", "[pins", "cannot be read as TOML"),
    ],
)
def test_a_recipe_that_is_not_right_is_refused_with_file_and_key(tmp_path, old, new, message):
    path = written(tmp_path, RECIPE.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_recipes_come_in_order_of_their_ids(tmp_path):
    for name in ("b", "a-cuda", "a"):
        written(tmp_path, name=name)
    assert [recipe.id for recipe in recipes(tmp_path)] == ["a", "a-cuda", "b"]


def test_chosen_keeps_the_order_of_the_recipes_and_takes_all_without_a_name(tmp_path):
    for name in "abc":
        written(tmp_path, name=name)
    known = recipes(tmp_path)
    assert [recipe.id for recipe in chosen(known, ["c", "a"])] == ["a", "c"]
    assert chosen(known, []) == known


def test_a_cell_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    written(tmp_path, name="a")
    with pytest.raises(UsageError, match=r"no cell 'x'\. Cells: a\."):
        chosen(recipes(tmp_path), ["x"])


def test_the_shipped_recipes_are_found_and_each_has_its_lock():
    found = recipes()
    assert recipes_folder().name == "envs"
    assert all(recipe.lock is not None for recipe in found)


def test_the_cell_without_an_argument_is_this_interpreter():
    assert cell_from(None).python == sys.executable


def test_a_folder_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no recipe of a cell \(ID\.toml\)"):
        recipes(tmp_path)
