"""The content of ``verdict.json``: the answer and what it stands on, numbers unrounded."""

import shlex
from collections.abc import Mapping
from typing import Any

from repro.core.records import SCHEMA, Header, Judgement, Observation, to_json

BULKY = {"weights": ("stats",)}
"""What stays in evidence.jsonl alone: one row for every tensor."""


def document(
    judgement: Judgement,
    observations: Mapping[str, Observation],
    header: Header,
    evidence_sha256: str | None,
    command: tuple[str, ...],
) -> dict[str, Any]:
    """verdict.json, schema 1. Parts that no step gave are None."""
    case = header.case
    environment = _payload(observations, "environment")
    load = _payload(observations, "load")
    files = _payload(observations, "files")
    seeded = case.weights != "checkpoint"
    return {
        "schema": SCHEMA,
        "verdict": judgement.verdict.outcome.value,
        "reason": judgement.verdict.reason,
        "headline": judgement.headline,
        "kind": None if judgement.kind is None else judgement.kind.value,
        "model": {
            "id": case.model,
            "revision": files.get("revision") or case.revision,
            "weights": "random" if seeded else "checkpoint",
            "seed": int(case.weights.partition(":")[2]) if seeded else None,
            "class": load.get("class"),
            "parameters": load.get("parameters"),
        },
        "cell": {
            "python": environment.get("python"),
            "torch": environment.get("torch"),
            "transformers": environment.get("transformers"),
            "device": load.get("device") or case.device,
            "dtype": load.get("dtype") or case.dtype,
            "attn": load.get("attn") or case.attn,
            "platform": environment.get("platform"),
            "executable": header.cell.python,
        },
        "case": to_json(case),
        "files": _section(observations, "files"),
        "weights": _section(observations, "weights"),
        "load": _section(observations, "load"),
        "forward": _section(observations, "forward"),
        "script": _section(observations, "script"),
        "prompts": _section(observations, "prompts"),
        "origin": to_json(judgement.origin),
        "bisect": _section(observations, "bisect"),
        "ablations": [_ablation(judgement, observations, index) for index in range(len(judgement.ablations))],
        "workarounds": list(judgement.workarounds),
        "reduction": _section(observations, "reduce"),
        "reproducer": None,
        "owner": None,
        "versions": None,
        "environment": to_json(environment) or None,
        "steps": [_step(observation) for observation in observations.values()],
        "command": shlex.join(command),
        "tool": header.tool,
        "kit_sha256": header.kit_sha256,
        "evidence_sha256": evidence_sha256,
    }


def _payload(observations: Mapping[str, Observation], step: str) -> Mapping[str, Any]:
    observation = observations.get(step)
    return {} if observation is None or observation.payload is None else observation.payload


def _section(observations: Mapping[str, Observation], step: str) -> dict[str, Any] | None:
    """The payload of a step with its verdict, without what is bulky; None where the step was not asked for."""
    observation = observations.get(step)
    if observation is None:
        return None
    kept = {key: value for key, value in _payload(observations, step).items() if key not in BULKY.get(step, ())}
    return {"verdict": observation.verdict.outcome.value, "reason": observation.verdict.reason, **to_json(kept)}


def _ablation(judgement: Judgement, observations: Mapping[str, Observation], index: int) -> dict[str, Any]:
    ablation = judgement.ablations[index]
    observation = observations[f"ablation:{ablation.name}"]
    payload = _payload(observations, observation.step)
    return {
        "name": ablation.name,
        "change": to_json(ablation.change),
        "verdict": ablation.verdict.outcome.value,
        "reason": ablation.verdict.reason,
        "ending": observation.ending.value,
        "signal": None if observation.failure is None else observation.failure.signal,
        "seconds": observation.seconds,
        "logits": to_json(payload.get("logits")),
        "equal_to_case": payload.get("equal_to_case"),
        "headroom_max": payload.get("headroom_max"),
    }


def _step(observation: Observation) -> dict[str, Any]:
    return {
        "step": observation.step,
        "verdict": observation.verdict.outcome.value,
        "ending": observation.ending.value,
        "signal": None if observation.failure is None else observation.failure.signal,
        "exit_status": observation.exit_status,
        "seconds": observation.seconds,
        "reason": observation.verdict.reason,
        "stderr_tail": list(observation.stderr_tail),
    }
