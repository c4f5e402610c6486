"""What a run reads, told apart from what it read before: answers about two states of a file never make one.

A small file is known by its hash. A large one is known by its size and by when it was changed, which costs nothing: to
hash the weights would take longer than many a run.
"""

import ast
import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from repro.core.case import ADAPTER, READ
from repro.core.encoding import from_text
from repro.core.errors import RecordError
from repro.core.foreign import NotAFile, read_foreign
from repro.core.records import Case, Cell

HASHED = 1_000_000
"""Bytes. A file of up to this size is known by its SHA-256."""
PACKAGES = ("torch", "transformers", "numpy", "safetensors", "tokenizers")
"""What an answer depends on, of what is installed beside an interpreter."""
MOST_MODULES = 200
"""How many of a script's own modules are looked at."""


def seen(case: Case, cell: Cell | None = None) -> dict[str, str]:
    """What identifies each file that the case reads, and each package of the interpreter, by name.

    Of a model on the Hub, these are the files that the cache holds now. What a script reads besides its own modules is
    not known.
    """
    files = dict(_script(Path(case.model)) if case.is_script else _model(case))
    if case.factory is not None:
        files = {**dict(_factory(case.factory, cell)), **({} if case.model == case.factory else files)}
    files.update({f"{option} {Path(path).name}": Path(path) for option, path in case.given.items()})
    found = {name: identity for name, path in files.items() if (identity := _identity(path)) is not None}
    return found if cell is None else {**found, **dict(_installed(Path(cell.python)))}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What is not as it was, in words; None where all is.

    A file that was not there before is no change: a download brings some, and a script may write some.
    """
    for name, identity in before.items():
        if name not in now:
            return f"{name} is gone"
        if now[name] != identity:
            return f"{name} was {identity}, and is {now[name]}"
    return None


def _model(case: Case) -> Iterator[tuple[str, Path]]:
    place = Path(case.model)
    if case.config is not None:
        yield "the shipped configuration", Path(case.config)
    if place.is_absolute():
        yield from ((place.name, place),) if place.is_file() else _read_in(place)
        yield from ((f"base {name}", path) for name, path in _base_of(place))
    elif case.config is None:
        yield from _cached(case)


def _factory(name: str, cell: Cell | None) -> Iterator[tuple[str, Path]]:
    """The file of a factory and what it imports beside it; of a module, from the folder that its package lies in."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        yield from _script(Path(place))
        return
    beside = [] if cell is None else [folder for folder in _site_packages(Path(cell.python)) if folder.is_dir()]
    for folder in (Path.cwd(), *beside):
        path = folder.joinpath(*place.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                yield from _script(file, folder)
                return


def _base_of(adapter: Path) -> Iterator[tuple[str, Path]]:
    """The files of the base model of an adapter's folder, where that is a folder too."""
    with contextlib.suppress(OSError, NotAFile, RecordError, AttributeError, TypeError):
        base = from_text(read_foreign(adapter / ADAPTER, HASHED)).get("base_model_name_or_path")
        yield from _read_in(adapter / Path(base).expanduser())


def _read_in(folder: Path) -> Iterator[tuple[str, Path]]:
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix in READ:
                yield path.name, path


def _cached(case: Case) -> Iterator[tuple[str, Path]]:
    """The files of the snapshot that the revision names in the cache of the Hub."""
    model = _hub_cache() / f"models--{case.model.replace('/', '--')}"
    revision = case.revision or "main"
    commit = revision
    with contextlib.suppress(OSError):
        named = model / "refs" / revision
        yield f"refs/{revision}", named
        commit = named.read_text("utf-8").strip()
    yield from _read_in(model / "snapshots" / commit)


def _hub_cache() -> Path:
    """Where huggingface_hub keeps what it has downloaded, by the variables that it reads itself."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    return Path(named).expanduser()


def _script(path: Path, folder: Path | None = None) -> Iterator[tuple[str, Path]]:
    """A script and the modules beside it (in ``folder``) that it imports, and those that they import."""
    folder, left, done = folder or path.parent, [path], {path}
    while left and len(done) <= MOST_MODULES:
        path = left.pop()
        yield path.relative_to(folder).as_posix(), path
        for name in sorted(_imported(path)):
            place = folder.joinpath(*name.split("."))
            for beside in (place.with_suffix(".py"), place / "__init__.py"):
                if beside not in done and beside.is_file():
                    done.add(beside)
                    left.append(beside)


def _imported(path: Path) -> set[str]:
    """Every module that a file may import, and every package that one is in."""
    found: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return found  # whoever runs it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.rsplit(".", cut)[0] for name in found for cut in range(name.count(".") + 1)}


def _installed(python: Path) -> Iterator[tuple[str, str]]:
    """Package and version, where they are installed beside the interpreter."""
    folders = _site_packages(python)
    wanted = re.compile(rf"({'|'.join(PACKAGES)})-(.+)\.dist-info")
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                found = wanted.fullmatch(path.name)
                if found:
                    yield found[1], found[2]


def _site_packages(python: Path) -> list[Path]:
    return [*python.parent.parent.glob("lib/python3*/*-packages"), python.parent.parent / "Lib" / "site-packages"]


def _identity(path: Path) -> str | None:
    """None for what is no file, or is not there."""
    try:
        state = path.stat()
        if state.st_size <= HASHED:
            return f"sha256 {hashlib.sha256(read_foreign(path, HASHED + 1)).hexdigest()}"
    except (OSError, NotAFile):
        return None
    return f"of {state.st_size} bytes, changed at {state.st_mtime_ns} and {state.st_ctime_ns} ns"
