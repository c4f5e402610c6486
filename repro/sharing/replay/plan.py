"""What a replay would run: the scripts of a bundle, and the model where it is on this machine. Nothing is started.

The probe kit of a bundle is never run: the one of this installation is, which is the same where the hashes agree.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from repro.core import paths
from repro.core.answer import Answer, ScriptRecord
from repro.core.case import case_from
from repro.core.errors import RecordError, ReproError, UsageError
from repro.core.locks import is_unused
from repro.core.records import Case, Cell, Fault, Kind, Outcome
from repro.engine.kit import pack
from repro.engine.runner import Limits
from repro.environments.cells import DEVICES
from repro.reproducer.script import LEVELS
from repro.run.bundle.read import Opened
from repro.run.run import Request
from repro.sharing.forms.folder import scripts_of

MOST_RUNS = 3
DTYPES = ("float16", "bfloat16", "float32", "float64")
ATTENTIONS = ("eager", "sdpa")
MOST_STEPS = 10_000
"""Of a generation or a training; a run that asks for more is none that anybody waits for."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script of the bundle: its text as it was verified, its arguments, and its record in verdict.json."""

    name: str
    text: str
    argv: tuple[str, ...]
    record: ScriptRecord

    @property
    def runs(self) -> int:
        """As often as it was run when it was written, within reason."""
        return min(max(self.record.runs, 1), MOST_RUNS)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a replay would run. ``notes`` say what it would not run and why; ``kit`` is said of the probe kit."""

    opened: Opened
    cell: Cell
    scripts: tuple[Script, ...]
    request: Request | None
    kit: str
    notes: tuple[str, ...]
    limits: Limits


def new_folder(place: Path, out: Path | None) -> Path:
    """The folder of a replay, which does not exist or is empty.

    Raises:
        UsageError: there is something in it.
    """
    if out is None:
        return paths.run_folder(Case(place.absolute().stem), datetime.now(UTC), "replay")
    if out.exists() and not is_unused(out):
        raise UsageError(f"--out {out} is not empty. Give a new folder.")
    return out


def propose(opened: Opened, cell: Cell, limits: Limits, out: Path, model: str | None = None) -> Proposal:
    """What would be run; nothing is started.

    Args:
        opened: The bundle.
        cell: The interpreter that would run it.
        limits: Of the run of the model; the limit of the whole run is that of each script too.
        out: The folder of the replay.
        model: Where the model is here, in place of where it was.

    Raises:
        UsageError: ``model`` cannot be used.
        RecordError: verdict.json asks for what no model can be asked.
        ReproError: there is no fault to look for.
    """
    answer = opened.answer
    if answer.verdict is not Outcome.BAD:
        said = f"the verdict of {opened.folder} is {answer.verdict.value}"
        raise ReproError(f"{said}: there is no fault to look for. {answer.reason}")
    notes: list[str] = []
    request = _request(answer, cell, limits, out, model, notes)
    local = request.case.model if request is not None and Path(request.case.model).is_absolute() else None
    scripts = _scripts(opened, local, notes)
    return Proposal(opened, cell, scripts, request, _kit(opened), tuple(notes), limits)


def _scripts(opened: Opened, model: str | None, notes: list[str]) -> tuple[Script, ...]:
    """The scripts that verdict.json names, the nearest to the user's own model first."""
    records = scripts_of(opened.answer)
    if not records:
        notes.append("the bundle has no reproducer")
    found = []
    for record in records:
        if record.path is None:
            continue  # it was tried, did not show the fault, and was not kept
        name = _member(opened, record.path, record.sha256)
        if name is None:
            notes.append(f"{record.path} is missing, or is not the file that was verified")
        elif record.usage and model is None:
            notes.append(f"{name} needs the model, which is not here. Give its place with --model.")
        else:
            argv = (model,) if record.usage and model is not None else ()
            found.append(Script(name, opened.read(name).decode("utf-8", "replace"), argv, record))
    return tuple(sorted(found, key=lambda script: _nearness(script.record.level)))


def _member(opened: Opened, path: str, sha256: str) -> str | None:
    """The file that a record means: by its hash, as a matrix has the scripts of many runs; by its name without one."""
    named = [item for item in opened.names() if item == path or item.endswith(f"/{path}")]
    named.sort(key=lambda item: (item != path, item))
    if sha256:
        named = [item for item in named if opened.original_sha256(item) == sha256]
    return named[0] if named else None


