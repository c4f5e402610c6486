"""One row of the table of cells, from what a cell answered, or from the reason why it did not."""

import platform

from repro.core.answer import Answer
from repro.core.records import Outcome, Recipe
from repro.core.sweep_answers import CellAblation, CellRow


def answered(recipe: Recipe, answer: Answer, seconds: float, command: str) -> CellRow:
    """The row of a cell that ran.

    Args:
        recipe: What the cell was built from.
        answer: Of its run.
        seconds: From the start of its process to its end.
        command: Gives this cell's answer again.
    """
    where, environment = answer.cell, answer.environment
    return CellRow(
        id=recipe.id,
        why=recipe.why,
        asked=_asked(recipe),
        verdict=answer.verdict,
        reason=answer.reason,
        python=where.python,
        torch=where.torch,
        transformers=where.transformers,
        platform=where.platform,
        dtype=where.dtype,
        attn=where.attn,
        device=where.device,
        machine=None if environment is None else environment.machine,
        kind=answer.kind,
        origin=answer.origin,
        ablations=tuple(
            CellAblation(name=one.name, verdict=one.verdict, reason=one.reason) for one in answer.ablations
        ),
        workarounds=answer.workarounds,
        environment=environment,
        seconds=seconds,
        command=command,
        folder=recipe.id,
        outputs=_outputs(answer),
        sketches=answer.sketch.passes if answer.sketch is not None and _outputs(answer) else (),
    )


def unanswered(recipe: Recipe, reason: str, command: str, seconds: float = 0.0) -> CellRow:
    """The row of a cell that could not be built here, or whose run left no verdict: skip, with the reason."""
    return CellRow(
        id=recipe.id,
        why=recipe.why,
        asked=_asked(recipe),
        verdict=Outcome.SKIP,
        reason=reason,
        device=recipe.device,
        platform=platform.platform(),
        machine=platform.machine(),
        seconds=seconds,
        command=command,
    )


def _outputs(answer: Answer) -> tuple[str, ...]:
    """The digests of what good passes gave; none where one is not known, or more was asked than passes."""
    good = answer.forward is not None and answer.verdict is Outcome.GOOD and answer.case.phase == "forward"
    passes = answer.forward.prompts if answer.forward is not None and good else ()
    found = tuple(item.digest for item in passes if item.digest is not None)
    return found if len(found) == len(passes) else ()


def _asked(recipe: Recipe) -> dict[str, str]:
    return {"python": recipe.python, **recipe.pins}
