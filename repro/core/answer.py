"""verdict.json as records: the answer of a run, a table of cells, a search, a file of prompts, a comparison of models.

Numbers are unrounded. A part that no step gave is None or empty. A file from elsewhere is read by ``read`` and refused
where it does not fit, with the place and what was expected there.
"""

import inspect
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from repro.core.encoding import SCHEMA, Record, document
from repro.core.finite.diff import Diff
from repro.core.finite.narrow import Forecast, Keep
from repro.core.finite.reference import Reference
from repro.core.finite.sketch import Sketches
from repro.core.paths import read_record
from repro.core.payloads import (
    Bisect,
    Environment,
    Figures,
    Files,
    Forward,
    Generate,
    Load,
    Origin,
    Plain,
    Reduction,
    Script,
    Train,
    Watch,
    Weights,
)
from repro.core.records import Case, Ending, Kind, Outcome, Owner
from repro.core.sweep_answers import CellRow, Comparison, Differences, Prompts, Versions

NAME = "verdict.json"


class ModelInfo(Record, frozen=True, kw_only=True):
    """What was examined. ``weights`` is "checkpoint", "memory" (of a module that the user's own process holds),
    "factory" (those that it gives), or "random"; then ``seed`` is set.
    """

    id: str
    revision: str | None = None
    weights: str = "checkpoint"
    seed: int | None = None
    class_: str | None = field(default=None, name="class")
    parameters: int | None = None


class CellInfo(Record, frozen=True, kw_only=True):
    """Where it was examined."""

    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None
    platform: str | None = None
    executable: str | None = None


class StepRow(Record, frozen=True, kw_only=True):
    """One step as it ended."""

    step: str
    verdict: Outcome
    ending: Ending = Ending.ENDED
    signal: str | None = None
    exit_status: int | None = None
    seconds: float = 0.0
    reason: str = ""
    stderr_tail: tuple[str, ...] = ()


class Ablation(Record, frozen=True, kw_only=True):
    """The case with one thing changed, and what came of it."""

    name: str
    verdict: Outcome
    change: Plain = field(default_factory=dict)
    reason: str = ""
    ending: Ending = Ending.ENDED
    signal: str | None = None
    seconds: float = 0.0
    logits: Figures | None = None
    equal_to_case: bool | None = None


class CheckpointFiles(Record, frozen=True, kw_only=True):
    """The files that a script reads, by id, revision and the SHA-256 of each."""

    id: str
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)


class ScriptRecord(Record, frozen=True, kw_only=True):
    """One script that was run. ``level``: operator, module, model, file, crash, ... ; ``path`` is None if not kept.

    ``seconds``: what the longest of its runs took. ``masked``: it shows the fault only with the private words that are
    masked in its file. ``reads``: files that it reads and that are not handed on with it; they lay beside it where it
    was run.
    """

    level: str
    path: str | None = None
    needs: tuple[str, ...] = ()
    verified: bool = False
    runs: int = 0
    lines: int = 0
    sha256: str = ""
    checkpoint: CheckpointFiles | None = None
    usage: tuple[str, ...] = ()
    output: str = ""
    exit_statuses: tuple[int | None, ...] = ()
    reason: str = ""
    masked: bool = False
    seconds: float | None = None
    reads: tuple[str, ...] = ()


