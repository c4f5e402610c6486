"""A .gguf file is converted once, in a cell that can, for all the environments that cannot.

The kit keeps the conversion in the user's cache, under the file's SHA-256; every environment then reads it from there.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from repro.core.errors import BuildError
from repro.core.paths import cache_folder, sha256
from repro.core.records import Cell, Recipe
from repro.run.child import Children
from repro.run.run import Request

READS_GGUF = "gguf"
"""The package without which an environment cannot read a .gguf file that nobody has converted yet."""


def convert_once(
    request: Request,
    recipes: Sequence[Recipe],
    build: Callable[[Recipe], Cell],
    children: Children,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Convert the model of ``request``, if it is a .gguf file whose conversion is not in the cache yet.

    Where none of the recipes can, or the conversion fails, this is silent: each environment that is asked then reports
    that it cannot read the file.

    Args:
        request: What is going to be asked.
        recipes: Those to choose from, the preferred ones first.
        build: Gives the cell of a recipe. Raises BuildError.
        children: Runs the kit.
        folder: Of the conversion's own run.
        say: Is given the line that says what happens.
    """
    model = Path(request.case.model)
    able = [recipe for recipe in recipes if READS_GGUF in recipe.pins and recipe.device == "cpu"]
    if model.suffix != ".gguf" or not able or _converted(model):
        return
    say(f"{model.name} is converted once, in cell {able[0].id}")
    with contextlib.suppress(BuildError):
        children.ask(dataclasses.replace(request, command="weights"), build(able[0]), folder, aloud=True)


def _converted(model: Path) -> bool:
    """Whether the cache holds the conversion of a .gguf file, where the kit (probes/convert.py) puts it."""
    return (cache_folder() / "gguf" / sha256(model) / "converted.json").is_file()
