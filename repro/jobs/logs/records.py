"""What comes out of a log: failures, the distinct prompts among them, and totals for each model."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure, pieced together from the lines of one rank.

    ``kind`` is "example" (one example is bad), "step" (a loss, gradient or check that belongs to no example) or
    "notice" (a step skipped by a loss scaler, which is normal). ``text_cut``: the text may be truncated, for it ends in
    dots or is very long. ``certain``: the lines fit together in one way only. ``nan`` and ``inf`` count elements;
    ``rows`` is ``nan`` in token rows of ``row_size`` elements, null if not a whole number or the size is not known.
    ``quantities`` are the names on the line that are "NaN" or "Inf"; ``fields`` has its step, epoch, batch or chunk.
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
    quantities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that failed, known by its text, or else by index and rank. ``first`` is its first failure."""

    text: str | None
    first: Failure
    times: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One name that is NaN or Inf, such as a loss: on how many lines, and where first. ``value`` is what it is there,
    and ``place`` that line's step, epoch, batch or chunk, as far as the log says it."""

    name: str
    lines: int
    value: str
    line: int
    place: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """What one log says about one model.

    ``failures`` counts records, ``prompts`` has each distinct prompt once, and ``unnamed`` counts failed examples with
    neither text nor index. ``steps`` counts failures that belong to no example (a loss, a check), ``notices`` steps
    that a loss scaler skipped. ``totals`` are the numbers of prompts in the log, ``kept`` those left at the end.
    ``counts`` maps each NaN count to how often it occurs. ``row_size`` is the number of elements of a token: given by
    the caller, or the model's hidden size; of several, the one that divides most counts. ``settings`` is what the log
    says about dtype, layer and so on. ``ended`` is the first sign that the job ended early. ``untold`` counts failures
    of prompts beyond the number that is told apart (``tallies.MOST_PROMPTS``).

    ``quantities`` are the names that are NaN or Inf, the first one first. ``told`` is the log's own number of failed
    prompts, and ``told_as_bad`` whether it gives NaN as the reason. ``alike`` counts failures with a truncated text and
    no index that were taken for an earlier one, or that fit several prompts: each may be a prompt of its own.
    ``trouble`` says why the loss scaler is at fault.
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
    untold: int = 0
    quantities: tuple[Quantity, ...] = ()
    told: int | None = None
    told_as_bad: bool = False
    alike: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Lines that differ only in digits: how many, and the first one's number and text."""

    times: int
    line: int
    sample: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One log, read to its end.

    Every line is in one of three counts: ``understood`` (a pattern matches, or it continues a text), ``unclear`` (it
    mentions NaN, Inf, overflow or an error, and no pattern matches) and ``others``. ``unclear_shapes`` and
    ``other_samples`` show some of them. Of the other lines those at both ends are looked at, and one per MiB in
    between; ``sound_samples`` counts those that look like a healthy loop. ``tells`` counts lines that say how the job
    went, these among them, and ``unclear_errors`` those of ``unclear`` that are an error by their own word.
    ``bytes`` is the size after decompression. ``unread`` says why a log could not be read at all, and ``suspicion``
    what is odd about its losses.
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
    tells: int = 0
    unclear_errors: int = 0
    unread: str | None = None
    suspicion: str | None = None
