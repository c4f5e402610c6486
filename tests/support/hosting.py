"""What the tests of the host share: a fake interpreter that speaks the wire, its answers, and the command itself."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from support import forked

from repro.cli.options import request_from
from repro.core.errors import BuildError
from repro.core.records import Case, Cell, Ending, Observation, Outcome, Plan, Recipe, Verdict
from repro.engine.runner import Limits, Setting

FAKE_KIT = Path(__file__).parent / "fake_kit.py"
ROOT = Path(__file__).parents[2]

ORIGIN = {
    "module": "model.layers.7",
    "module_class": "Gemma3DecoderLayer",
    "op": "aten.add.Tensor",
    "call_index": 0,
    "mechanism": "overflow",
    "token_index": 0,
    "token": "<bos>",
    "channel_index": 163,
    "source": "modeling_gemma3.py:416",
    "inputs": [{"dtype": "float16", "shape": [1, 15, 640], "min": -100.0, "max": 55008.0}],
    "output": {"dtype": "float16", "shape": [1, 15, 640], "min": -100.0, "max": "inf", "posinf": 1},
    "reference_value": 68394.8671875,
    "limit": 65504.0,
    "reference": {"value": 68394.8671875, "dtype": "float32", "scope": "model"},
    "confirmed": True,
    "confirmed_by": "repaired",
}
BISECT = {"origin": ORIGIN, "prompt": 0, "limit": 65504.0, "dtype": "float16", "spread": [], "headroom": []}
NAN_FORWARD = {"verdict": "bad", "reason": "every logit is NaN", "payload": {"logits": {"nan": 60}, "prompts": []}}


def observation(step, verdict="good", reason=None, payload=None, ending="ended", **more):
    """An observation of one step, as the runner makes it."""
    return Observation(
        step=step,
        ending=Ending(ending),
        verdict=Verdict(Outcome(verdict), reason or f"{step} is {verdict}"),
        seconds=0.5,
        argv=("python", "probes.pyz"),
        cell=Cell("/usr/bin/python3"),
        kit_sha256="0" * 64,
        payload=payload,
        **more,
    )


def observed(*observations):
    """Observations by step."""
    return {item.step: item for item in observations}


def answers(folder, **steps):
    """Write what the fake kit answers ("ablation_" stands for "ablation:"). Returns the variable that names it."""
    path = folder / "answers.json"
    path.write_text(json.dumps({name.replace("ablation_", "ablation:"): value for name, value in steps.items()}))
    return {"FAKE_KIT": str(path)}


def fake_python(folder):
    """A program that takes a Python's arguments and speaks the wire."""
    path = folder / "fake-python"
    path.write_text(f"#!{sys.executable}\n{FAKE_KIT.read_text()}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def model_folder(folder):
    """The least that the host takes for a model."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    return folder / "model"


def setting(folder, *steps, python=sys.executable, **limits):
    """A run of the fake kit itself."""
    return Setting(
        plan=Plan(steps, Case("gpt2", prompts=("a",)), str(folder)),
        cell=Cell(str(python)),
        kit=FAKE_KIT,
        kit_sha256="0" * 64,
        folder=folder,
        limits=Limits(**limits),
    )


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.heard = []

    def started(self, step):
        self.heard.append(("started", step))

    def progress(self, step, done, total, unit):
        self.heard.append(("progress", step, done, total, unit))

    def ended(self, observation):
        self.heard.append(("ended", observation.step))

    def note(self, text):
        self.heard.append(("note", text))


def command(*args):
    """The command line of ``repro`` in a process of its own."""
    return [sys.executable, "-m", "repro", *map(str, args)]


def environment(**more):
    """This process's environment, with the package found wherever a test runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def repro(*args, cwd, env=None):
    """Run ``repro`` to its end; in a fresh interpreter, but for tests that ask for ``forked_interpreters``."""
    return forked.run(
        command(*args),
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )


def is_gone(pid):
    """Whether a process has ended; it may take a moment after the signal. A zombie that nobody reaps has ended."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


OPTIONS = {
    "weights": "checkpoint", "dtype": None, "attn": None, "prompts": (), "trust_remote_code": False,
    "fault": "nonfinite", "timeout": None, "step_timeout": None, "ablations": False,
}  # fmt: skip


class Told:
    """An announcer that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def task(self, name):
        raise AssertionError(f"{name}: everything stands in these tests")


class Store:
    """Cells that stand; those in ``broken`` cannot be built."""

    def __init__(self, python, broken=()):
        self.python, self.broken = python, broken

    def built(self, recipe):
        if recipe.id in self.broken:
            raise BuildError("no Python 3.11 on this machine")
        return Cell(str(self.python))


def recipe(name, **more):
    pins = {"torch": "2.4.1", "transformers": "4.57.3"}
    return Recipe(**{"id": name, "python": "3.11", "device": "cpu", "why": "a test", "pins": pins, **more})


def ask_cells(
    folder, monkeypatch, *known, steps=None, only=None, broken=(), out="out", resume=False, jobs=1, options=None
):
    """A matrix of a small model, each cell with a fake interpreter; returns its answer, and the lines that were told.

    Args:
        folder: Where model, interpreter and the matrix's own folder are.
        monkeypatch: Sets the variable that names the answers.
        known: The recipes.
        steps: What the fake kit answers.
        only: The ids that are asked; None for all.
        broken: The ids that cannot be built.
        out, resume, jobs: Of the matrix.
        options: In place of those of the command line.
    """
    from repro.sweeps.matrix.run import Matrix
    from repro.sweeps.matrix.run import run as run_matrix

    model, python = model_folder(folder), fake_python(folder)
    for name, value in answers(folder, **(steps or {})).items():
        monkeypatch.setenv(name, value)
    request = request_from("run", {**OPTIONS, "model": str(model), **(options or {})})
    chosen = tuple(item for item in known if only is None or item.id in only)
    told = Told()
    matrix = Matrix(request, tuple(known), chosen, folder / out, jobs, resume)
    return run_matrix(matrix, Store(python, broken), told).answer, told.lines
