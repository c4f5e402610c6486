"""The steps that the kit announces: what each asks, what it needs, and which command asks for it.

The list is the kit's own file ``repro/probes/steps/registry.json``; the host keeps no other.
"""

import enum
import functools
import json
from pathlib import Path

from repro.core.encoding import Record, decode
from repro.core.records import Kind

REGISTRY = Path(__file__).parents[1] / "probes" / "steps" / "registry.json"
ABLATION = "ablation:"
"""How the name of a step begins that changes one thing."""


class Needs(enum.Enum):
    """What a step stands on, from nothing to the origin that another step found."""

    NOTHING = "nothing"
    SCRIPT = "script"
    FILES = "files"
    MODEL = "model"
    PASSES = "passes"
    ORIGIN = "origin"


class Judges(enum.Enum):
    """The kind of fault that a bad answer of the step shows; ``ANY`` where the step does not say."""

    FILES = "files"
    WEIGHTS = "weights"
    LOAD = "load"
    NONFINITE = "nonfinite"
    DIVERGENT = "divergent"
    ANY = "any"

    @property
    def kind(self) -> Kind | None:
        return None if self is Judges.ANY else Kind(self.value)


class Step(Record, frozen=True, kw_only=True):
    """One step of the kit.

    ``subjects`` are "model", "script" and "module" (one that a factory gives). ``works_around`` is False for an
    ablation that asks about another input: where it is good, the case is not saved. ``phases``: those of a case in
    which it is asked ("forward", "generate", "train"); all where it names none. ``option``:
    the field of the case that must be set for it to be asked.
    """

    name: str
    question: str
    needs: Needs
    asked_by: tuple[str, ...]
    subjects: tuple[str, ...]
    judges: Judges | None = None
    works_around: bool = True
    phases: tuple[str, ...] = ()
    option: str | None = None

    @property
    def is_ablation(self) -> bool:
        return self.name.startswith(ABLATION)


@functools.cache
def every() -> tuple[Step, ...]:
    """All steps, in order of running."""
    return tuple(decode(Step, row) for row in json.loads(REGISTRY.read_text("utf-8")))


def asked_by(command: str, subject: str, phase: str = "forward") -> tuple[Step, ...]:
    """The steps that a command asks of a subject in a phase, in order; none where it cannot be asked."""
    rows = (step for step in every() if command in step.asked_by and subject in step.subjects)
    found = tuple(step for step in rows if not step.phases or phase in step.phases)
    return found if any(step.needs is not Needs.NOTHING for step in found) else ()


def named(name: str) -> Step | None:
    """The step of this name."""
    return next((step for step in every() if step.name == name), None)