def _nearness(level: str) -> int:
    """How near a script is to what the user runs: one that loads the model is nearer than one with one operator."""
    return -LEVELS.index(level) if level in LEVELS else 1


def _request(
    answer: Answer, cell: Cell, limits: Limits, out: Path, model: str | None, notes: list[str]
) -> Request | None:
    """The run of the model, where it is here; else None, and a note that says why."""
    asked = answer.case
    for what, value, known in (
        ("dtype", asked.dtype, DTYPES),
        ("attn", asked.attn, ATTENTIONS),
        ("device", asked.device, DEVICES),
    ):
        if value is not None and value not in known:
            raise RecordError(f"verdict.json asks for {what} {value!r}; known values are {', '.join(known)}.")
    for what in ("generate", "train_step", "accumulate"):
        count = getattr(asked, what)
        if count is not None and not 1 <= count <= MOST_STEPS:
            raise RecordError(f"verdict.json asks for {what} {count}; a replay does 1 to {MOST_STEPS:,}.")
    place = model or _here(asked, answer.model.revision)
    why = _why_not(asked, place, withheld=answer.private_prompts)
    if place is None or why is not None:
        notes.append(f"the model is not run: {why}")
        return None
    case = case_from(
        place,
        weights=asked.weights,
        device=asked.device,
        dtype=asked.dtype,
        attn=asked.attn,
        prompts=asked.prompts,
        image=asked.image,
        audio=asked.audio,
        inputs=asked.inputs,
        generate=asked.generate,
        train_step=asked.train_step,
        accumulate=asked.accumulate,
        keep_float32=asked.keep_float32,
        keep_bfloat16=asked.keep_bfloat16,
    )
    if model is None and case.model != asked.model:
        notes.append(
            f"the model is not run: a file in this folder has the name {asked.model}. Start in another folder."
        )
        return None
    return Request(
        command="run" if case.is_script else _command(answer),
        model=place,
        case=case,
        cell=cell,
        python=cell.python,
        ablations=False,
        reduce=False,
        deliver=False,
        fault=Fault.CRASH if answer.kind is Kind.CRASH else Fault.NONFINITE,
        limits=limits,
        out=out / "run",
    )


def _why_not(asked: Case, place: str | None, *, withheld: bool) -> str | None:
    """Why the model of a bundle is not run here; None where it is."""
    if asked.trust_remote_code:
        return "it brings its own code, which a replay never runs"
    if asked.factory is not None:
        return "a function of somebody's own gives it, which a replay never runs"
    if withheld and any(prompt.startswith("(") for prompt in asked.prompts):
        return "its prompts are withheld, and other prompts would ask another question"
    gone = [Path(path).name for path in asked.given.values() if not Path(path).is_file()]
    if gone:
        return f"the file of its inputs, {gone[0]}, is not here, and other inputs would ask another question"
    return f"{asked.model} is not here. Give its place with --model." if place is None else None


def _command(answer: Answer) -> str:
    """The shortest command that asks what was answered; the ablations are not run again."""
    steps = {step.step for step in answer.steps}
    return next((name for name in ("bisect", "forward") if name in steps), "weights")


def _here(case: Case, revision: str | None) -> str | None:
    """MODEL as it can be asked for on this machine without fetching anything; None where it cannot."""
    if Path(case.model).is_absolute():
        return case.model if Path(case.model).exists() and not case.is_script else None
    if case.model.startswith((".", "~")) or not (case.config or _cached(case.model)):
        return None
    revision = revision or case.revision
    return f"{case.model}@{revision}" if revision and not case.config else case.model


def _cached(hub_id: str) -> bool:
    """Whether the Hub's cache on this machine has some revision of the model."""
    variables = os.environ
    home = Path(variables.get("HF_HOME") or Path(variables.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    hub = Path(variables.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return any((hub / f"models--{hub_id.replace('/', '--')}" / "snapshots").glob("*/config.json"))


def _kit(opened: Opened) -> str:
    """What is said of the probe kit."""
    own, said = pack().sha256, opened.answer.kit_sha256
    if own == said:
        return f"the probe kit of this installation, which is the bundle's own (SHA-256 {own[:12]}...)"
    return (
        f"the probe kit of this installation (SHA-256 {own[:12]}...). The bundle was made with another "
        f"({said[:12]}...), which is not run"
    )
