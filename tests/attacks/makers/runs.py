"""Runs that are killed, stopped, locked out or robbed of their folder, and what they left once they were resumed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import forked

from . import deed

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
"""How long a process is waited for that should come to a point, or to its end."""
FLEETING = frozenset({"seconds", "plain_seconds", "evidence_sha256", "command", "load_average"})
"""Keys of verdict.json whose values are of one run: times, what holds times, and the command's time limits."""
STOPPED = {"TERM": 143, "INT": 130}
OF_ONE_PROCESS = re.compile(r"\d+ of \d+ are good(, behind \d+ batch(es)? of an earlier process)?")
"""What the prompts step says of its own process; the counts of all of them stand beside it."""
TIME = re.compile(r"\b\d+\.\d s\b")


@dataclass(frozen=True)
class Scene:
    """A command to be disturbed, in an attack's folder. ``point``: whether it has come to where it is to be disturbed,
    from what it has said.
    """

    place: Path
    arguments: tuple[str, ...]
    env: dict[str, str]
    point: Callable[[str], bool]

    def command(self, out: str) -> list[str]:
        """Into a folder of its own."""
        return [sys.executable, "-m", "repro", *self.arguments, "--out", out]

    def start(self, out: str = "o") -> subprocess.Popen[bytes]:
        """The command, its stderr into a file beside the folder."""
        with (self.place / f"{out}.err").open("ab") as err:
            return forked.popen(
                self.command(out), cwd=self.place, env=self.env, stdin=subprocess.DEVNULL, stdout=err, stderr=err
            )

    def said(self, out: str = "o") -> str:
        """All that it has printed by now."""
        return (self.place / f"{out}.err").read_text("utf-8", "backslashreplace")

    def to_the_end(self, out: str = "o", **more: str) -> int:
        """Its exit status."""
        with (self.place / f"{out}.err").open("ab") as err:
            return forked.run(
                self.command(out), cwd=self.place, env={**self.env, **more}, stdin=subprocess.DEVNULL, stdout=err,
                stderr=err, timeout=2 * SECONDS,
            ).returncode  # fmt: skip


@deed
def kill(
    place: Path, what: str, step: str, whom: str, signal: str, real: bool = False, limit: float = 0
) -> Iterator[str]:
    """Send a signal to the host or its kit when it has come to a step; resume; compare with the run left alone.

    Args:
        place: The attack's folder, with a model or a script in it.
        what: ``run``, ``prompts``, ``matrix`` or ``versions``.
        step: Where: a step of the kit, or words of the progress.
        whom: ``host`` or ``kit``.
        signal: Its name.
        real: With the real kit, where one that speaks the wire would do as well.
        limit: ``--step-timeout``, for a kit that is stopped.
    """
    scene = SCENES[what](place, step, real)
    if limit:
        scene = Scene(place, (*scene.arguments, "--step-timeout", f"{limit:g}"), scene.env, scene.point)
    alone = _left_alone(scene, what, real)
    yield from _killed(scene, whom, signal)
    if (status := scene.to_the_end()) != alone["status"]:
        yield f"resumed, it ended with {status}, and left alone with {alone['status']}: {scene.said()[-600:]}"
    yield from _differences(alone["verdict"], _answer(place / "o"))


def _killed(scene: Scene, whom: str, name: str) -> Iterator[str]:
    """One process that is disturbed, to its end."""
    before = len(scene.said()) if (scene.place / "o.err").exists() else 0
    process = scene.start()
    try:
        if not _until(lambda: scene.point(scene.said()[before:]) or process.poll() is not None):
            yield f"it never came there: {scene.said()[before:][-400:]}"
            return
        if process.poll() is not None:
            yield f"it had ended before it came there, with {process.returncode}: {scene.said()[before:][-400:]}"
            return
        victim = process.pid if whom == "host" else _kit_below(process.pid)
        if victim is None:
            yield "it has no kit"
            return
        below = _below(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, getattr(signal, f"SIG{name}"))
        status = process.wait(SECONDS)
        if whom == "host" and name in STOPPED and (status != STOPPED[name] or "To go on" not in scene.said()):
            yield f"it ended with {status} and did not say how to go on: {scene.said()[before:][-400:]}"
        logs = [path.read_text("utf-8", "replace") for path in (scene.place / "o").glob("**/host.log")]
        if name == "STOP" and "has stopped the kit" not in "".join([scene.said(), *logs]):
            yield f"nobody was told that the kit was stopped: {scene.said()[before:][-400:]}"
        if not _until(lambda: not [pid for pid in below if _is_alive(pid)], 10):
            yield f"it left processes behind: {[_words_of(pid) for pid in below if _is_alive(pid)]}"
    finally:
        process.kill()
        process.wait()


