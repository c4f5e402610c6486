"""The answer of a run: what was asked, the judgement, and what each step said."""

import shlex
from collections.abc import Mapping

from repro.core.answer import Answer, CellInfo, ModelInfo, StepRow
from repro.core.finite.diff import Diff
from repro.core.finite.narrow import Forecast, Keep
from repro.core.finite.reference import Reference
from repro.core.finite.sketch import Sketches
from repro.core.payloads import (
    Bisect,
    Environment,
    Files,
    Forward,
    Generate,
    Load,
    Reduction,
    Script,
    Train,
    Watch,
    Weights,
)
from repro.core.records import Header, Observation, Outcome
from repro.core.sentences import many
from repro.core.sweep_answers import Prompts
from repro.diagnosis.sections import payload, section
from repro.diagnosis.verdict import Judgement


def answer(
    judgement: Judgement,
    observations: Mapping[str, Observation],
    header: Header,
    evidence_sha256: str | None = None,
) -> Answer:
    """The content of verdict.json. Parts that no step gave are None.

    Raises:
        RecordError: a step answered in another shape than this version knows.
    """
    case = header.case
    asked = observations.get("environment")
    environment = None if asked is None or not asked.payload else payload(asked, Environment)
    here = environment or Environment()
    files, load = section(observations, "files", Files), section(observations, "load", Load)
    loaded = load or Load()
    source, _, seed = case.weights.partition(":")
    return Answer(
        verdict=judgement.verdict.outcome,
        reason=judgement.verdict.reason,
        headline=_headline(judgement, section(observations, "script", Script)),
        kind=judgement.kind,
        model=ModelInfo(
            id=case.model,
            revision=(files and files.revision) or case.revision,
            weights=source,
            seed=int(seed) if seed else None,
            class_=loaded.class_,
            parameters=loaded.parameters,
        ),
        cell=CellInfo(
            python=here.python,
            torch=here.torch,
            transformers=here.transformers,
            device=loaded.device or case.device,
            dtype=loaded.dtype or case.dtype,
            attn=loaded.attn or case.attn,
            platform=here.platform,
            executable=header.cell.python,
        ),
        case=case,
        files=files,
        weights=section(observations, "weights", Weights),
        load=load,
        forward=section(observations, "forward", Forward),
        generate=section(observations, "generate", Generate),
        train=section(observations, "train", Train),
        script=section(observations, "script", Script),
        watch=section(observations, "watch", Watch),
        reference=section(observations, "reference", Reference),
        diff=section(observations, "diff", Diff),
        prompts=section(observations, "prompts", Prompts),
        origin=judgement.origin,
        bisect=section(observations, "bisect", Bisect),
        sketch=section(observations, "sketch", Sketches),
        forecast=section(observations, "forecast", Forecast),
        keep=section(observations, "keep", Keep),
        keep_bfloat16=section(observations, "keep:bfloat16", Keep),
        ablations=judgement.ablations,
        workarounds=judgement.workarounds,
        reduction=section(observations, "reduce", Reduction),
        environment=environment,
        steps=tuple(_step(observation) for observation in observations.values()),
        command=shlex.join(header.command),
        tool=header.tool,
        kit_sha256=header.kit_sha256,
        evidence_sha256=evidence_sha256,
    )


def _headline(judgement: Judgement, script: Script | None) -> str:
    """The answer in one sentence; of a good script what was asked of it, for what it printed last need not say that."""
    reason = judgement.verdict.reason
    if script is None or judgement.verdict.outcome is not Outcome.GOOD or script.verdict is not Outcome.GOOD:
        return reason
    runs = 1 + script.further_runs
    well = runs - script.otherwise
    ended = f"in {well} of {many(runs, 'run')}" if runs > 1 else "in one run"
    printed = f" It ended with: {reason}" if any(map(str.strip, script.lines)) or script.unseeded else ""
    verdict = "That is its own verdict: its numbers were not looked at."
    return f"The script ended with exit status 0 {ended}. {verdict}{printed}"


def _step(observation: Observation) -> StepRow:
    return StepRow(
        step=observation.step,
        verdict=observation.verdict.outcome,
        ending=observation.ending,
        signal=None if observation.failure is None else observation.failure.signal,
        exit_status=observation.exit_status,
        seconds=observation.seconds,
        reason=observation.verdict.reason,
        stderr_tail=observation.stderr_tail,
    )
