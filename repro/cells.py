"""Arguments to a cell: the environment in which the kit runs."""

import os
import shutil
import sys
from pathlib import Path

from repro.errors import UsageError
from repro.records import Cell


def cell_from(python: str | None) -> Cell:
    """The cell of an interpreter: its path or its name; None is the interpreter that runs this toolkit.

    A link is kept as it is, because a virtual environment's interpreter is known by its own path.

    Raises:
        UsageError: there is no such program.
    """
    if python is None:
        return Cell(sys.executable)
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
