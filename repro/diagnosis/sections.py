"""The payloads of observations as records."""

from collections.abc import Mapping
from typing import Any, TypeVar

from repro.core.encoding import decode, to_json
from repro.core.errors import RecordError
from repro.core.payloads import Section
from repro.core.records import Observation

P = TypeVar("P")
S = TypeVar("S", bound=Section)


def payload(observation: Observation, kind: type[P]) -> P:
    """What a step answered besides its verdict.

    Raises:
        RecordError: it is of another shape than this version knows.
    """
    return _decoded(observation, kind, observation.payload or {})


def section(observations: Mapping[str, Observation], step: str, kind: type[S]) -> S | None:
    """A step's verdict, reason and payload; None where the step was not asked for.

    Raises:
        RecordError: it is of another shape than this version knows.
    """
    observation = observations.get(step)
    if observation is None:
        return None
    return _decoded(observation, kind, {**(observation.payload or {}), **verdict_of(observation)})


def verdict_of(observation: Observation) -> dict[str, str]:
    """Verdict and reason, as verdict.json has them in each section."""
    return {"verdict": observation.verdict.outcome.value, "reason": observation.verdict.reason}


def _decoded(observation: Observation, kind: type[P], data: Mapping[str, Any]) -> P:
    try:
        return decode(kind, to_json(data))
    except RecordError as error:
        raise RecordError(f"what the {observation.step} step answered has another shape: {error}") from None
