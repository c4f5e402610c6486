"""What attacks are made of: models, files, and deeds that a command line cannot say. One module for each area.

A function marked with ``file`` writes a file: ``NAME(path, **rest of the row)``. One marked with ``deed`` does the
attack itself: ``NAME(place, **args)`` gives what did not hold.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

File = Callable[..., None]
Deed = Callable[..., Iterable[str]]
_FILES: dict[str, File] = {}
_DEEDS: dict[str, Deed] = {}
_MODELS: dict[str, Path] = {}


def file(function: File) -> File:
    """Mark a function that writes a file."""
    return _new(_FILES, function)


def deed(function: Deed) -> Deed:
    """Mark a function that does an attack."""
    return _new(_DEEDS, function)


def files() -> dict[str, File]:
    """The functions that write files, by name."""
    _load()
    return _FILES


def deeds() -> dict[str, Deed]:
    """The functions that do an attack, by name."""
    _load()
    return _DEEDS


def prepare_models(folder: Path, names: Iterable[str]) -> None:
    """Write the models that attacks ask for, once, below a folder."""
    from . import models

    for name in sorted(set(names) - set(_MODELS)):
        _MODELS[name] = folder / name
        models.MODELS[name](folder / name)


def of_model(name: str) -> Path:
    """Where a model lies that was prepared; it is not to be changed."""
    return _MODELS[name]


def copy_model(name: str, path: Path) -> None:
    """Put a model there."""
    shutil.copytree(_MODELS[name], path)


def _new(known: dict[str, Any], function: Any) -> Any:
    if function.__name__ in known:
        raise ValueError(f"two makers are called {function.__name__}")
    known[function.__name__] = function
    return function


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
