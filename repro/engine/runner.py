"""Starts the kit in a cell, reads its events, and starts it again behind a step in which it died.

What an operating system does to a process that computes (SIGSEGV, SIGBUS, the out-of-memory killer) is an observation
here, like any other answer. Every step of the plan ends as exactly one observation, handed to ``record`` as soon as it
is known.
"""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from repro.core.encoding import SCHEMA, number, plan_text
from repro.core.errors import CellError, RecordError
from repro.core.paths import not_written
from repro.core.records import Cell, Ending, Failure, Observation, Outcome, Plan, Verdict
from repro.core.steps import Needs, named
from repro.engine.events import Done, End, Event, Example, Hello, Progress, Start, Trial, read
from repro.engine.evidence import TrialLog
from repro.engine.process import LOG, SHOWN_LINE, Process, death, earliest

PLAN = "plan.json"
PLAN_OF_RESTART = "plan.restart.json"
Rows = Callable[[Mapping[str, Any]], None]
PASSES = frozenset({Needs.PASSES, Needs.ORIGIN})
LOADED = PASSES | {Needs.MODEL}
MOST_STRAY = 10_000
"""How many lines that are no events are passed over, until the program is taken for no kit."""
VERSION_SECONDS = 20
CRASHES = 12
"""How many trials of a reduction may kill their process before it is given up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds; None is no limit. The load step has only the limit of the run, for it may download."""

    run_seconds: float | None = None
    step_seconds: float | None = None


NO_LIMITS = Limits()


