"""The fault of a bundle looked for again, once somebody agreed to what would be run; and what came of it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.encoding import SCHEMA, encode, to_json
from repro.core.records import Case, Outcome, Plan
from repro.engine import runner
from repro.engine.kit import pack
from repro.engine.runner import Listener
from repro.environments import difference
from repro.report.privacy.redact import private_words, redact, redact_json
from repro.reproducer.verify import TIMEOUT_SECONDS, verify
from repro.run.run import run as run_model
from repro.sharing.replay.plan import Proposal
from repro.sharing.replay.same_fault import Finding, of_run, of_script, overall

NAME = "replay.json"


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it. ``differences`` is None where one of the two environments is not known."""

    overall: Finding
    findings: tuple[Finding, ...]
    differences: difference.Gap | None
    environment: Mapping[str, Any] | None


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
    document, private = proposal.opened.document, private_words()
    findings, environment = [], None
    for script in proposal.scripts:
        listener.note(f"running {script.name}")
        seconds = proposal.limits.run_seconds or TIMEOUT_SECONDS
        name = PurePosixPath(script.name).name
        ran = verify(proposal.cell.python, script.text, script.argv, script.runs, seconds, name)
        output, reason = redact(ran.output, private), redact(ran.reason, private)
        findings.append(of_script(script.name, script.record, ran.exit_statuses, output, reason))
    if proposal.request is not None:
        after = redact_json(run_model(proposal.request, listener).document, private)
        environment = after["environment"]
        findings.insert(0, of_run(shlex.join(proposal.request.argv()), document, after))
    else:
        environment = _environment(proposal, out, listener)
    result = Replay(overall(findings), tuple(findings), _differences(document, environment), environment)
    paths.write(out / NAME, encode(content(proposal, result), indent=1) + "\n")
    return result


def _environment(proposal: Proposal, out: Path, listener: Listener) -> Mapping[str, Any] | None:
    """What the interpreter has, as the kit of this installation sees it; None where it has no torch."""
    kit, place = pack(), paths.make(out / "run")
    plan = Plan(("environment",), Case(""), str(paths.cache_folder()))
    setting = runner.Setting(plan, proposal.cell, kit.write(place), kit.sha256, place, proposal.limits)
    seen = runner.run(setting, lambda observation: None, listener)["environment"]
    return seen.payload if seen.verdict.outcome is Outcome.GOOD else None


def _differences(document: Mapping[str, Any], environment: Mapping[str, Any] | None) -> difference.Gap | None:
    """All that is another here than where the bundle was made: the first of each pair is what was there."""
    recorded = document.get("environment")
    if not recorded or not environment:
        return None
    same = {key: (document.get("cell") or {}).get(key) for key in ("device", "dtype", "attn")}
    return difference.between({**same, "environment": recorded}, {**same, "environment": environment})


def content(proposal: Proposal, result: Replay) -> dict[str, Any]:
    """The content of ``replay.json``. ``differences`` names what was there first and what is here second."""
    found = result.differences
    changes = None if found is None else [*found.axes, *found.packages, *found.settings]
    return {
        "schema": SCHEMA,
        "tool": __version__,
        "answer": result.overall.answer.name.lower(),
        "verdict": result.overall.answer.outcome.value,
        "reason": result.overall.reason,
        "parts": to_json(result.findings),
        "differences": None if changes is None else [{"name": c.name, "there": c.bad, "here": c.good} for c in changes],
        "recorded": {key: proposal.opened.document.get(key) for key in ("command", "reason", "tool", "kit_sha256")},
        "interpreter": proposal.cell.python,
        "kit": proposal.kit,
        "not_run": list(proposal.notes),
        "environment": result.environment,
    }
