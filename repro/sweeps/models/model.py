"""One model of a comparison as a record, from what its runs left behind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.encoding import number
from repro.report.plots.magnitude import LIMITS
from repro.sweeps.prompts.records import PromptRecords
from repro.sweeps.prompts.run import RECORDS

TEXT_PART = "text_config"
"""Where a model that also sees or hears keeps the settings of its language model."""
PLACE = ("module", "op", "source", "token_index", "token")


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest magnitude in any layer's output.

    ``measured`` is false where the run went bad before its largest value: then it is at least so large. ``dtype`` is
    what it was measured in.
    """

    value: float
    dtype: str
    measured: bool

    def headroom(self, dtype: str) -> float | None:
        """The dtype's limit divided by the magnitude: below 1 it does not fit."""
        limit = LIMITS.get(dtype)
        return None if limit is None or self.value <= 0 else limit / self.value


@dataclass(frozen=True, slots=True)
class Sibling:
    """One model of the comparison, and what was seen of it.

    ``weights`` is "checkpoint" or "random". ``asked`` counts the prompts that answered, ``failed`` the bad ones of
    them. ``born`` has module, op, source, token_index and token, as far as they are known. ``wider`` is the verdict of
    the same in the next wider dtype, where it was asked.
    """

    name: str
    model: str
    verdict: str
    reason: str
    kind: str | None = None
    weights: str = "checkpoint"
    model_class: str | None = None
    parameters: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    dtype: str | None = None
    attn: str | None = None
    asked: int | None = None
    failed: int | None = None
    born: Mapping[str, Any] | None = None
    mechanism: str | None = None
    peak: Peak | None = None
    wider: str | None = None
    command: str | None = None
    folder: str | None = None

    @property
    def share(self) -> float | None:
        """The failing share of the prompts that answered."""
        return self.failed / self.asked if self.asked and self.failed is not None else None

    def headroom(self) -> dict[str, float | None]:
        """Of each dtype; None where nothing was measured."""
        return {dtype: None if self.peak is None else self.peak.headroom(dtype) for dtype in LIMITS}


def sibling(
    name: str, folder: Path, document: Mapping[str, Any], wider: Mapping[str, Any] | None, wider_folder: Path
) -> Sibling:
    """The record of a model that was run.

    Args:
        name: Of the model in this comparison.
        folder: Of its run.
        document: The content of the run's verdict.json.
        wider: The same of the run in the next wider dtype; None where there is none.
        wider_folder: Of that run.
    """
    model, cell = document["model"], document["cell"]
    asked, failed = _counts(document)
    settings = settings_of(document)
    origin = document.get("origin") or {}
    return Sibling(
        name=name,
        model=model["id"],
        verdict=document["verdict"],
        reason=document["reason"],
        kind=document["kind"],
        weights=model["weights"],
        model_class=model["class"],
        parameters=model["parameters"],
        layers=_whole(settings.get("num_hidden_layers")),
        hidden_size=_whole(settings.get("hidden_size")),
        dtype=cell["dtype"],
        attn=cell["attn"],
        asked=asked,
        failed=failed,
        born=_born(document),
        mechanism=origin.get("mechanism"),
        peak=_peak(folder, document, wider, wider_folder),
        wider=None if wider is None else wider["verdict"],
        command=document["command"],
        folder=folder.name,
    )


def settings_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the architecture. Those of a language model inside a larger one stand at the top, where those of
    a model that is nothing else stand.
    """
    config = dict((document.get("load") or {}).get("config") or {})
    text = config.pop(TEXT_PART, None)
    return {**config, **(text if isinstance(text, Mapping) else {})}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counts(document: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(prompts that answered, bad ones of them)."""
    many = document.get("prompts")
    if many is not None:
        good, bad = many.get("good"), many.get("bad")
        return (None, None) if good is None or bad is None else (good + bad, bad)
    verdicts = [prompt.get("verdict") for prompt in (document.get("forward") or {}).get("prompts") or ()]
    verdicts = [verdict for verdict in verdicts if verdict in ("good", "bad")]
    return (len(verdicts), verdicts.count("bad")) if verdicts else (None, None)


def _born(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the fault is born; of many prompts, where most of them go bad first."""
    origin = document.get("origin")
    if origin:
        return {key: origin.get(key) for key in PLACE}
    places = (document.get("prompts") or {}).get("places") or ()
    if not places:
        return None
    return {**dict.fromkeys(PLACE), "module": places[0]["layer"], "token": places[0].get("token")}


def _peak(
    folder: Path, document: Mapping[str, Any], wider: Mapping[str, Any] | None, wider_folder: Path
) -> Peak | None:
    """Of the run itself where it is good; else of the wider one where that is; else what is known at least."""
    if wider is not None and document["verdict"] == "bad" and wider["verdict"] == "good":
        largest = _largest(wider_folder, wider)
        return None if largest is None else Peak(largest, wider["cell"]["dtype"], measured=True)
    largest, beyond = _largest(folder, document), _beyond(document)
    known = [value for value in (largest, beyond) if value is not None]
    if not known or document["cell"]["dtype"] is None:
        return None
    return Peak(max(known), document["cell"]["dtype"], measured=document["verdict"] == "good")


def _largest(folder: Path, document: Mapping[str, Any]) -> float | None:
    """The largest finite magnitude in any layer's output of a run."""
    if document.get("prompts") is not None:
        examples = PromptRecords(folder / RECORDS) if (folder / RECORDS).exists() else ()
        values = (number(example.get("absmax")) for example in examples)
    else:
        items = (document.get("bisect") or {}).get("headroom") or ()
        values = (number(item.get("absmax")) for item in items)
    return max((value for value in values if value is not None and math.isfinite(value)), default=None)


def _beyond(document: Mapping[str, Any]) -> float | None:
    """What wider arithmetic has where a layer's own sum overflows. What overflows inside a layer is no output of it,
    and cannot be compared with the outputs of other models.
    """
    origin, bisect = document.get("origin") or {}, document.get("bisect") or {}
    layers = {item.get("module") for item in bisect.get("headroom") or ()}
    if origin.get("mechanism") != "overflow" or origin.get("module") not in layers:
        return None
    value = number(origin.get("reference_value"))
    return abs(value) if value is not None and math.isfinite(value) else None