class Listener(Protocol):
    """Is told what happens while it happens."""

    def started(self, step: str) -> None: ...

    def progress(self, step: str, done: int, total: int, unit: str) -> None: ...

    def ended(self, observation: Observation) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What every process of one run shares."""

    plan: Plan
    cell: Cell
    kit: Path
    kit_sha256: str
    folder: Path
    limits: Limits = NO_LIMITS


def run(
    setting: Setting,
    record: Callable[[Observation], None],
    listener: Listener,
    finished: Iterable[Observation] = (),
    trials: TrialLog | None = None,
    rows: Rows | None = None,
) -> dict[str, Observation]:
    """Every step of the plan, each as one observation, by name.

    Args:
        setting: Plan, cell, kit, folder and limits.
        record: Is given each observation as soon as it is known.
        listener: Is told what happens meanwhile.
        finished: Observations of an earlier run into the same folder; they are not repeated.
        trials: Where the trials of a reduction are kept. With it, a step whose trial killed the process goes on behind
            that trial.
        rows: Is given the record of each example of a file of prompts as it comes.

    Raises:
        CellError: the interpreter cannot be started, or its kit speaks another schema.
        EvidenceError: the run folder cannot be written.
        KeyboardInterrupt: passed on, after the kit and what it started are gone.
    """
    return _Run(setting, record, listener, finished, trials, rows).to_the_end()


class _Run:
    """The state of one call of ``run``: what is known by now, and when the time is up."""

    def __init__(
        self,
        setting: Setting,
        record: Callable[[Observation], None],
        listener: Listener,
        finished: Iterable[Observation],
        trials: TrialLog | None,
        rows: Rows | None,
    ) -> None:
        self.trials = trials
        self.rows = rows
        self.setting = setting
        self.record = record
        self.listener = listener
        self.deadline = _after(setting.limits.run_seconds)
        self.known = {done.step: done for done in finished if done.step in setting.plan.steps}

    def to_the_end(self) -> dict[str, Observation]:
        """Start processes until every step is known. Each one adds at least one observation, so this ends."""
        while True:
            for step in self.left():
                why = _why_not(step, self.known)
                if why is not None:
                    self.conclude(_not_run(self.setting, step, why))
            if not self.left():
                return self.known
            if _is_past(self.deadline):
                return self.give_up(_time_is_up(self.setting.limits))
            before = self.progress()
            setting, say = self.setting, self.listener.note
            with Process(self.command(), setting.folder, say, setting.limits.step_seconds) as process:
                process.log(f"[repro] steps: {' '.join(self.left())}")
                _Follower(self, process).follow()
                if self.progress() == before:
                    return self.give_up(_no_answer(process))

    def progress(self) -> tuple[int, int]:
        """What each process has to add to: known steps, or trials that have begun."""
        return len(self.known), 0 if self.trials is None else self.trials.begun.total()

    def left(self) -> tuple[str, ...]:
        """The steps that have no observation yet."""
        return tuple(step for step in self.setting.plan.steps if step not in self.known)

    def conclude(self, observation: Observation) -> None:
        """One step has its observation."""
        self.record(observation)
        self.known[observation.step] = observation
        self.listener.ended(observation)

    def give_up(self, why: str) -> dict[str, Observation]:
        """Nothing that is left can be run."""
        for step in self.left():
            self.conclude(_not_run(self.setting, step, f"not run: {why}"))
        return self.known

    def command(self) -> tuple[str, ...]:
        """The command of the next process, its plan written to a file. plan.json always holds the whole plan."""
        folder, plan = self.setting.folder, self.setting.plan
        path = folder / PLAN
        try:
            path.write_text(plan_text(plan), encoding="utf-8")
            known = self.trials.known if self.trials is not None else {}
            if self.left() != plan.steps or known:
                path = folder / PLAN_OF_RESTART
                forward = self.known.get("forward")
                passed = forward is not None and forward.ending is Ending.ENDED
                rest = replace(plan, steps=self.left(), trials=known or None, passed=passed)
                path.write_text(plan_text(rest), encoding="utf-8")
        except OSError as error:
            raise not_written(path, error) from error
        return (self.setting.cell.python, "-X", "faulthandler", str(self.setting.kit), "run", str(path))


class _Follower:
    """Follows one process from its first event to its end, or to the point where nothing it would do is wanted."""

    def __init__(self, run: _Run, process: Process) -> None:
        self.run = run
        self.process = process
        self.asked = run.left()
        self.current: str | None = None
        self.trial: str | None = None
        self.announced = time.monotonic()
        self.over = False
        self.stray = 0
        process.deadline = run.deadline

    def follow(self) -> None:
        """Take each event; then, if the process ended in a step, that step crashed or took too long."""
        for line in self.process.lines():
            try:
                event = read(line)
            except RecordError as error:
                self.stray += 1
                if self.stray > MOST_STRAY:
                    self.process.stop()  # no kit speaks like this: nothing is to be expected of it
                    return
                self.process.log(f"[repro] no event ({error}), ignored: {line[:SHOWN_LINE]!r}")
                if self.stray == 1:
                    self.run.listener.note(f"the kit wrote a line that is no event; it was ignored and is in {LOG}")
            else:
                self.take(event)
            if self.over:
                return
        seconds = time.monotonic() - self.announced
        if self.process.timed_out:
            self.run.conclude(self.timed_out(self.current or self.run.left()[0], seconds))
        elif self.current is not None and not self.goes_on():
            self.run.conclude(self.crashed(self.current, seconds))

    def goes_on(self) -> bool:
        """Whether the process died in a trial of a reduction, which is then skipped, or asked again where somebody else
        ended the process: the step itself is not over.
        """
        trials = self.run.trials
        if trials is None or self.trial is None or trials.known.get(self.trial) is not None or trials.open > CRASHES:
            return False
        signal, what = death(self.process.exit_status())
        again = trials.died(self.trial, signal)
        how = "it is asked again" if again else "going on behind it"
        self.run.listener.note(f"the process {what} in trial {self.trial}; {how}")
        return True

    def take(self, event: Event | None) -> None:
        """One event; None for one that this version does not know."""
        match event:
            case Hello(schema=schema) if schema != SCHEMA:
                raise CellError(f"the kit speaks schema {schema!r} and this host {SCHEMA}: install repro again.")
            case Done():
                self.process.finish()
                self.over = True
            case Start() | Progress() | Trial() | Example() | End():
                if event.step not in self.asked or event.step in self.run.known:
                    self.process.log(f"[repro] ignored, for the step was not asked for or has ended: {event!r}")
                else:
                    self.take_of_step(event)

    def take_of_step(self, event: Start | Progress | Trial | Example | End) -> None:
        """One event of a step that is running."""
        match event:
            case Start():
                self.start(event.step)
            case Progress():
                self.run.listener.progress(event.step, event.done, event.total, event.unit)
            case Trial():
                self.tried(event)
            case Example():
                if self.run.rows is not None:
                    self.run.rows(event.record)
            case End():
                self.end(event)

    def start(self, step: str) -> None:
        """A step was announced."""
        self.current, self.announced = step, time.monotonic()
        if step != "load":
            self.process.deadline = earliest(self.run.deadline, _after(self.run.setting.limits.step_seconds))
        self.run.listener.started(step)

    def tried(self, event: Trial) -> None:
        """A trial begins, or has its answer."""
        self.trial = event.trial
        if self.run.trials is not None:
            self.run.trials.append(self.trial, event.holds)
            if event.step == "reduce":  # nobody knows how many there will be
                self.run.listener.progress("reduce", len(self.run.trials.known), 0, "trials")

    def end(self, event: End) -> None:
        """A step has its answer. What it forbids is not waited for: the process is left, and so stopped."""
        seconds = time.monotonic() - self.announced
        self.current, self.process.deadline = None, self.run.deadline
        self.run.conclude(self.ended(event, seconds))
        self.over = any(_why_not(step, self.run.known) for step in self.run.left())

    def ended(self, event: End, seconds: float) -> Observation:
        """The observation in an end event; one that does not keep to the contract is a skip that says so."""
        reason = event.reason or "no reason was given"
        try:
            outcome = Outcome(event.verdict)
        except ValueError:
            outcome, reason = Outcome.SKIP, f"the kit gave the unknown verdict {event.verdict!r}: {reason}"
        took = number(event.seconds)
        return _observation(
            self.run.setting,
            step=event.step,
            ending=Ending.ENDED,
            verdict=Verdict(outcome, reason),
            seconds=seconds if took is None else took,
            argv=self.process.argv,
            stderr_tail=() if event.error is None else self.process.stderr_tail,
            payload=event.payload,
            failure=event.error,
        )

    def crashed(self, step: str, seconds: float) -> Observation:
        """The process ended while a step was running."""
        status = self.process.exit_status()
        signal_name, what = death(status)
        tail = self.process.stderr_tail
        last = "" if not tail else f"; stderr: {tail[0] if tail[0].startswith('Fatal') else tail[-1]}"
        return _observation(
            self.run.setting,
            step=step,
            ending=Ending.CRASHED,
            verdict=Verdict(Outcome.SKIP, f"the process {what} in the {step} step{last}"),
            seconds=seconds,
            argv=self.process.argv,
            exit_status=status,
            stderr_tail=tail,
            failure=Failure(type="crash", message=f"the process {what}", signal=signal_name),
        )

    def timed_out(self, step: str, seconds: float) -> Observation:
        """The process was stopped because its time was up."""
        limits = self.run.setting.limits
        of_step = f"the time limit of a step ({limits.step_seconds or 0:g} s) was up"
        why = _time_is_up(limits) if _is_past(self.run.deadline) else of_step
        why += ", and a signal had stopped the process" if self.process.stopped else ""
        return _observation(
            self.run.setting,
            step=step,
            ending=Ending.TIMED_OUT,
            verdict=Verdict(Outcome.SKIP, f"stopped after {seconds:.1f} s: {why}"),
            seconds=seconds,
            argv=self.process.argv,
            exit_status=self.process.exit_status(),
            stderr_tail=self.process.stderr_tail,
            failure=Failure(type="timeout", message=why),
        )


def _why_not(step: str, known: dict[str, Observation]) -> str | None:
    """Why a step must not be started, from what is known of the steps before it; None where it may."""
    for earlier in known.values():
        if earlier.fatal:
            return f"not run: the {earlier.step} step ended all others: {earlier.verdict.reason}"
    found = named(step)
    needs = None if found is None else found.needs
    forward = known.get("forward")
    if forward is not None and forward.ending is Ending.CRASHED and needs in PASSES:
        return "not run: it makes the same pass again, in which the forward step crashed"
    load = known.get("load")
    if load is not None and load.verdict.outcome is Outcome.SKIP and needs in LOADED:
        return "not run: the load step gave no model"
    return None


def _not_run(setting: Setting, step: str, why: str) -> Observation:
    verdict = Verdict(Outcome.SKIP, why)
    return _observation(setting, step=step, ending=Ending.NOT_RUN, verdict=verdict, seconds=0.0, argv=())


def _observation(setting: Setting, **fields: Any) -> Observation:
    if setting.plan.case.texts is not None:  # other programs wrote it, and may have quoted a prompt; kit.log keeps it
        fields["stderr_tail"] = ()
    return Observation(cell=setting.cell, kit_sha256=setting.kit_sha256, **fields)


def _no_answer(process: Process) -> str:
    """One line for a process that gave no answer to any step."""
    _, what = death(process.exit_status())
    tail = process.stderr_tail
    python = process.argv[0]
    for line in reversed(tail):
        missing = re.search(r"No module named '?(torch|transformers)\b", line)
        if missing:
            return f"{python} has no {missing[1]}. Install it there, or give a Python that has it with --python."
    if (said := _not_python(python)) is not None:
        return f"{python} is no Python{said}. Give an interpreter with --python."
    last = f" Its last line was: {tail[-1]}." if tail else ""
    return f"{python} {what} before it answered any step.{last} Its whole output is in {LOG}."


def _not_python(program: str) -> str | None:
    """What a program says in place of a Python's version; None for a Python."""
    command = (program, "-c", "import sys; print(*sys.version_info[:2])")
    try:
        asked = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        return f": {error.strerror}"
    watch = threading.Timer(VERSION_SECONDS, asked.kill)
    watch.start()
    assert asked.stdout is not None
    try:
        said = asked.stdout.read(SHOWN_LINE).decode("utf-8", "replace").strip()  # it may never stop
    finally:
        watch.cancel()
        asked.kill()
        asked.stdout.close()
        asked.wait()
    if re.match(r"\d+ \d+\b", said):
        return None
    return (
        f": its version is asked for, and it says {said.splitlines()[0]!r}" if said else ": it does not say its version"
    )


def _after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _is_past(moment: float | None) -> bool:
    return moment is not None and time.monotonic() >= moment


def _time_is_up(limits: Limits) -> str:
    return f"the time limit of the run ({limits.run_seconds:g} s) was up"
