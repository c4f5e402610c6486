"""Observations of one run -> verdict, kind, origin and ablations, each with its reason. Pure: no file, no clock.

Precedence where several things are bad: files, weights, load, then the forward pass. What comes earlier explains what
comes later, and never the other way round.
"""

from collections.abc import Mapping
from typing import Any

from repro.core.errors import RecordError
from repro.core.records import Ablation, Case, Ending, Fault, Judgement, Kind, Observation, Outcome, Verdict
from repro.core.sentences import origin_sentence, sentence

KINDS: Mapping[str, Kind | None] = {
    "files": Kind.FILES,
    "weights": Kind.WEIGHTS,
    "load": Kind.LOAD,
    "forward": Kind.NONFINITE,
    "prompts": Kind.NONFINITE,
    "script": None,
}
"""Steps that judge the case, in order of precedence, and the kind of fault that each can show. A script says none."""

ABLATION = "ablation:"
OTHER_QUESTIONS = frozenset({"second_prompt"})
"""Ablations that ask about another input: where they are good, the case is not cured."""


def judge(
    observations: Mapping[str, Observation], case: Case, deciding: str = "forward", fault: Fault = Fault.NONFINITE
) -> Judgement:
    """What the observations amount to.

    Args:
        observations: By step name; what is missing was not asked for.
        case: What was run.
        deciding: The step that must be good for the run to be good: "weights" where only the weights were asked for.
        fault: What is hunted. With CRASH a crash is bad and everything else is no fault; else a crash is a skip.

    Raises:
        RecordError: there is no observation at all.
    """
    if not observations:
        raise RecordError("no step was recorded, so there is nothing to judge")
    ablations = _ablations(observations)
    origin = _origin(observations, ablations)
    kind, verdict = _verdict(observations, origin, deciding, fault)
    nonfinite = verdict.outcome is Outcome.BAD and _outcome(observations, "forward") is Outcome.BAD
    good = tuple(
        ablation.name
        for ablation in ablations
        if ablation.verdict.outcome is Outcome.GOOD and ablation.name not in OTHER_QUESTIONS
    )
    source, _, seed = case.weights.partition(":")
    if source == "random" and "random weights" not in verdict.reason.lower():
        verdict = Verdict(verdict.outcome, f"With random weights (seed {seed}): {verdict.reason}")
    return Judgement(
        verdict=verdict,
        kind=kind,
        headline=verdict.reason,
        origin=origin,
        ablations=ablations,
        workarounds=good if nonfinite else (),
    )


def _verdict(
    observations: Mapping[str, Observation], origin: Mapping[str, Any] | None, deciding: str, fault: Fault
) -> tuple[Kind | None, Verdict]:
    crash = next((o for step, o in observations.items() if step in KINDS and o.ending is Ending.CRASHED), None)
    bad = next((step for step in KINDS if _outcome(observations, step) is Outcome.BAD), None)
    if fault is Fault.CRASH:
        return _hunting_crash(crash, observations, bad, deciding)
    if bad is not None:
        kind = KINDS[bad]
        if bad == "forward" and origin is not None and origin.get("mechanism") == "bad_weights":
            kind = Kind.WEIGHTS
        return kind, Verdict(Outcome.BAD, _bad_reason(bad, observations, origin))
    if crash is not None:
        return Kind.CRASH, Verdict(Outcome.SKIP, sentence(crash.verdict.reason))
    return None, _good_or_skip(observations, deciding)


def _hunting_crash(
    crash: Observation | None, observations: Mapping[str, Observation], bad: str | None, deciding: str
) -> tuple[Kind | None, Verdict]:
    if crash is not None:
        return Kind.CRASH, Verdict(Outcome.BAD, sentence(crash.verdict.reason))
    if bad is not None:
        reason = f"No step crashed, and a crash is what was hunted; {observations[bad].verdict.reason}"
        decided = _outcome(observations, deciding)
        return None, Verdict(Outcome.GOOD if decided in (Outcome.GOOD, Outcome.BAD) else Outcome.SKIP, reason)
    return None, _good_or_skip(observations, deciding)


def _good_or_skip(observations: Mapping[str, Observation], deciding: str) -> Verdict:
    """Nothing is bad: good only where the deciding step says so, else the first reason why it could not be told."""
    for observation in observations.values():
        if observation.fatal:
            return Verdict(Outcome.SKIP, observation.verdict.reason)
    answer = observations.get(deciding)
    if answer is not None and answer.verdict.outcome is Outcome.GOOD:
        return answer.verdict
    for step in ("load", deciding):
        if _outcome(observations, step) is Outcome.SKIP:
            return Verdict(Outcome.SKIP, sentence(observations[step].verdict.reason.removeprefix("not run: ")))
    return Verdict(Outcome.SKIP, f"the {deciding} step gave no answer")


def _bad_reason(step: str, observations: Mapping[str, Observation], origin: Mapping[str, Any] | None) -> str:
    if step != "forward":
        return observations[step].verdict.reason
    if origin is not None and origin.get("module") is not None:
        payload = observations["bisect"].payload if "bisect" in observations else None
        return origin_sentence(origin, payload or {})
    reason = observations["forward"].verdict.reason
    bisect = observations.get("bisect")
    if bisect is not None and bisect.verdict.outcome is Outcome.SKIP:
        return f"{reason.rstrip('.')}; where it is born is not known: {bisect.verdict.reason}"
    return reason


def _outcome(observations: Mapping[str, Observation], step: str) -> Outcome | None:
    observation = observations.get(step)
    return None if observation is None else observation.verdict.outcome


def _ablations(observations: Mapping[str, Observation]) -> tuple[Ablation, ...]:
    """The ablations that changed something, in order of running."""
    ablations = []
    for step, observation in observations.items():
        payload = observation.payload or {}
        if step.startswith(ABLATION) and payload.get("same_as_case") is not True:
            name = step.removeprefix(ABLATION)
            key, _, value = name.partition("=")
            change = payload.get("change") or {key: value or True}
            ablations.append(Ablation(name, change, observation.verdict))
    return tuple(ablations)


def _origin(observations: Mapping[str, Observation], ablations: tuple[Ablation, ...]) -> Mapping[str, Any] | None:
    """The origin that the bisect step found; ``misaligned`` where the aligned copy alone gives other numbers."""
    bisect, load = observations.get("bisect"), observations.get("load")
    origin = (bisect.payload or {}).get("origin") if bisect is not None else None
    if not isinstance(origin, Mapping):
        return None
    misaligned = (load.payload or {}).get("misaligned") if load is not None else None
    cured = any(ablation.name == "aligned_copy" and ablation.verdict.outcome is Outcome.GOOD for ablation in ablations)
    if cured and misaligned and _outcome(observations, "forward") is Outcome.BAD:
        return {**origin, "mechanism": "misaligned"}
    return origin
