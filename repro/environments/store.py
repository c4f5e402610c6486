"""Builds the environments of cells with uv, and keeps house among them.

One folder for each cell, below the user's cache. uv links files from its own cache, so that cells share what they have
in common, and a cell downloads nothing that another one has brought. A file written last says what a folder was built
from: a folder without it, or with another one, is built anew.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repro.core.encoding import decode, encode, from_text
from repro.core.errors import BuildError, RecordError
from repro.core.locks import Say, nobody, waited_for
from repro.core.paths import cache_folder
from repro.core.processes.family import ending_with_this
from repro.core.records import Cell, Recipe
from repro.environments.pip_settings import uv_settings

STAMP = "cell.json"
Progress = Callable[[int, int, str], None]
"""Is told how much is done, of how much, in which unit."""
NAME_AND_VERSION = re.compile(r"([A-Za-z0-9_.]+)-[^-]+\.dist-info")
DOWNLOAD = re.compile(r"Downloading (\S+) \(([\d.]+)([KMG])iB\)")
DOWNLOADED = re.compile(r"Downloaded (\S+)")
BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
TAIL_LINES = 60
"""How much of uv's output is kept for the reason of a failure; the whole is in the log."""
REASON_CHARACTERS = 400
CROSS = "\N{MULTIPLICATION SIGN}"
"""What uv puts before its explanation of a failure."""


class Announcer(Protocol):
    """Is told what happens while it happens."""

    def line(self, text: str) -> None: ...

    def task(self, name: str) -> contextlib.AbstractContextManager[Progress]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """A cell that is built: its recipe, and what it takes on disk.

    ``bytes`` counts every file; ``own_bytes`` only those that no other folder links to.
    """

    recipe: Recipe
    folder: Path
    bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a folder was built from."""

    recipe: Recipe
    fingerprint: str


class Store:
    """The folder of all cells, ``cells/`` below the user's cache unless another one is named."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "cells"

    def built(self, recipe: Recipe) -> Cell | None:
        """The cell, if it stands and was built from this very recipe and lock."""
        stamp = _stamp(self.folder / recipe.id)
        python = _python(self.folder / recipe.id)
        if stamp is None or stamp.fingerprint != fingerprint(recipe) or not python.exists():
            return None
        return Cell(str(python))

    def python(self, name: str) -> Path | None:
        """The interpreter of the cell of this id, whatever it was built from; None where none stands."""
        python = _python(self.folder / name)
        return python if name in self.names() and _stamp(self.folder / name) is not None and python.exists() else None

    def build(self, recipe: Recipe, progress: Progress | None = None, say: Say = nobody) -> Cell:
        """The cell, built first where it does not stand yet; by one process at a time.

        Args:
            recipe: Of the cell.
            progress: Is told how far the downloads are.
            say: Is given a line where another process is building it, which is waited for.

        Raises:
            BuildError: uv, the interpreter or a package is not to be had here; the message is a reason for the cell.
        """
        standing = self.built(recipe)
        if standing is not None:
            return standing
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._held(recipe.id, say):
                return self.built(recipe) or self._build(recipe, progress)
        except OSError as error:
            raise BuildError(f"could not write in {self.folder}: {error.strerror or error}") from error

    def _held(self, name: str, say: Say) -> contextlib.AbstractContextManager[None]:
        """The lock of one cell, which lies beside its folder: that one is removed and made anew."""
        return waited_for(self.folder / f"{name}.lock", f"the cell {name}", f"the cell {name}", say)

    def _build(self, recipe: Recipe, progress: Progress | None) -> Cell:
        folder = self.folder / recipe.id
        try:
            shutil.rmtree(folder, ignore_errors=True)
            log = self.folder / f"{recipe.id}.log"
            log.write_text("", encoding="utf-8")
        except OSError as error:
            raise BuildError(f"could not make {folder}: {error.strerror or error}") from error
        run = _Uv(self.folder, log, progress or _silent)
        run("venv", "--no-project", "--python", find_python(run, recipe.python), str(folder))
        wanted = [f"{package}=={version}" for package, version in recipe.pins.items()]
        # A lock constrains and does not require: a CPU-only torch needs none of the CUDA packages that it also names.
        held = [] if recipe.lock is None else ["--constraint", recipe.lock]
        run("pip", "install", "--python", str(_python(folder)), *_backend(recipe), *held, *wanted)
        (folder / STAMP).write_text(encode(_Stamp(recipe, fingerprint(recipe))), encoding="utf-8")
        return Cell(str(_python(folder)))

    def standing(self) -> tuple[Standing, ...]:
        """Every cell that is built, in order of their ids."""
        found = []
        for folder in sorted(self.folder.glob("*/")):
            stamp = _stamp(folder)
            if stamp is not None:
                total, own = _sizes(folder)
                found.append(Standing(stamp.recipe, folder, total, own))
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """The ids of all cells that have a folder, half-built ones too, in order."""
        return tuple(sorted(path.name for path in self.folder.glob("*/")))

    def stored_bytes(self) -> int:
        """What all cells take together, a file that several of them link to counted once."""
        return sum({(entry.st_dev, entry.st_ino): entry.st_size for entry in _files(self.folder)}.values())

    def remove(self, ids: Sequence[str], *, cache: bool = False, say: Say = nobody) -> int:
        """Remove cells, waiting for one that is being built, and with ``cache`` what uv's cache holds of packages that
        no other cell has.

        Returns:
            How many bytes more are free on the disk than before.

        Raises:
            BuildError: a folder cannot be removed, or uv cannot clean its cache.
        """
        if not ids:
            return 0
        before = shutil.disk_usage(self.folder).free
        packages = set().union(*(_installed(self.folder / name) for name in ids)) if cache else set()
        try:
            for name in ids:
                with self._held(name, say):
                    shutil.rmtree(self.folder / name)
                    for left in (f"{name}.log", f"{name}.lock"):
                        (self.folder / left).unlink(missing_ok=True)
        except OSError as error:
            raise BuildError(f"could not remove {error.filename}: {error.strerror}") from error
        packages -= set().union(*(_installed(item.folder) for item in self.standing())) if packages else set()
        if packages:
            _Uv(self.folder, self.folder / "cache.log", _silent)("cache", "clean", *sorted(packages))
        return max(shutil.disk_usage(self.folder).free - before, 0)