def _left_alone(scene: Scene, what: str, real: bool) -> dict[str, Any]:
    """Status and answer of the command when nobody disturbs it; asked once for all that share a cache."""
    key = "-".join([what, "real" if real else "fake", *_key_words(scene)])
    folder = Path(os.environ["REPRO_CACHE_DIR"]).parent / "left-alone"
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    with FileLock(folder / f"{key}.lock"):
        if not (folder / key).exists():
            status = scene.to_the_end("alone", UNDISTURBED="1")
            found = {"status": status, "verdict": _answer(scene.place / "alone")}
            (folder / key).write_text(json.dumps(found), encoding="utf-8")
    return dict(json.loads((folder / key).read_text("utf-8")))


def _key_words(scene: Scene) -> list[str]:
    return [re.sub(r"\W+", "", word) for word in scene.arguments if word.startswith("--")]


def _answer(folder: Path) -> Any:
    """verdict.json of the folder without what is of one run alone; of a matrix with the answers of its cells."""
    place = folder if (folder / "verdict.json").exists() else next(iter(sorted(folder.glob("*/verdict.json"))), folder)
    path = place if place.is_file() else place / "verdict.json"
    if not path.is_file():
        return None
    text = path.read_text("utf-8").replace(str(folder.parent), "{here}").replace("{here}/" + folder.name, "{here}/o")
    return _lasting(json.loads(text))


def _lasting(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _lasting(value) for key, value in data.items() if key not in FLEETING}
    if isinstance(data, list):
        return [_lasting(item) for item in data]
    return OF_ONE_PROCESS.sub("all are good", TIME.sub("T s", data)) if isinstance(data, str) else data


def _differences(one: Any, other: Any, where: str = "verdict") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{where}[{place}]")
    elif one != other:
        yield f"{where}: {str(one)[:200]} left alone, {str(other)[:200]} resumed"


def _until(holds: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether it holds before the time is up."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _below(pid: int) -> set[int]:
    """The processes below this one."""
    from repro.core.processes.family import below

    return below(pid)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _words_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return str(pid)


def _kit_below(pid: int) -> int | None:
    """The kit that this host, or one that it has started, is running."""
    kits = (child for child in _below(pid) if re.search(r"probes\.pyz run \S+\s*$", _words_of(child)))
    return next(kits, None)


# What is disturbed


def _environment(**more: str) -> dict[str, str]:
    # The settings of this user's pip would lead the search for a version elsewhere.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return {**own, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1", **more}


def _fake(path: Path, waits_in: str, **answers: Any) -> Path:
    """An interpreter that speaks the wire; in the step ``waits_in`` it waits, once, until it is disturbed."""
    waits = {"meet": str(path.parent / "meet"), "count": 2, "sleep": SECONDS}
    told = answers.get(waits_in, {})
    waiting = {**answers, waits_in: {**told, "before": [waits, *told.get("before", [])]}} if waits_in else answers
    path.parent.joinpath("meet").mkdir(exist_ok=True)
    for kind, content in (("waiting", waiting), ("undisturbed", answers)):
        path.with_name(f"{path.name}-{kind}.json").write_text(json.dumps(content), encoding="utf-8")
    kit = (ROOT / "tests" / "support" / "fake_kit.py").read_text("utf-8")
    # It ends with its host, as the real one does.
    ends = "from repro.core.processes.family import end_with_parent; end_with_parent()"
    chosen = f"{str(path)!r} + ('-undisturbed' if 'UNDISTURBED' in os.environ else '-waiting') + '.json'"
    first = f"#!{sys.executable}\nimport os, sys; sys.path.insert(0, {str(ROOT)!r}); {ends}\n"
    path.write_text(f"{first}os.environ['FAKE_KIT'] = {chosen}\n{kit}", encoding="utf-8")
    path.chmod(0o755)
    return path


def _met(place: Path) -> Callable[[str], bool]:
    """Whether a fake kit waits."""
    return lambda said: any((place / "meet").iterdir())


def _cell(cache: Path, recipe: Any, python: Path) -> None:
    """A cell that stands, whose interpreter is this one."""
    from repro.core.encoding import encode
    from repro.environments.store import STAMP, _Stamp, fingerprint

    folder = cache / "cells" / recipe.id
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(python)
    (folder / STAMP).write_text(encode(_Stamp(recipe, fingerprint(recipe))), encoding="utf-8")


def _run(place: Path, step: str, real: bool) -> Scene:
    """A run of one prompt. Words of the progress stand for what the host does by itself."""
    shared = ("model", "--no-bundle")
    if real:  # what the signal does not meet is left out
        reduces, changes = step in ("reduce", "verifying"), step.startswith("ablation:")
        words = (*shared, *(() if reduces else ("--no-reduce",)), *(() if changes else ("--no-ablations",)))
        return Scene(place, words, _environment(), lambda said: f"{step} ..." in said or f"note: {step}" in said)
    python = _fake(place / "fake-python", step)
    return Scene(place, (*shared, "--python", f"./{python.name}"), _environment(), _met(place))


def _prompts(place: Path, step: str, real: bool) -> Scene:
    """Prompts in batches; the real kit is disturbed behind the twentieth answer."""
    number = 100 if real else 6
    lines = [json.dumps({"text": f"w{index % 90} w{index % 7}"}) for index in range(number)]
    (place / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ("prompts", "model", "prompts.jsonl", "--batch-size", "2", "--no-bundle")
    if real:
        answers = place / "o" / "prompts.jsonl"

        def inside(said: str) -> bool:
            return answers.exists() and answers.read_bytes().count(b"\n") > 20

        return Scene(place, words, _environment(), inside if step == "prompts" else lambda said: f"{step} ..." in said)
    python = _fake(place / "fake-python", step, prompts={"before": [{"batches": {"bad": "w4"}}]})
    return Scene(place, (*words, "--python", f"./{python.name}"), _environment(), _met(place))


def _matrix(place: Path, step: str, real: bool) -> Scene:
    """Two cells, the second of which is bad; ``step`` is CELL/STEP."""
    from support.hosting import BISECT, NAN_FORWARD

    from repro.environments.cells import recipes

    (place / "envs").mkdir()
    for name in "ab":
        (place / "envs" / f"{name}.toml").write_text(
            f'python = "3.11"\ndevice = "cpu"\nwhy = "an attack"\n[pins]\ntorch = "{"ab".index(name) + 1}"\n'
            'transformers = "1"\n', encoding="utf-8",
        )  # fmt: skip
    bad = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "payload": BISECT}}
    cell, _, inner = step.partition("/")
    for recipe in recipes(place / "envs"):
        told = bad if recipe.id == "b" else {}
        waits_in = inner if recipe.id == cell else ""
        _cell(place / "cache", recipe, _fake(place / f"python-{recipe.id}", waits_in, **told))
    words = ("matrix", "model", "--envs", "envs", "--resume", "--no-ablations")
    return Scene(place, words, _environment(REPRO_CACHE_DIR=str(place / "cache")), _met(place))


