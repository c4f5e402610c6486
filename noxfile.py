"""The project's sessions, each in an environment of its own with pinned versions.

    python noxfile.py -s repro                      the main job: the float16 NaN of real Gemma 3 270M weights, found
    python noxfile.py -s repro -- MODEL [OPTION]... the same on a model of yours
    python noxfile.py -s tests                      the whole test suite
    python noxfile.py -s lint                       ruff and mypy
    python noxfile.py -s bench                      the benchmarks
    python noxfile.py -s lock                       the locks under envs/, made afresh

Where nox is installed, `nox -s tests` is the same. Where it is not, this file makes a small environment with nox in it
first (.nox/bootstrap), so that Python and pip are all a machine needs. Versions stand in pyproject.toml and envs/.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
ENVS = ROOT / "envs"
TOOLS_LOCK = ENVS / "tools.txt"
CELL_KEYS = {"python": str, "device": str, "why": str, "pins": dict}


def require_python() -> None:
    """Ends with one clear line on an interpreter older than pyproject.toml allows (which could not parse TOML)."""
    match = re.search(r'^requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    if match and sys.version_info < tuple(map(int, match.groups())):
        needed, found = ".".join(match.groups()), ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"noxfile.py needs Python {needed} or newer, this is {found}: run it with another interpreter.")


def bootstrap(arguments: list[str]) -> int:
    """Runs nox from .nox/bootstrap, made on the first call and again whenever the tools' lock changes."""
    home = ROOT / ".nox" / "bootstrap"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp, lock = home / "lock.txt", TOOLS_LOCK.read_text("utf-8")
    if not stamp.exists() or stamp.read_text("utf-8") != lock:
        print(f"noxfile.py: nox is not installed here; making {home.relative_to(ROOT)} with it", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(TOOLS_LOCK), "nox"]
        status = subprocess.call(install)
        if status:
            return status
        stamp.write_text(lock, "utf-8")
    return subprocess.call([str(python), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *arguments])


require_python()

import tomllib  # noqa: E402 - only after the check above: an older Python has no tomllib

try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.exit(bootstrap(sys.argv[1:]))


def load_cell(path: Path) -> dict[str, Any]:
    """Reads one cell, strictly.

    Raises:
        ValueError: naming file and key, for an unknown or missing key, a value of another type, or a pin that is not
            an exact version.
    """
    cell = tomllib.loads(path.read_text("utf-8"))
    for key in cell.keys() | CELL_KEYS.keys():
        if key not in CELL_KEYS:
            raise ValueError(f"{path}: unknown key {key!r}; known: {', '.join(CELL_KEYS)}")
        if not isinstance(cell.get(key), CELL_KEYS[key]):
            raise ValueError(f"{path}: {key!r} must be of type {CELL_KEYS[key].__name__}, got {cell.get(key)!r}")
    for package, version in cell["pins"].items():
        if not isinstance(version, str) or not re.fullmatch(r"[0-9][0-9A-Za-z.+!]*", version):
            raise ValueError(f"{path}: pins.{package} must be one exact version, got {version!r}")
    return cell


PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
CELL_ID: str = PROJECT["tool"]["repro"]["cell"]
CELL = load_cell(ENVS / f"{CELL_ID}.toml")
CELL_LOCK = ENVS / f"{CELL_ID}.txt"

nox.options.sessions = ["tests", "lint"]
# Environments stay between calls: each call brings them to the locks' versions and installs the project anew.
nox.options.reuse_venv = "yes"
# Not uv: only pip reads the user's pip settings, from which a CPU-only torch may come.
nox.options.default_venv_backend = "virtualenv"


def install(session: nox.Session, *groups: str) -> None:
    """Installs the project as a user gets it, with every version held by the locks.

    The locks are constraints, not requirements: a CPU-only torch that the user's pip settings lead to satisfies them as
    well, and then none of the CUDA packages that the lock also names is installed.
    """
    if not sys.version.startswith(f"{CELL['python']}."):
        session.log(f"{CELL_ID} is recorded for Python {CELL['python']}; this is {sys.version.split()[0]}")
    locks = ["--constraint", str(CELL_LOCK), "--constraint", str(TOOLS_LOCK)]
    tools = [tool for group in ("build", *groups) for tool in PROJECT["dependency-groups"][group]]
    session.install(*locks, *tools)
    # The build backend is the one installed just now: an isolated build would fetch whichever is the newest.
    session.install(*locks, "--no-build-isolation", ".[gguf]")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole test suite, against the installed package; arguments go to pytest."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, mypy's strict types."""
    install(session, "test", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(default=False)
def repro(session: nox.Session) -> None:
    """The main job: without arguments on real Gemma 3 270M weights in float16, else `repro` with the arguments."""
    install(session)
    if session.posargs:
        # 0 (good) and 1 (bad, the fault is there) are both answers; 2 and 125 are none.
        session.run("repro", *session.posargs, success_codes=[0, 1])
        return
    fetched = session.run("repro", "fetch", "gemma-3-270m", silent=True, stderr=sys.stderr)
    model = str(fetched).splitlines()[-1]
    out = ROOT / "repro-runs" / time.strftime("gemma-3-270m-float16-%Y%m%d-%H%M%S")
    session.run("repro", model, "--dtype", "float16", "--out", str(out), success_codes=[1])
    session.log(f"Exit status 1, as it must be: the fault is there, and the report is {out / 'report.md'}")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks, each a ratio inside one run."""
    install(session)
    session.run("python", "bench/run.py", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Makes the locks afresh: one for each cell, and one for the tools that agrees with the sessions' cell."""
    session.install("--constraint", str(TOOLS_LOCK), "uv")
    compile_ = ["uv", "pip", "compile", "--universal", "--upgrade", "--quiet", "--no-annotate"]
    # The machine's certificates, as pip takes them, not those that uv brings.
    compile_ += ["--system-certs", "--custom-compile-command", "nox -s lock"]
    for path in sorted(ENVS.glob("*.toml")):
        cell = load_cell(path)
        pins = Path(session.create_tmp()) / "pins.txt"
        pins.write_text("".join(f"{package}=={version}\n" for package, version in cell["pins"].items()), "utf-8")
        what = ["pyproject.toml", "--extra", "gguf", "--constraint", str(pins)]
        where = ["--python-version", cell["python"], "--output-file", str(path.with_suffix(".txt"))]
        session.run(*compile_, *what, *where)
    what = [word for group in PROJECT["dependency-groups"] for word in ("--group", group)]
    where = ["--python-version", CELL["python"], "--output-file", str(TOOLS_LOCK)]
    session.run(*compile_, *what, "--constraint", str(CELL_LOCK), *where)


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "nox", "--noxfile", __file__, *sys.argv[1:]]))
