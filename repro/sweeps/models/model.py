"""One model of a comparison as a record, from what its runs left behind."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from repro.core.answer import Answer
from repro.core.encoding import Number, number
from repro.core.mechanisms import LIMITS, mechanism
from repro.core.payloads import Headroom, Plain
from repro.core.records import Outcome
from repro.core.sweep_answers import Born, Peak, SiblingModel
from repro.sweeps.prompts.records import PromptRecords
from repro.sweeps.prompts.run import RECORDS

TEXT_PART = "text_config"
"""Where a model that also sees or hears keeps the settings of its language model."""


def sibling(name: str, folder: Path, answer: Answer, wider: Answer | None, wider_folder: Path) -> SiblingModel:
    """The record of a model that was run.

    Args:
        name: Of the model in this comparison.
        folder: Of its run.
        answer: Of that run.
        wider: Of the run in the next wider dtype; None where there is none.
        wider_folder: Of that run.
    """
    asked, failed = _counts(answer)
    settings = settings_of(answer)
    peak = _peak(folder, answer, wider, wider_folder)
    return SiblingModel(
        name=name,
        model=answer.model.id,
        verdict=answer.verdict,
        reason=answer.reason,
        kind=answer.kind,
        weights=answer.model.weights,
        model_class=answer.model.class_,
        parameters=answer.model.parameters,
        layers=_whole(settings.get("num_hidden_layers")),
        hidden_size=_whole(settings.get("hidden_size")),
        dtype=answer.cell.dtype,
        attn=answer.cell.attn,
        asked=asked,
        failed=failed,
        born=_born(answer),
        mechanism=None if answer.origin is None else answer.origin.mechanism,
        peak=peak,
        wider=None if wider is None else wider.verdict,
        command=answer.command,
        folder=folder.name,
        share=failed / asked if asked and failed is not None else None,
        headroom=headrooms(peak),
    )


def headroom(peak: Peak | None, dtype: str) -> float | None:
    """A dtype's limit divided by the peak: below 1 it does not fit. None where nothing was measured."""
    limit = LIMITS.get(dtype)
    return None if peak is None or limit is None or peak.value <= 0 else limit / peak.value


def headrooms(peak: Peak | None) -> dict[str, Number | None]:
    """The headroom in each dtype."""
    return {dtype: headroom(peak, dtype) for dtype in LIMITS}


def settings_of(answer: Answer) -> Plain:
    """The settings of the architecture. Those of a language model inside a larger one stand at the top, where those of
    a model that is nothing else stand.
    """
    config = {} if answer.load is None else dict(answer.load.config)
    text = config.pop(TEXT_PART, None)
    return {**config, **(text if isinstance(text, Mapping) else {})}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counts(answer: Answer) -> tuple[int | None, int | None]:
    """(prompts that answered, bad ones of them); not known of a generation and a training, which take them together."""
    if answer.prompts is not None:
        good, bad = answer.prompts.good, answer.prompts.bad
        return (good + bad, bad) if answer.prompts.asked else (None, None)
    asked = answer.case.phase == "forward"  # else the passes are not what the verdict is about
    passes = () if answer.forward is None or not asked else answer.forward.prompts
    verdicts = [one.verdict for one in passes if one.verdict in (Outcome.GOOD, Outcome.BAD)]
    return (len(verdicts), verdicts.count(Outcome.BAD)) if verdicts else (None, None)


def _born(answer: Answer) -> Born | None:
    """Where the fault is born; of many prompts, where most of them go bad first."""
    origin = answer.origin
    if origin is not None:
        return Born(
            module=origin.module,
            op=origin.op,
            source=origin.source,
            token_index=origin.token_index,
            token=origin.token,
        )
    places = () if answer.prompts is None else answer.prompts.places
    return Born(module=places[0].layer, token=places[0].token) if places else None


def _peak(folder: Path, answer: Answer, wider: Answer | None, wider_folder: Path) -> Peak | None:
    """Of the run itself where it is good; else of the wider one where that is; else what is known at least."""
    if wider is not None and answer.verdict is Outcome.BAD and wider.verdict is Outcome.GOOD:
        largest = _largest(wider_folder, wider)
        return None if largest is None else Peak(value=largest, dtype=str(wider.cell.dtype), measured=True)
    known = [value for value in (_largest(folder, answer), _beyond(answer)) if value is not None]
    if not known or answer.cell.dtype is None:
        return None
    return Peak(value=max(known), dtype=answer.cell.dtype, measured=answer.verdict is Outcome.GOOD)


def _largest(folder: Path, answer: Answer) -> float | None:
    """The largest finite magnitude in any layer's output of a run."""
    values: Iterable[float | None]
    if answer.prompts is not None:
        examples = PromptRecords(folder / RECORDS) if (folder / RECORDS).exists() else ()
        values = (number(example.get("absmax")) for example in examples)
    else:
        values = (number(item.absmax) for item in _layers(answer))
    return max((value for value in values if value is not None and math.isfinite(value)), default=None)


def _layers(answer: Answer) -> tuple[Headroom, ...]:
    return () if answer.bisect is None else answer.bisect.headroom


def _beyond(answer: Answer) -> float | None:
    """What wider arithmetic has where a layer's own sum overflows. What overflows inside a layer is no output of it,
    and cannot be compared with the outputs of other models.
    """
    origin = answer.origin
    layers = {item.module for item in _layers(answer)}
    if origin is None or not mechanism(origin.mechanism).beyond_limit or origin.module not in layers:
        return None
    value = number(origin.reference_value)
    return abs(value) if value is not None and math.isfinite(value) else None