def _versions(place: Path, step: str, real: bool) -> Scene:
    """Two releases of a package, the second of which is bad; ``step`` is RELEASE/STEP."""
    from repro.core.records import Recipe

    (place / "asks.py").write_text("", encoding="utf-8")
    wheels = place / "wheels"
    wheels.mkdir()
    release, _, inner = step.partition("/")
    held = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for number, verdict in (("2.4.1", "good"), ("2.5.1", "bad")):
        _wheel(wheels, "torch", number)
        recipe = Recipe(id=f"torch-{number}-py{held}", python=held, device="cpu", why="", pins={"torch": number})
        told = {"script": {"verdict": verdict, "reason": f"it is {verdict}"}}
        python = _fake(place / f"python-{number}", inner if number == release else "", **told)
        _cell(place / "cache", recipe, python)
    (place / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n", encoding="utf-8")
    words = ("versions", "asks.py", "--package", "torch", "--good", "2.4.1", "--bad", "2.5.1", "--no-trace")
    env = _environment(REPRO_CACHE_DIR=str(place / "cache"), PIP_CONFIG_FILE=str(place / "pip.conf"))
    return Scene(place, words, env, _met(place))


def _wheel(folder: Path, name: str, version: str) -> None:
    """A package with nothing in it."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


SCENES = {"run": _run, "prompts": _prompts, "matrix": _matrix, "versions": _versions}


# Locks


@contextlib.contextmanager
def _holder(place: Path, folder: str) -> Iterator[int]:
    """Another process that writes into a folder, by its number."""
    (place / folder).mkdir(exist_ok=True)
    code = (
        "import pathlib, sys; from repro.core.locks import folder_held, nobody\n"
        f"with folder_held(pathlib.Path({folder!r}), 'repro run somebody/else', nobody): print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def _repro(place: Path, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "repro", *command], cwd=place, env=_environment(**more), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="backslashreplace", timeout=2 * SECONDS,
    )  # fmt: skip


@deed
def locked_out(place: Path, command: list[str], folder: str, then: list[int]) -> Iterator[str]:
    """A command into a folder that another process holds is told who that is; once that one is killed, it runs.

    Args:
        place: The attack's folder.
        command: What is asked.
        folder: The one that is held.
        then: The exit statuses that hold once it is free.
    """
    with _holder(place, folder) as pid:
        before = {path: path.stat().st_mtime_ns for path in (place / folder).rglob("*") if path.is_file()}
        ran = _repro(place, command)
        if ran.returncode != 2 or f"process {pid} on " not in ran.stderr or "repro run somebody/else" not in ran.stderr:
            yield f"it ended with {ran.returncode}: {ran.stderr[-400:]}"
        if before != {path: path.stat().st_mtime_ns for path in (place / folder).rglob("*") if path.is_file()}:
            yield "it has written into a folder that another one holds"
    ran = _repro(place, command)
    if ran.returncode not in then:
        yield f"once the folder was free it ended with {ran.returncode}: {ran.stderr[-400:]}"


@deed
def side_by_side(place: Path, what: str, step: str) -> Iterator[str]:
    """The same command twice: the second is refused while the first is at work, which ends as if left alone."""
    scene = SCENES[what](place, step, False)
    alone = _left_alone(scene, what, False)
    process = scene.start()
    try:
        if not _until(lambda: scene.point(scene.said())):
            yield f"the first never came there: {scene.said()[-400:]}"
            return
        ran = _repro(place, [*scene.command("o")[3:]], **scene.env)
        if ran.returncode != 2 or f"process {process.pid} on " not in ran.stderr:
            yield f"the second ended with {ran.returncode}: {ran.stderr[-400:]}"
        (place / "meet" / "go on").touch()
        if (status := process.wait(SECONDS)) != alone["status"]:
            yield f"the first ended with {status}: {scene.said()[-400:]}"
        yield from _differences(alone["verdict"], _answer(place / "o"))
    finally:
        process.kill()
        process.wait()


@deed
def robbed(place: Path, what: str, step: str, of: str, says: str) -> Iterator[str]:
    """A file, or the whole folder, is removed while the command is at work.

    Args:
        place: The attack's folder.
        what, step: As for ``kill``.
        of: What is removed, in the folder of the run; "." for the folder.
        says: What the only line says.
    """
    scene = SCENES[what](place, step, False)
    process = scene.start()
    try:
        if not _until(lambda: scene.point(scene.said())):
            yield f"it never came there: {scene.said()[-400:]}"
            return
        (shutil.rmtree if of == "." else os.unlink)(place / "o" / of)
        (place / "meet" / "go on").touch()
        status, said = process.wait(SECONDS), scene.said()
        if status != 125 or not re.search(says, said) or "please report" in said or "stays" in said:
            yield f"it ended with {status}: {said[-500:]}"
    finally:
        process.kill()
        process.wait()


@deed
def built_once(place: Path) -> Iterator[str]:
    """Two matrices at once build one cell once; the second waits and says so."""
    wheels = place / "wheels"
    wheels.mkdir()
    for name in ("torch", "transformers"):
        _wheel(wheels, name, "1")
    (place / "envs").mkdir()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (place / "envs" / "a.toml").write_text(
        f'python = "{version}"\ndevice = "cpu"\nwhy = "an attack"\n[pins]\ntorch = "1"\ntransformers = "1"\n',
        encoding="utf-8",
    )
    env = _environment(
        REPRO_CACHE_DIR=str(place / "cache"), UV_NO_INDEX="1", UV_FIND_LINKS=str(wheels), UV_OFFLINE="1",
        UV_CACHE_DIR=str(place / "uv"),
    )  # fmt: skip
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    (place / "s.py").write_text("", encoding="utf-8")
    words = [sys.executable, "-m", "repro", "matrix", "s.py", "--envs", "envs", "--no-ablations"]
    # The lock is held until both are there, so that neither has built the cell before the other one asks for it.
    from repro.core.locks import nobody, waited_for

    (place / "cache" / "cells").mkdir(parents=True)
    with waited_for(place / "cache" / "cells" / "a.lock", "an attack", "", nobody):
        both = [
            subprocess.Popen(
                [*words, "--out", out], cwd=place, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                stdout=subprocess.DEVNULL,
            )
            for out in ("one", "two")
        ]  # fmt: skip
        for process in both:
            assert process.stderr is not None
            while "waiting for the cell a" not in (line := process.stderr.readline()):
                if not line:
                    yield f"it did not wait: {process.wait()}"
                    break
    said = [process.communicate(timeout=2 * SECONDS)[1] for process in both]
    place = place / "cache" / "cells" / "a.log"
    log = place.read_text("utf-8", "replace") if place.exists() else ""
    if log.count("$ uv venv") != 1:
        yield f"the cell was built {log.count('$ uv venv')} times: {said}"
    if any("not built" in one for one in said):
        yield f"the cell was not built: {said}"