class Change(Record, frozen=True, kw_only=True):
    """What the caller changes: the lines of the script before and after, both run.

    ``path``: the changed script; None where reproducer.py itself runs both. ``verified``: whether it was good each
    time. ``script_before``, ``script_after``: the lines of the user's own script, where the change makes that good too.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    path: str | None = None
    verified: bool = False
    runs: int = 0
    reason: str = ""
    script_before: tuple[str, ...] = ()
    script_after: tuple[str, ...] = ()


class Reproducer(ScriptRecord, frozen=True, kw_only=True):
    """The script that the owner can act on, else the smallest; the others beside it; what the caller changes in it."""

    others: tuple[ScriptRecord, ...] = ()
    change: Change | None = None


class KnownFault(Record, frozen=True, kw_only=True):
    """A known fault whose fingerprint fits the run. ``result``: "agrees", "disagrees" or "not run"."""

    id: str
    issue: str
    also: tuple[str, ...] = ()
    url: str = ""
    title: str = ""
    what: str = ""
    outcome: str = ""
    question: str = ""
    neighbours: tuple[str, ...] = ()
    result: str = "not run"
    seen: str | None = None
    command: str | None = None
    excluded: bool = False
    sentence: str = ""


class Outputs(Record, frozen=True, kw_only=True):
    """The files that were written to be shared."""

    html: str
    bundle: str


class Answer(Record, frozen=True, kw_only=True):
    """The answer of a run of repro, as verdict.json has it.

    ``private_prompts``: texts of prompts are withheld from everything that is shared. ``shown_cell``: the cell of a
    table, or the model of a comparison's ``comparison``, whose run stands for all.
    """

    verdict: Outcome
    reason: str
    model: ModelInfo
    cell: CellInfo
    case: Case
    schema: int = SCHEMA
    headline: str = ""
    kind: Kind | None = None
    files: Files | None = None
    weights: Weights | None = None
    load: Load | None = None
    forward: Forward | None = None
    generate: Generate | None = None
    train: Train | None = None
    script: Script | None = None
    watch: Watch | None = None
    reference: Reference | None = None
    diff: Diff | None = None
    prompts: Prompts | None = None
    origin: Origin | None = None
    bisect: Bisect | None = None
    sketch: Sketches | None = None
    forecast: Forecast | None = None
    keep: Keep | None = None
    keep_bfloat16: Keep | None = None
    ablations: tuple[Ablation, ...] = ()
    workarounds: tuple[str, ...] = ()
    reduction: Reduction | None = None
    reproducer: Reproducer | None = None
    owner: Owner | None = None
    looks_like: tuple[KnownFault, ...] = ()
    versions: Versions | None = None
    environment: Environment | None = None
    steps: tuple[StepRow, ...] = ()
    command: str = ""
    tool: str = ""
    kit_sha256: str = ""
    evidence_sha256: str | None = None
    private_prompts: bool = False
    outputs: Outputs | None = None
    shown_cell: str | None = None
    cells: tuple[CellRow, ...] | None = None
    differences: Differences | None = None
    comparison: Comparison | None = None

    @property
    def is_made(self) -> bool:
        """Whether something else than Transformers' ``from_pretrained`` gives the model: a factory, another package."""
        return self.case.factory is not None or (self.files is not None and self.files.package is not None)

    @property
    def is_rounding(self) -> bool:
        """Whether what a script calls bad is its dtype's own rounding, added up."""
        found = None if self.bisect is None else self.bisect.rounding
        return found is not None and found.explains_all


def read(path: Path) -> Answer:
    """The answer in a file.

    Raises:
        RecordError: it cannot be read, or is of another schema or shape; the message names the place.
    """
    return read_record(path, Answer)


def answer_from(data: Any) -> Answer:
    """The answer that JSON data stands for.

    Raises:
        RecordError: it is of another schema or shape; the message names the place.
    """
    return document(Answer, data)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of verdict.json, from the records; the records' docstrings are its descriptions."""
    made = msgspec.json.schema(Answer)
    parts: dict[str, dict[str, Any]] = {name: _tidied(part) for name, part in sorted(made["$defs"].items())}
    answer = parts.pop("Answer")
    answer["properties"]["schema"] = {"const": SCHEMA}
    answer["required"] = ["schema", *answer["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"{NAME} of repro, schema {SCHEMA}"}
    return {**head, **{key: value for key, value in answer.items() if key != "title"}, "$defs": parts}


def _tidied(part: dict[str, Any]) -> dict[str, Any]:
    """A definition with its docstring's indentation taken away."""
    return {**part, **({"description": inspect.cleandoc(part["description"])} if "description" in part else {})}
