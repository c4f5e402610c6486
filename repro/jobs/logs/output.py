"""All that was read as one document for programs: ``logs.json``. Pure."""

from collections.abc import Sequence
from typing import Any

from repro.core.encoding import SCHEMA, to_json
from repro.jobs.logs import tables
from repro.jobs.logs.conclusions import same_rows, sentences, shared
from repro.jobs.logs.records import Reading


def document(readings: Sequence[Reading], *, total: int | None = None, seconds: float | None = None) -> dict[str, Any]:
    """The content of ``logs.json``.

    Args:
        readings: The logs.
        total: How many prompts each job had, where its log does not say.
        seconds: What reading took.
    """
    table = tables.rows(readings, total)
    verdict = tables.verdict(readings)
    read = sum(reading.bytes for reading in readings)
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "table": to_json(table),
        "counts": to_json(tables.counts(readings)),
        "overlap": to_json(shared(readings, table)),
        "same_rows": to_json(same_rows(readings)),
        "sentences": list(sentences(readings, table)),
        "logs": [{**to_json(reading), **_verdict(reading)} for reading in readings],
        "speed": {
            "bytes": read,
            "lines": sum(reading.lines for reading in readings),
            "seconds": seconds,
            "megabytes_per_second": read / 1e6 / seconds if seconds else None,
        },
    }


def _verdict(reading: Reading) -> dict[str, str]:
    verdict = tables.verdict_of(reading)
    return {"verdict": verdict.outcome.value, "reason": verdict.reason}
