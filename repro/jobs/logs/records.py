"""What comes out of a log: failures, the different prompts among them, and what a log holds of each model."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure as the log has it; its lines are put together by rank.

    ``kind`` is "example" (one example is bad), "step" (a loss, a gradient, a check: of no example) or "notice" (a step
    that a loss scaler left out, which is its way of working).
    ``text_cut``: the text ends in dots or was too long, so it may be less than the prompt was. ``certain``: the lines
    could be put together in one way only. ``nan`` and ``inf`` are counts of elements; ``rows`` is ``nan`` in whole
    token rows of ``row_size`` elements, null where it is no whole number of them or the size is not known.
    """

    log: str
    line: int
    kind: str
    pattern: str
    said: str
    model: str | None = None
    rank: str | None = None
    time: str | None = None
    example: int | None = None
    index: int | None = None
    text: str | None = None
    text_cut: bool = False
    nan: int | None = None
    inf: int | None = None
    rows: int | None = None
    row_size: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt that failed: its text, or its index (and rank) where the log has no text; ``first`` is the record."""

    text: str | None
    first: Failure
    times: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What one log holds of one model.

    ``failures`` counts records, ``prompts`` has each different prompt once, ``unnamed`` counts failures of examples
    that the log gives neither text nor index for. ``steps`` counts failures that are of no example (a loss, a check).
    ``notices`` are steps that a loss scaler left out. ``totals`` are the sizes that the log names for its data, and
    ``kept`` those of what was left of it. ``counts`` maps a NaN count to how often it occurs; ``row_size`` is the
    number of elements of a token, the one that the caller named or the model's hidden size; of several the one that
    divides most counts. ``settings`` holds what the log says of dtype, layer and so on. ``ended`` is the first line by
    which the job may have ended early.
    """

    log: str
    model: str | None
    model_from: str | None
    settings: Mapping[str, tuple[str, ...]]
    totals: tuple[int, ...]
    kept: tuple[int, ...]
    failures: int
    prompts: tuple[Prompt, ...]
    unnamed: int
    steps: int
    notices: int
    row_size: int | None
    counts: Mapping[int, int]
    by_pattern: Mapping[str, int]
    uncertain: int
    ended: Failure | None


@dataclass(frozen=True, slots=True)
class Shape:
    """Lines that differ in digits only: how often, the first one's number and text."""

    times: int
    line: int
    sample: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One log, read to its end.

    Every line is in one of three counts: ``understood`` (a pattern fits, or it continues a text), ``unclear`` (it
    speaks of NaN, Inf, overflow or an error, and no pattern fits) and ``others``. ``unclear_shapes`` and
    ``other_samples`` show them; ``sound_samples`` counts, of one other line in each MiB, those that have the form of a
    loop that goes well. ``bytes`` is what was read after decompression.
    """

    log: str
    sections: tuple[Section, ...]
    lines: int
    bytes: int
    understood: int
    unclear: int
    unclear_nonfinite: int
    others: int
    unclear_shapes: tuple[Shape, ...]
    shapes_left_out: int
    sound_samples: int
    other_samples: tuple[str, ...]
    encoding: str
    compression: str | None
    notes: tuple[str, ...]
