"""Cells: the interpreter that an argument names, and the recipes under ``envs/``, read strictly."""

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from repro.core.errors import UsageError
from repro.core.foreign import read_foreign
from repro.core.records import Cell, Recipe

DEVICES = ("cpu", "cuda", "mps")
KEYS: dict[str, type] = {"python": str, "device": str, "why": str, "pins": dict}
NEEDED = ("torch", "transformers")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""A package's name, by the names specification of PyPA. Names reach uv, where any other word might be an option."""
EXACT = re.compile(r"[0-9][0-9A-Za-z.+!]*")
"""One exact version: no operator, no wildcard."""


def cell_from(python: str | None) -> Cell:
    """The cell of an interpreter: its path or its name; None is the interpreter that runs this toolkit.

    A link is kept as it is, because a virtual environment's interpreter is known by its own path.

    Raises:
        UsageError: there is no such program.
    """
    if python is None:
        return Cell(sys.executable)
    if not python.strip():
        raise UsageError("--python is empty. Give the path of an interpreter, or leave the option out for this one.")
    if Path(python).is_dir():
        raise UsageError(
            f"--python {python} is a folder. Give the interpreter itself, such as {Path(python) / 'bin' / 'python'}."
        )
    # As a shell does: a name is looked for on the PATH, anything with a slash is a path.
    found = shutil.which(python if Path(python).name == python else Path(python).expanduser().absolute())
    if found is None:
        raise UsageError(
            f"--python {python}: no such program. Give the path of the Python that has torch and transformers."
        )
    return Cell(os.path.abspath(found))


def recipes_folder() -> Path:
    """``envs/`` beside this module (in a wheel), or at the top of the repository."""
    inside = Path(__file__).parents[1] / "envs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "envs"


def read_recipe(path: Path) -> Recipe:
    """One recipe; its id is the stem of the file, and its lock the .txt file beside it.

    Raises:
        UsageError: naming file and key, for what is unknown, missing, of another type or no exact version.
    """
    try:
        data = tomllib.loads(read_foreign(path).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}.") from None
    for key in sorted(data.keys() | KEYS.keys()):
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key {key!r}; known: {', '.join(KEYS)}.")
        if not isinstance(data.get(key), KEYS[key]):
            raise UsageError(f"{path}: {key!r} must be of type {KEYS[key].__name__}, got {data.get(key)!r}.")
    if data["device"] not in DEVICES:
        raise UsageError(f"{path}: 'device' must be one of {', '.join(DEVICES)}, got {data['device']!r}.")
    if not re.fullmatch(r"3\.\d+", data["python"]):
        raise UsageError(f"{path}: 'python' must be a version such as '3.11', got {data['python']!r}.")
    for package, version in data["pins"].items():
        if not NAME.fullmatch(package):
            raise UsageError(f"{path}: pins has {package!r}, which is no name of a package.")
        if not isinstance(version, str) or not EXACT.fullmatch(version):
            raise UsageError(f"{path}: pins.{package} must be one exact version, got {version!r}.")
    for package in NEEDED:
        if package not in data["pins"]:
            raise UsageError(f"{path}: pins.{package} is missing; a cell pins {' and '.join(NEEDED)}.")
    lock = path.with_suffix(".txt").absolute()  # it is read from other folders
    return Recipe(id=path.stem, lock=str(lock) if lock.is_file() else None, **data)


def recipes(folder: Path | None = None) -> tuple[Recipe, ...]:
    """Every recipe of a folder, by default of the shipped one, in order of their ids.

    Raises:
        UsageError: there is none, or one of them cannot be used.
    """
    place = folder or recipes_folder()
    paths = sorted(place.glob("*.toml"), key=lambda path: path.stem)
    if not paths:
        raise UsageError(f"{place} holds no recipe of a cell (ID.toml).")
    return tuple(read_recipe(path) for path in paths)


def chosen(known: Sequence[Recipe], ids: Sequence[str]) -> tuple[Recipe, ...]:
    """The recipes that ``ids`` name, in the order of ``known``; all of them where none is named.

    Raises:
        UsageError: there is no cell of that name.
    """
    by_id = {recipe.id: recipe for recipe in known}
    for name in ids:
        if name not in by_id:
            raise UsageError(f"there is no cell {name!r}. Cells: {', '.join(by_id)}.")
    return tuple(recipe for recipe in known if recipe.id in ids) if ids else tuple(known)