def disk_use(store: Store) -> str:
    """What all cells take, for those who have just built one."""
    size = store.stored_bytes() / 1e9
    return f"all cells together take {size:.1f} GB in {store.folder}; `repro cells remove` frees what is not needed"


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 of what decides the content of an environment: Python, pins and the lock's text."""
    lock = "" if recipe.lock is None else Path(recipe.lock).read_text(encoding="utf-8")
    pins = "\n".join(f"{package}=={version}" for package, version in sorted(recipe.pins.items()))
    return hashlib.sha256(f"{recipe.python}\n{pins}\n{lock}".encode()).hexdigest()


def missing_device(device: str) -> str | None:
    """Why a cell of this device cannot run on this machine; None where it can."""
    if device == "cuda":
        smi = shutil.which("nvidia-smi")
        lines = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False).stdout if smi else ""
        return None if "GPU" in lines else "no CUDA device on this machine (nvidia-smi lists none)"
    if device == "mps" and (sys.platform, platform.machine()) != ("darwin", "arm64"):
        return "no Apple GPU on this machine"
    return None


def find_python(run: "_Uv", version: str) -> str:
    """The path of an interpreter of this version.

    Raises:
        BuildError: there is none, and uv may not fetch one.
    """
    # Without a word from the user nothing as large as an interpreter is fetched from elsewhere.
    fetch = [] if "UV_PYTHON_DOWNLOADS" in os.environ else ["--no-python-downloads"]
    try:
        return run("python", "find", "--no-project", "--system", *fetch, version).splitlines()[-1]
    except BuildError:
        raise BuildError(
            f"no Python {version} on this machine. Install it and put it on the PATH, or set "
            "UV_PYTHON_DOWNLOADS=automatic to let uv fetch one"
        ) from None


