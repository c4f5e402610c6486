"""The parts of verdict.json that stand for many runs: cells, releases, models, prompts."""

from typing import Any

from msgspec import field

from repro.core.encoding import Number, Record
from repro.core.payloads import Environment, Origin, Plain, Section
from repro.core.records import Kind, Outcome

# --- cells -----------------------------------------------------------------------------------------------------------


class CellAblation(Record, frozen=True, kw_only=True):
    """What a cell answered to one ablation."""

    name: str
    verdict: Outcome
    reason: str = ""


class CellRow(Record, frozen=True, kw_only=True):
    """One cell of a table. ``asked`` is what was to be installed; ``folder`` is its run, None where none was made."""

    id: str
    verdict: Outcome
    reason: str
    why: str = ""
    asked: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    platform: str | None = None
    dtype: str | None = None
    attn: str | None = None
    device: str | None = None
    machine: str | None = None
    kind: Kind | None = None
    origin: Origin | None = None
    ablations: tuple[CellAblation, ...] = ()
    workarounds: tuple[str, ...] = ()
    environment: Environment | None = None
    seconds: float = 0.0
    command: str = ""
    folder: str | None = None
    label: str = ""


class Difference(Record, frozen=True, kw_only=True):
    """One thing in which a bad and a good cell differ."""

    name: str
    bad: Any = None
    good: Any = None


class CellPair(Record, frozen=True, kw_only=True):
    """A bad cell and a good one beside it; ``nearest`` where no other good cell differs less."""

    bad: str
    good: str | None
    nearest: bool
    axes: tuple[Difference, ...] = ()
    packages: tuple[Difference, ...] = ()
    settings: tuple[Difference, ...] = ()
    in_the_way: tuple[str, ...] = ()
    note: str | None = None


class Statement(Record, frozen=True, kw_only=True):
    """What two cells bear: that the fault follows an axis between two values, or that it does not."""

    axis: str
    follows: bool
    cells: tuple[str, str]
    values: tuple[str, str]
    carried: tuple[str, ...]
    text: str


class Differences(Record, frozen=True, kw_only=True):
    """Each bad cell beside its nearest good one, and the statements."""

    pairs: tuple[CellPair, ...] = ()
    statements: tuple[Statement, ...] = ()


# --- releases --------------------------------------------------------------------------------------------------------


class ReleaseRun(Record, frozen=True, kw_only=True):
    """One run of one release."""

    verdict: Plain
    command: str
    kind: str | None = None
    folder: str | None = None
    seconds: float = 0.0


class Release(Record, frozen=True, kw_only=True):
    """One release and what it answered. ``votes`` where it was asked more than once."""

    version: str
    verdict: Outcome
    reason: str
    pins: dict[str, str] = field(default_factory=dict)
    kind: str | None = None
    votes: str | None = None
    command: str | None = None
    runs: tuple[ReleaseRun, ...] = ()


class Boundary(Record, frozen=True, kw_only=True):
    """Two releases between which the answer changes."""

    direction: str
    last_good: str
    first_bad: str
    skipped: tuple[str, ...] = ()
    moved: str | None = None
    why: str | None = None
    crossed: tuple[Release, ...] = ()


class Versions(Record, frozen=True, kw_only=True):
    """A search over releases. ``changes`` compares the operators of the two sides of the oldest boundary."""

    package: str
    direction: str | None = None
    last_good: str | None = None
    first_bad: str | None = None
    skipped: tuple[str, ...] = ()
    python: str | None = None
    with_: dict[str, str] = field(default_factory=dict, name="with")
    moved: str | None = None
    pairs: tuple[tuple[str, str | None], ...] = ()
    probes: tuple[Release, ...] = ()
    boundaries: tuple[Boundary, ...] = ()
    releases: int = 0
    environments: int = 0
    notes: tuple[str, ...] = ()
    sentence: str = ""
    attribution: str | None = None
    changes: Plain | None = None
    all_changes: tuple[Plain, ...] = ()


# --- models ----------------------------------------------------------------------------------------------------------


class Born(Record, frozen=True, kw_only=True):
    """Where a model's fault is born, as far as it is known."""

    module: str | None = None
    op: str | None = None
    source: str | None = None
    token_index: int | None = None
    token: str | None = None


class Peak(Record, frozen=True, kw_only=True):
    """The largest output of any layer; ``measured`` is False for one that is only a lower bound."""

    value: Number
    dtype: str
    measured: bool


