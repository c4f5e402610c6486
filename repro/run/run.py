"""One run from a request to a verdict: folder, kit, runner, judge, report. Reads top to bottom as a list of steps."""

import contextlib
import dataclasses
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.errors import EvidenceError, Stopped, UsageError
from repro.core.folders import check_held_still, check_unchanged, check_unused, seen
from repro.core.foreign import limits
from repro.core.locks import folder_held
from repro.core.records import Case, Cell, Fault, Header, Outcome, Plan
from repro.core.steps import Step, asked_by, every
from repro.diagnosis.answer import answer
from repro.diagnosis.known import catalogue, excluded, looks_like
from repro.diagnosis.owner import owner
from repro.diagnosis.verdict import judge
from repro.engine import runner
from repro.engine.evidence import NAME as EVIDENCE
from repro.engine.evidence import Evidence, TrialLog
from repro.engine.kit import Kit, pack
from repro.engine.runner import NO_LIMITS, Limits, Listener, Rows, Setting
from repro.report.privacy.machine import private_words
from repro.report.privacy.mask import Mask
from repro.reproducer.offer import offer
from repro.run import output
from repro.run.withheld import NAME as WITHHELD
from repro.run.withheld import withheld

REDUCE, REFERENCE, SKETCH = "reduce", "reference", "sketch"
WHOLE = frozenset({"run", "find", "watch"})
"""Commands that look for a script and write the page and the bundle; the last two are calls in the user's process."""
BEFORE = (WITHHELD, f"{WITHHELD}.part")
"""What a run that was killed may leave in its folder before it has recorded anything."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken the way that Ctrl-C is."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for. ``model`` is MODEL as it was written.

    ``reference``: hold each operator against float64. ``sketch``: keep what tells how far two environments' outputs
    are apart. ``reduce``: look for a smaller case and write the script that
    shows it. ``deliver``: also write report.html and bundle.zip. ``private_prompts``: leave the texts of the prompts
    out of all of it. ``batches``: the file of prompts and how it is run; ``extra``: what of the command line says so.
    ``program``: the command of the user's own program, where it was asked in that one's process.
    """

    command: str
    model: str
    case: Case
    cell: Cell
    python: str | None = None
    ablations: bool = True
    reference: bool = True
    sketch: bool = False
    reduce: bool = True
    deliver: bool = True
    private_prompts: bool = False
    fault: Fault = Fault.NONFINITE
    limits: Limits = NO_LIMITS
    out: Path | None = None
    extra: tuple[str, ...] = ()
    batches: Mapping[str, Any] | None = None
    program: tuple[str, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all that a run can say is wanted, down to the script that shows the fault."""
        return self.command in WHOLE

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in order."""
        return tuple(step.name for step in self._asked() if self._wanted(step))

    def _asked(self) -> tuple[Step, ...]:
        return asked_by(self.command, self.subject, self.case.phase)

    def _wanted(self, step: Step) -> bool:
        if step.option is not None and getattr(self.case, step.option) is None:
            return False
        if step.is_ablation:
            return self.ablations
        if step.name == REFERENCE:
            return self.reference
        if step.name == SKETCH:
            return self.sketch
        # What a script ends with is its whole answer: without a reduction nobody asks where it is born.
        return self.reduce or step.name not in ((REDUCE, "bisect") if self.case.is_script else (REDUCE,))

    @property
    def subject(self) -> str:
        """What the steps are asked of."""
        if self.command == "watch":
            return "program"
        if self.case.is_script:
            return "script"
        return "model" if self.case.factory is None else "module"

    @property
    def deciding(self) -> str:
        """The step that must be good for the run to be good."""
        if self.command == "watch":
            return "watch"
        if self.case.is_script:
            return "script" if "script" in self.steps else self.steps[-1]
        return self.case.phase if self.case.phase in self.steps else self.steps[-1]

    @property
    def named(self) -> str:
        """MODEL as it was written, or the factory in its place."""
        return self.model or self.case.model

    @property
    def words(self) -> str:
        """The command without its options, which may hold private prompts."""
        return shlex.join(["repro", self.command, self.named])

    def argv(self) -> tuple[str, ...]:
        """The command that gives it again, without the folder, so that it is run again and not read again."""
        if self.program is not None:
            return self.program
        argv = ["repro"] if self.command == "run" else ["repro", self.command]
        argv += [*([self.model] if self.model else []), *self.extra]
        named = {"--factory": self.case.factory, "--device": self.case.device, "--dtype": self.case.dtype}
        named["--attn"] = self.case.attn
        named["--keep-float32"], named["--keep-bfloat16"] = self.case.keep_float32, self.case.keep_bfloat16
        if self.case.weights.startswith("random"):
            named["--weights"] = self.case.weights
        if self.fault is not Fault.NONFINITE:
            named["--fault"] = self.fault.value
        for seconds, option in ((self.limits.run_seconds, "--timeout"), (self.limits.step_seconds, "--step-timeout")):
            named[option] = None if seconds is None else f"{seconds:g}"
        named["--limits"] = limits.wanted()
        named["--python"] = self.python
        for option, value in named.items():
            argv += [] if value is None else [option, value]
        argv += self.case.phase_words
        for prompt in self.case.prompts:
            argv += ["--prompt", prompt]
        for option, path in self.case.given.items():
            argv += [option, str(paths.relative(Path(path)))]
        argv += ["--trust-remote-code"] if self.case.trust_remote_code else []
        argv += ["--private-prompts"] if self.private_prompts else []
        switches = {"--no-reference": self.reference, "--no-ablations": self.ablations}
        switches.update({"--no-reduce": self.reduce, "--no-bundle": self.deliver})
        known = {"run": tuple(switches), "prompts": ("--no-bundle",)}.get(self.command, ())
        argv += [switch for switch, on in switches.items() if not on and switch in known]
        argv += ["--sketch"] if self.sketch else []
        return tuple(argv)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run leaves: its folder and the content of verdict.json."""

    folder: Path
    answer: Answer


def run(request: Request, listener: Listener, rows: Rows | None = None) -> Result:
    """Run the request, or go on with one that was stopped; write verdict.json and report.md.

    ``rows`` is given the record of each example as it comes.

    Raises:
        UsageError: the folder holds the evidence of another case, another run is writing there, or a script is asked
            what only a model can answer.
        EvidenceError: the folder cannot be written.
        CellError: the interpreter cannot be started.
        Stopped: Ctrl-C or SIGTERM; what was recorded stays.
    """
    if not asked_by(request.command, request.subject):
        known = dict.fromkeys(name for step in every() for name in step.asked_by if request.subject in step.subjects)
        commands = ", ".join(name for name in known if asked_by(name, request.subject))
        why = "is a script: it has no weights and no layers" if request.case.is_script else "has no files of a model"
        raise UsageError(f"{request.named} {why}. Commands: {commands}.")
    folder = paths.make(request.out or paths.run_folder(request.case, datetime.now(UTC)))
    with folder_held(folder, request.words, listener.note):
        if not (folder / EVIDENCE).exists():
            check_unused(folder, *BEFORE)
        return run_into(folder, request, listener, rows)


def run_into(folder: Path, request: Request, listener: Listener, rows: Rows | None = None) -> Result:
    """As ``run``, into a folder that the caller holds."""
    kit = pack()
    now = datetime.now(UTC)
    if request.private_prompts:
        batches = None if request.batches is None else {**request.batches, "withheld": True}
        request = dataclasses.replace(request, case=withheld(request.case, folder), batches=batches)
    header = Header(
        case=request.case,
        cell=request.cell,
        kit_sha256=kit.sha256,
        tool=__version__,
        command=request.argv(),
        started=now.isoformat(timespec="seconds"),
        inputs=seen(request.case, request.cell),
    )
    evidence = _open(folder, header)
    before = [done for done in evidence.finished() if done.step in request.steps]
    trials = TrialLog(folder)
    for log, again in ((evidence, "its step"), (trials, "its trial")):
        if log.cut:
            listener.note(f"the last line of {log.path.name} was cut off and is dropped: {again} is asked again")
    if before:
        listener.note(
            f"resuming in {paths.relative(folder)}: {len(before)} of {len(request.steps)} steps are recorded there"
        )
    setting = _setting(request, kit, folder)
    try:
        with terminable():
            runner.run(setting, evidence.append, listener, before, trials, rows)
            check_held_still(header.inputs, seen(request.case, request.cell), folder)
            return conclude(request, folder, evidence, listener)
    except KeyboardInterrupt as error:
        again = shlex.join([*request.argv(), "--out", str(request.out or paths.relative(folder))])
        raise Stopped(143 if isinstance(error, Terminated) else 130, again) from None


def _open(folder: Path, header: Header) -> Evidence:
    """The folder's evidence: begun, or found to be of the same case."""
    evidence = Evidence(folder)
    before = evidence.header
    if before is None:
        if evidence.observations:
            raise EvidenceError(f"{evidence.path} has no header. Give another folder with --out.")
        evidence.begin(header)
        return evidence
    for what, old, new in (
        ("case", before.case, header.case),
        ("interpreter", before.cell, header.cell),
        ("probe kit", before.kit_sha256, header.kit_sha256),
    ):
        if old != new:
            raise UsageError(
                f"--out {folder} holds a run of another {what} ({shlex.join(before.command)}). "
                "Give another folder, or remove that one."
            )
    check_unchanged(before.inputs, header.inputs, folder)
    return evidence


def _setting(request: Request, kit: Kit, folder: Path) -> Setting:
    return Setting(
        plan=Plan(request.steps, request.case, str(paths.cache_folder()), prompts=request.batches),
        cell=request.cell,
        kit=kit.write(folder),
        kit_sha256=kit.sha256,
        folder=folder,
        limits=request.limits,
    )


def conclude(request: Request, folder: Path, evidence: Evidence, listener: Listener) -> Result:
    """Judge what was observed, verify the script that shows it, and write what says so."""
    assert evidence.header is not None
    asked = {o.step: o for o in evidence.observations if o.step in request.steps}
    observations = {step: asked[step] for step in request.steps}
    judgement = judge(observations, request.case, request.deciding, request.fault)
    header = dataclasses.replace(evidence.header, command=request.argv())
    found = answer(judgement, observations, header, evidence.sha256())
    found = replace(found, private_prompts=request.private_prompts)
    if request.reduce and request.is_whole and found.verdict is Outcome.BAD:
        mask = Mask.of(found, private_words())
        made = offer(found, request.cell.python, folder, mask, listener, project_of=_project)
        found = replace(found, reproducer=made)
    found = replace(found, owner=owner(found, excluded(found)))
    known = catalogue()
    for problem in known.problems:
        listener.note(problem)
    found = replace(found, looks_like=looks_like(found, known.faults))
    return Result(folder, output.write(folder, found, whole=request.deliver and request.is_whole))


def _project(found: Answer) -> str | None:
    """Whose fault it is, as far as the run can tell with the script that it has by now."""
    whose = owner(found, excluded(found))
    return None if whose is None else whose.project


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the run the way that Ctrl-C does: the kit is stopped and nothing that was recorded is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
