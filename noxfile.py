"""The project's sessions, each in an environment with pinned versions.

    python noxfile.py -s "repro(CELL)"              the main job in one cell: the float16 NaN of real Gemma 3 270M
    python noxfile.py -s repro                      the same in every cell under envs/ that this machine can run
    python noxfile.py -s repro -- MODEL [OPTION]... the same on a model of yours
    python noxfile.py -s tests                      the test suite, but for its slow tests
    python noxfile.py -s tests -- -m ""             the whole suite, as continuous integration runs it
    python noxfile.py -s lint                       ruff and mypy
    python noxfile.py -s oldest                     the kit in the oldest cell, really run
    python noxfile.py -s boundaries                 the releases at which known faults came or went, found by bisection
    python noxfile.py -s bench                      the benchmarks
    python noxfile.py -s score                      the corpus of injected faults, scored: docs/score.md, written anew
    python noxfile.py -s attacks                    attacks on the product: the table in docs/security.md, anew
    python noxfile.py -s lock                       the locks under envs/, made again

Where nox is installed, `nox -s tests` is the same. Where it is not, this file makes a small environment with nox in it
first (.nox/bootstrap), so that Python and pip are all a machine needs. Versions stand in pyproject.toml and envs/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVS = ROOT / "envs"
TOOLS_LOCK = ENVS / "tools.txt"


def require_python() -> None:
    """Ends with one clear line on an interpreter older than pyproject.toml allows (which could not parse TOML)."""
    match = re.search(r'^requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    if match and sys.version_info < tuple(map(int, match.groups())):
        needed, found = ".".join(match.groups()), ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"noxfile.py needs Python {needed} or newer, this is {found}: run it with another interpreter.")


def environment(home: Path, locks: list[Path], wanted: list[str]) -> tuple[int, str]:
    """A small environment beside nox's own, made on the first call and again whenever a lock or the wish changes.

    Returns:
        pip's exit status, and the path of the environment's Python.
    """
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp, content = home / "made-of.txt", "\n".join([*wanted, *(path.read_text("utf-8") for path in locks)])
    if stamp.exists() and stamp.read_text("utf-8") == content:
        return 0, str(python)
    print(f"noxfile.py: making {home.relative_to(ROOT)} with {', '.join(wanted)}", file=sys.stderr)
    venv.create(home, clear=True, with_pip=True, symlinks=os.name != "nt")  # as `python -m venv` does
    held = [word for path in locks for word in ("--constraint", str(path))]
    status = subprocess.call([str(python), "-m", "pip", "install", "--quiet", *held, *wanted])
    if status == 0:
        stamp.write_text(content, "utf-8")
    return status, str(python)


def bootstrap(arguments: list[str]) -> int:
    """Runs nox from .nox/bootstrap."""
    status, python = environment(ROOT / ".nox" / "bootstrap", [TOOLS_LOCK], ["nox"])
    return status or subprocess.call([python, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *arguments])


require_python()

try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.exit(bootstrap(sys.argv[1:]))

sys.path.insert(0, str(ROOT))
from repro.environments.cells import chosen, recipes  # noqa: E402 - of this checkout, where its Python allows

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
CELLS = recipes(ENVS)
(CELL,) = chosen(CELLS, [PROJECT["tool"]["repro"]["cell"]])
(OLDEST,) = chosen(CELLS, [PROJECT["tool"]["repro"]["oldest"]])
CELL_LOCK = ENVS / f"{CELL.id}.txt"
LOCKS = [CELL_LOCK, TOOLS_LOCK]
HELD = [word for path in LOCKS for word in ("--constraint", str(path))]
EXAMINED = ("torch", "transformers")
"""What a cell brings, and the host does without."""
MATRIX = ROOT / "repro-runs" / time.strftime("matrix-%Y%m%d-%H%M%S")
"""The folder in which all cells of one call of nox meet."""

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
    if not sys.version.startswith(f"{CELL.python}."):
        session.log(f"{CELL.id} is recorded for Python {CELL.python}; this is {sys.version.split()[0]}")
    tools = [tool for group in ("build", *groups) for tool in PROJECT["dependency-groups"][group]]
    session.install(*HELD, *tools)
    # The build backend is the one installed just now: an isolated build would fetch whichever is the newest.
    session.install(*HELD, "--no-build-isolation", ".[gguf]")


def host(session: nox.Session) -> list[str]:
    """The command `repro` of this checkout, in an environment without torch: the cells bring their own."""
    wanted = [line for line in PROJECT["project"]["dependencies"] if line not in EXAMINED]
    status, python = environment(ROOT / ".nox" / "host", LOCKS, wanted)
    if status:
        session.error(f"pip ended with exit status {status}")
    return [python, "-m", "repro"]


def call(session: nox.Session, *command: str) -> int:
    """Run a command of the host to its end; its exit status is an answer, so that is left to the caller."""
    session.log(" ".join(command))
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite but for the tests marked slow, against the installed package; arguments go to pytest."""
    install(session, "test")
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, mypy's strict types."""
    install(session, "test", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(python=False, default=False)
@nox.parametrize("cell", [nox.param(recipe.id, id=recipe.id) for recipe in CELLS])
def repro(session: nox.Session, cell: str) -> None:
    """One cell of the matrix: on real Gemma 3 270M weights in float16, else on the MODEL and options behind --."""
    command = host(session)
    asked = list(session.posargs)
    if not asked:
        fetched = subprocess.run(
            [*command, "fetch", "gemma-3-270m"], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        if fetched.returncode:
            session.error(f"repro fetch ended with exit status {fetched.returncode}")
        asked = [fetched.stdout.splitlines()[-1], "--dtype", "float16"]
    status = call(session, *command, "matrix", *asked, "--cell", cell, "--out", str(MATRIX), "--resume")
    # 0 (good) and 1 (bad, the fault is there) are both answers; 125 says why there is none, and 2 is wrong usage.
    row = MATRIX / cell / "row.json"
    answer = json.loads(row.read_text("utf-8"))["row"] if row.exists() else None
    if status not in (0, 1, 125) or answer is None:
        session.error(f"repro matrix ended with exit status {status}")
    table, own = MATRIX / "report.md", MATRIX / cell / "report.md"  # a single cell has no table, only its own run
    session.log(f"{cell} is {answer['verdict']}; report: {table if table.exists() else own}")
    if answer["verdict"] == "skip":
        session.skip(answer["reason"])


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """The kit in the oldest cell, really run: only that shows that it still speaks its Python and torch."""
    install(session, "test")
    build = [*host(session), "cells", "build", OLDEST.id]
    if call(session, *build):
        session.error(f"{' '.join(build)} did not build the cell")
    session.run("pytest", "tests/oldest", *session.posargs, env={"REPRO_OLDEST": OLDEST.id})


@nox.session(python=False, default=False)
def boundaries(session: nox.Session) -> None:
    """The examples' known boundaries, each found by bisection in real environments; names behind -- choose some."""
    command = host(session)
    if call(session, command[0], "tests/support/check_boundaries.py", *session.posargs):
        session.error("not every boundary was found where it is known to be")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks, each a ratio inside one run."""
    install(session)
    session.run("python", "bench/run.py", *session.posargs)


@nox.session(default=False)
def score(session: nox.Session) -> None:
    """The injected faults and their sound twins, scored, and other tools asked the same; writes docs/score.md.

    Arguments choose cases by parts of their names, and then nothing is written: ``-s score -- mlp/ llama/``.
    """
    install(session, "test")
    # In a folder of its own, for it brings versions of much that is held here. A registry may lack it.
    others = Path(session.create_tmp()) / "others"
    session.run(
        "python", "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(others), "mindstudio-probe",
        success_codes=range(256),
    )  # fmt: skip
    chosen = session.posargs or ["--page", "docs/score.md"]
    # Each case computes in one thread, and as many cases run at a time as there are processors.
    env = {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    session.run("python", "-m", "score", "--also", str(others), *chosen, env=env)


@nox.session(default=False)
def attacks(session: nox.Session) -> None:
    """The attacks of tests/attacks, really made; writes the table in docs/security.md.

    Arguments choose attacks by parts of their names, and then nothing is written: ``-s attacks -- kills/ streams/``.
    """
    install(session, "test")
    chosen = session.posargs or ["--page", "docs/security.md"]
    session.run("python", "-m", "attacks", *chosen, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Makes the locks again: one for each cell, and one for the tools that agrees with the sessions' cell.

    Names of cells behind -- choose some, and leave the other locks as they are.
    """
    session.install(*HELD, "uv")
    compile_ = ["uv", "pip", "compile", "--universal", "--upgrade", "--quiet", "--no-annotate"]
    # The machine's certificates, as pip takes them, not those that uv brings.
    compile_ += ["--system-certs", "--custom-compile-command", "nox -s lock"]
    for cell in chosen(CELLS, session.posargs):
        pins = Path(session.create_tmp()) / "pins.txt"
        pins.write_text("".join(f"{package}=={version}\n" for package, version in cell.pins.items()), "utf-8")
        # The sessions' own cell also holds what the project itself needs.
        own = ["pyproject.toml", "--extra", "gguf", "--constraint", str(pins)]
        where = ["--python-version", cell.python, "--output-file", str(ENVS / f"{cell.id}.txt")]
        session.run(*compile_, *(own if cell is CELL else [str(pins)]), *where)
    if session.posargs:
        return
    what = [word for group in PROJECT["dependency-groups"] for word in ("--group", group)]
    where = ["--python-version", CELL.python, "--output-file", str(TOOLS_LOCK)]
    session.run(*compile_, *what, "--constraint", str(CELL_LOCK), *where)


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "nox", "--noxfile", __file__, *sys.argv[1:]]))