class SiblingModel(Record, frozen=True, kw_only=True):
    """One model of a comparison. ``share`` is the failing share of the prompts that answered."""

    name: str
    model: str
    verdict: Outcome
    reason: str
    kind: Kind | None = None
    weights: str = "checkpoint"
    model_class: str | None = None
    parameters: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    dtype: str | None = None
    attn: str | None = None
    asked: int | None = None
    failed: int | None = None
    born: Born | None = None
    mechanism: str | None = None
    peak: Peak | None = None
    wider: Outcome | None = None
    command: str | None = None
    folder: str | None = None
    share: float | None = None
    headroom: dict[str, Number | None] = field(default_factory=dict)


class Threshold(Record, frozen=True, kw_only=True):
    """What the order by size says. ``kind``: "bad_from" or "good_from", or why there is no threshold."""

    kind: str
    below: str | None = None
    above: str | None = None
    headroom: str | None = None
    headroom_with_size: str | None = None
    sentences: tuple[str, ...] = ()


class Setting(Record, frozen=True, kw_only=True):
    """A setting in which the models differ; one value for each model."""

    path: str
    values: tuple[Any, ...]
    absent: tuple[bool, ...]
    topic: str | None = None
    order: str | None = None
    separates: bool = False


class Comparison(Record, frozen=True, kw_only=True):
    """Sibling models asked the same."""

    models: tuple[SiblingModel, ...]
    threshold: Threshold
    settings: tuple[Setting, ...] = ()
    same_settings: int = 0
    shown_model: str | None = None


# --- prompts ---------------------------------------------------------------------------------------------------------


class Place(Record, frozen=True, kw_only=True):
    """Where examples go bad first, and how many."""

    layer: str
    kind: str
    examples: int
    token: str | None = None


class Skips(Record, frozen=True, kw_only=True):
    """A reason why examples gave no answer, and how many."""

    reason: str
    examples: int


class Counts(Record, frozen=True, kw_only=True):
    """How many bad values; ``whole`` where they are whole rows of tokens."""

    values: int
    rows: int
    row_size: int
    whole: bool
    examples: int


class PromptAblation(Record, frozen=True, kw_only=True):
    """What one ablation saves of the failing examples, and what it costs. ``weights_bytes``: memory of the weights."""

    name: str
    verdict: Outcome
    reason: str = ""
    saved: int | None = None
    asked: int | None = None
    share: float | None = None
    seconds: float | None = None
    weights_bytes: int | None = None


class Topic(Record, frozen=True, kw_only=True):
    """What a question about prompts is about."""

    name: str
    family: str
    words: str
    more: str = ""
    less: str = ""
    verb: str = "have"


class Group(Record, frozen=True, kw_only=True):
    """The failing or the passing prompts, as one question sees them."""

    of: int
    yes: int | None = None
    median: Number | None = None
    least: Number | None = None
    greatest: Number | None = None


class PromptFinding(Record, frozen=True, kw_only=True):
    """One question and what came of it; ``corrected`` is ``p`` corrected for all questions."""

    topic: Topic
    failing: Group
    passing: Group
    separates: bool
    p: float | None = None
    corrected: float | None = None
    significant: bool = False
    test: str | None = None
    effect: Number | None = None
    effect_name: str | None = None
    interval: tuple[Number, Number] | None = None
    ruled_out: str | None = None
    sentence: str = ""


class Why(Record, frozen=True, kw_only=True):
    """What tells failing from passing prompts."""

    outcome: str
    sentence: str
    failing: int
    passing: int
    skipped: int
    asked: int
    level: float
    findings: tuple[PromptFinding, ...] = ()
    shared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


class Vectors(Record, frozen=True, kw_only=True):
    """Mean differences of sound pairs; ``path`` is None where no pair is sound."""

    path: str | None
    used: int
    lost: int
    lost_pairs: tuple[int, ...] = ()


class Prompts(Section, frozen=True, kw_only=True):
    """Many prompts in one run: what the step said, and what all examples amount to."""

    layers: tuple[str, ...] = ()
    padding_side: str | None = None
    pad_token_id: int | None = None
    special_ids: tuple[int, ...] = ()
    good: int = 0
    bad: int = 0
    skip: int = 0
    asked: int = 0
    total: int = 0
    places: tuple[Place, ...] = ()
    causes: dict[str, int] = field(default_factory=dict)
    skips: tuple[Skips, ...] = ()
    counts: tuple[Counts, ...] = ()
    padding_rows_bad_in: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    pairs_lost: tuple[int, ...] = ()
    sentence: str = ""
    why: Why | None = None
    lost_why: Why | None = None
    vectors: Vectors | None = None
    ablations: tuple[PromptAblation, ...] = ()
