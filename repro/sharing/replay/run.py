"""The fault of a bundle looked for again, once somebody agreed to what would be run; and what came of it."""

import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import SCHEMA, Record, decode, encode
from repro.core.payloads import Environment
from repro.core.records import Case, Outcome, Plan
from repro.core.sweep_answers import CellRow
from repro.engine import runner
from repro.engine.kit import pack
from repro.engine.runner import Listener
from repro.environments import difference
from repro.report.privacy.machine import private_words
from repro.report.privacy.mask import Mask
from repro.reproducer.verify import TIMEOUT_SECONDS, verify
from repro.run.run import run as run_model
from repro.sharing.replay.plan import Proposal
from repro.sharing.replay.same_fault import Finding, Match, of_run, of_script, overall

NAME = "replay.json"


class Change(Record, frozen=True, kw_only=True):
    """One thing that is another here than where the bundle was made; None where it is not installed or not known."""

    name: str
    there: Any = None
    here: Any = None


class Recorded(Record, frozen=True, kw_only=True):
    """What the bundle says of itself."""

    command: str
    reason: str
    tool: str
    kit_sha256: str


class Replay(Record, frozen=True, kw_only=True):
    """The content of replay.json. ``answer`` is "same", "other", "gone" or "unknown".

    ``differences`` is None where one of the two environments is not known.
    """

    schema: int = SCHEMA
    tool: str = __version__
    answer: str
    verdict: Outcome
    reason: str
    parts: tuple[Finding, ...]
    differences: tuple[Change, ...] | None
    recorded: Recorded
    interpreter: str
    kit: str
    not_run: tuple[str, ...]
    environment: Environment | None

    @property
    def overall(self) -> Match:
        """The answer of the whole replay."""
        return Match[self.answer.upper()]


def replay(proposal: Proposal, out: Path, listener: Listener) -> Replay:
    """Run what was proposed, the scripts first; write ``replay.json``.

    Args:
        proposal: To which somebody agreed.
        out: The folder of the replay; it exists.
        listener: Is told what happens meanwhile.

    Raises:
        CellError: the interpreter cannot be started.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM.
    """
    before, private, findings = proposal.opened.answer, private_words(), []
    mask = Mask.of(before, private)
    for script in proposal.scripts:
        listener.note(f"running {script.name}")
        seconds = proposal.limits.run_seconds or TIMEOUT_SECONDS
        name = PurePosixPath(script.name).name
        ran = verify(proposal.cell.python, script.text, script.argv, script.runs, seconds, name)
        output, reason = mask.text(ran.output), mask.text(ran.reason)
        findings.append(of_script(script.name, script.record, ran.exit_statuses, output, reason))
    if proposal.request is not None:
        after = run_model(proposal.request, listener).answer
        after = Mask.of(after, private).answer(after)
        environment = after.environment
        findings.insert(0, of_run(shlex.join(proposal.request.argv()), before, after))
    else:
        environment = _environment(proposal, out, listener)
    found = overall(findings)
    result = Replay(
        answer=found.answer.name.lower(),
        verdict=found.answer.outcome,
        reason=found.reason,
        parts=tuple(findings),
        differences=_differences(before, environment),
        recorded=Recorded(command=before.command, reason=before.reason, tool=before.tool, kit_sha256=before.kit_sha256),
        interpreter=proposal.cell.python,
        kit=proposal.kit,
        not_run=proposal.notes,
        environment=environment,
    )
    paths.write(out / NAME, encode(result, indent=1) + "\n")
    return result


def _environment(proposal: Proposal, out: Path, listener: Listener) -> Environment | None:
    """What the interpreter has, as the kit of this installation sees it; None where it has no torch."""
    kit, place = pack(), paths.make(out / "run")
    plan = Plan(("environment",), Case(""), str(paths.cache_folder()))
    setting = runner.Setting(plan, proposal.cell, kit.write(place), kit.sha256, place, proposal.limits)
    seen = runner.run(setting, lambda observation: None, listener)["environment"]
    return decode(Environment, seen.payload) if seen.verdict.outcome is Outcome.GOOD else None


def _differences(before: Answer, environment: Environment | None) -> tuple[Change, ...] | None:
    """All that is another here than where the bundle was made; what is installed in both places before the rest."""
    if before.environment is None or environment is None:
        return None
    cell = before.cell
    there, here = (
        CellRow(
            id="",
            verdict=before.verdict,
            reason="",
            device=cell.device,
            dtype=cell.dtype,
            attn=cell.attn,
            environment=found,
        )
        for found in (before.environment, environment)
    )
    gap = difference.between(there, here)
    packages = sorted(gap.packages, key=lambda change: None in (change.bad, change.good))
    changes = (*gap.axes, *gap.settings, *packages)
    return tuple(Change(name=change.name, there=change.bad, here=change.good) for change in changes)