class _Uv:
    """Runs uv: its output goes into the log, downloads are told as progress, a failure becomes one sentence."""

    def __init__(self, folder: Path, log: Path, progress: Progress) -> None:
        self._folder, self._log, self._progress = folder, log, progress
        self._program = _uv_program()

    def __call__(self, *arguments: str) -> str:
        """What uv printed on stdout."""
        command = ending_with_this([self._program, *arguments, "--color", "never"])
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        sizes: dict[str, int] = {}
        done = 0
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ uv {' '.join(arguments)}\n")
            # Its own folder: a pyproject.toml in the user's must not steer what a cell is made of.
            child = subprocess.Popen(
                command, cwd=self._folder, env=_variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if arguments[0] != "python" else log, encoding="utf-8", errors="replace",
            )  # fmt: skip
            assert child.stdout is not None
            with child:
                try:
                    for line in child.stdout:
                        log.write(line)
                        tail.append(line.rstrip())
                        begun, ended = DOWNLOAD.search(line), DOWNLOADED.search(line)
                        if begun:
                            sizes[begun[1]] = int(float(begun[2]) * BYTES[begun[3]])
                        if ended:
                            done += sizes.get(ended[1], 0)
                        if begun or ended:
                            self._progress(done, sum(sizes.values()), "bytes")
                except BaseException:  # Ctrl-C: what is half built is built anew the next time
                    child.kill()
                    raise
        if child.returncode != 0:
            raise BuildError(_reason(tail, child.returncode))
        return "\n".join(tail)


def _reason(tail: deque[str], status: int) -> str:
    """uv's own explanation as one line: what stands behind its cross or its ``error:``."""
    lines = [line.strip(" │╰─▶") for line in tail if line.strip()]
    start = next((place for place, line in enumerate(lines) if line.startswith((CROSS, "error:"))), None)
    if start is None:
        return f"uv ended with exit status {status}" + (f": {lines[-1]}" if lines else "")
    text = " ".join(lines[start:]).removeprefix(CROSS).strip()
    return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + " ..."


def _uv_program() -> str:
    """The path of uv: the package's own, else the one on the PATH.

    Raises:
        BuildError: there is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise BuildError("uv builds the cells, and it is not here: pip install uv")
    return found


def _variables() -> dict[str, str]:
    """uv's environment variables: the user's own, with pip's settings where uv has none, and every pyenv version.

    The last because pyenv puts a python3.13 on the PATH that fails unless that version is selected.
    """
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    variables.update(uv_settings())
    # The machine's certificates, as pip takes them, not those that uv brings; its older name and its newer one.
    variables.update(UV_NATIVE_TLS="1", UV_SYSTEM_CERTS="1")
    root = Path(variables.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if root.is_dir():
        # The one that is selected stays first: pyenv's own `python` hands it on to what it starts.
        selected = [variables["PYENV_VERSION"]] if variables.get("PYENV_VERSION") else []
        variables["PYENV_VERSION"] = ":".join(
            [*selected, *sorted((path.name for path in root.iterdir()), reverse=True)]
        )
    return variables


def _backend(recipe: Recipe) -> list[str]:
    """CPU-only wheels for CPU cells, where the user lets uv choose a PyTorch index; others take the user's word."""
    return ["--torch-backend", "cpu"] if recipe.device == "cpu" and os.environ.get("UV_TORCH_BACKEND") else []


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _stamp(folder: Path) -> _Stamp | None:
    try:
        return decode(_Stamp, from_text((folder / STAMP).read_text(encoding="utf-8")))
    except (OSError, RecordError):
        return None


def _installed(folder: Path) -> set[str]:
    """The packages of an environment, by the names of their metadata folders."""
    matches = (NAME_AND_VERSION.fullmatch(path.name) for path in folder.glob("**/site-packages/*.dist-info"))
    return {match[1].lower().replace("_", "-") for match in matches if match}


def _silent(done: int, total: int, unit: str) -> None:
    """For those who want no progress."""


def _files(folder: Path) -> Iterator[os.stat_result]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield Path(place, name).lstat()


def _sizes(folder: Path) -> tuple[int, int]:
    """(bytes of every file, bytes of the files that have no other link)."""
    sizes = [(entry.st_size, entry.st_nlink) for entry in _files(folder)]
    return sum(size for size, _ in sizes), sum(size for size, links in sizes if links == 1)
