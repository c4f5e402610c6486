"""Observations of one run -> verdict, kind, origin and ablations, each with its reason. Pure: no file, no clock.

Precedence where several things are bad: files, weights, load, then the forward pass. What comes earlier explains what
comes later, and never the other way round.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from repro.core.answer import Ablation
from repro.core.encoding import number, replace
from repro.core.errors import RecordError
from repro.core.finite.diff import Diff
from repro.core.finite.reference import Reference
from repro.core.payloads import Bisect, Change, Load, Origin
from repro.core.records import Case, Ending, Fault, Kind, Observation, Outcome, Verdict
from repro.core.sentences import origin_sentence, sentence
from repro.core.steps import ABLATION, every, named
from repro.diagnosis.sections import payload, section

PASSES = ("forward", "generate", "train")
"""Steps that run the model; where one is bad, the bisect step says where that is born."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the observations of one run amount to."""

    verdict: Verdict
    kind: Kind | None = None
    origin: Origin | None = None
    ablations: tuple[Ablation, ...] = ()
    workarounds: tuple[str, ...] = ()


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
    asked = ("script",) if case.is_script else ("forward", case.phase)
    nonfinite = verdict.outcome is Outcome.BAD and any(_outcome(observations, step) is Outcome.BAD for step in asked)
    good = tuple(
        ablation.name for ablation in ablations if ablation.verdict is Outcome.GOOD and _works_around(ablation.name)
    )
    source, _, seed = case.weights.partition(":")
    if source == "random" and "random weights" not in verdict.reason.lower():
        verdict = Verdict(verdict.outcome, f"With random weights (seed {seed}): {verdict.reason}")
    return Judgement(
        verdict=verdict,
        kind=kind,
        origin=origin,
        ablations=ablations,
        workarounds=good if nonfinite else (),
    )


def _verdict(
    observations: Mapping[str, Observation], origin: Origin | None, deciding: str, fault: Fault
) -> tuple[Kind | None, Verdict]:
    judging = {step.name: step.judges for step in every() if step.judges is not None}
    crash = next((o for step, o in observations.items() if step in judging and o.ending is Ending.CRASHED), None)
    bad = next((step for step in judging if _outcome(observations, step) is Outcome.BAD), None)
    if fault is Fault.CRASH:
        return _hunting_crash(crash, observations, bad, deciding)
    if bad is not None:
        kind = judging[bad].kind or _kind_of_script(observations, origin)
        if bad in PASSES and origin is not None and origin.mechanism == "bad_weights":
            kind = Kind.WEIGHTS
        return kind, Verdict(Outcome.BAD, _bad_reason(bad, observations, origin))
    if crash is not None:
        return Kind.CRASH, Verdict(Outcome.SKIP, sentence(crash.verdict.reason))
    return None, _good_or_skip(observations, deciding)


def _kind_of_script(observations: Mapping[str, Observation], origin: Origin | None) -> Kind | None:
    """What a bad script shows, by what was found in it; None where nothing was."""
    bisect = section(observations, "bisect", Bisect)
    if origin is not None and origin.mechanism == "bad_weights":
        return Kind.WEIGHTS
    if origin is not None:
        value = number(origin.value)
        return Kind.DIVERGENT if value is not None and math.isfinite(value) else Kind.NONFINITE
    return Kind.DIVERGENT if bisect is not None and bisect.rounding is not None else None


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


def _bad_reason(step: str, observations: Mapping[str, Observation], origin: Origin | None) -> str:
    if step in ("script", "watch") and origin is not None:
        said = origin_sentence(origin, section(observations, "bisect", Bisect))
        reason = observations[step].verdict.reason
        return f"{said} The script: {reason}" if step == "script" else f"{said} {sentence(reason)}"
    if step == "reference" and origin is not None:
        return origin_sentence(origin, None)
    if step not in PASSES and step != "watch":
        return observations[step].verdict.reason
    if origin is not None and origin.module is not None:
        return origin_sentence(origin, section(observations, "bisect", Bisect))
    reason = observations[step].verdict.reason
    bisect = observations.get("bisect")
    if bisect is not None and bisect.verdict.outcome is Outcome.SKIP:
        return f"{reason.rstrip('.')}; where it is born is not known: {bisect.verdict.reason}"
    return reason


def _works_around(ablation: str) -> bool:
    """Whether the case is saved where this ablation is good; not where it asks about another input."""
    found = named(ABLATION + ablation)
    return found is None or found.works_around


def _outcome(observations: Mapping[str, Observation], step: str) -> Outcome | None:
    observation = observations.get(step)
    return None if observation is None else observation.verdict.outcome


def _ablations(observations: Mapping[str, Observation]) -> tuple[Ablation, ...]:
    """The ablations that changed something, in order of running."""
    ablations = []
    for step, observation in observations.items():
        found = payload(observation, Change)
        if not step.startswith(ABLATION) or found.same_as_case:
            continue
        name = step.removeprefix(ABLATION)
        key, _, value = name.partition("=")
        ablations.append(
            Ablation(
                name=name,
                verdict=observation.verdict.outcome,
                change=found.change or {key: value or True},
                reason=observation.verdict.reason,
                ending=observation.ending,
                signal=None if observation.failure is None else observation.failure.signal,
                seconds=observation.seconds,
                logits=found.logits,
                equal_to_case=found.equal_to_case,
            )
        )
    return tuple(ablations)


def _origin(observations: Mapping[str, Observation], ablations: tuple[Ablation, ...]) -> Origin | None:
    """The origin that the bisect step found, ``misaligned`` where the aligned copy alone gives other numbers; or the
    place where two ways part, or where an operator departs from float64.
    """
    bisect, load = section(observations, "bisect", Bisect), section(observations, "load", Load)
    diff = section(observations, "diff", Diff)
    if diff is not None:
        return diff.origin
    if bisect is None or bisect.origin is None:
        reference = section(observations, "reference", Reference)
        return None if reference is None else reference.origin
    aligned = any(ablation.name == "aligned_copy" and ablation.verdict is Outcome.GOOD for ablation in ablations)
    misaligned = load is not None and load.misaligned
    if aligned and misaligned and _outcome(observations, "forward") is Outcome.BAD:
        return replace(bisect.origin, mechanism="misaligned")
    return bisect.origin
