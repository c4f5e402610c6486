"""The parts of verdict.json that stand for many runs: cells, releases, models, prompts."""

import enum
from typing import Any

from msgspec import field

from repro.core.encoding import Number, Record
from repro.core.finite.sketch import Sketch
from repro.core.payloads import Environment, Origin, Section
from repro.core.records import Kind, Outcome
from repro.core.trace_answers import Changes

# --- cells -----------------------------------------------------------------------------------------------------------


class CellAblation(Record, frozen=True, kw_only=True):
    """What a cell answered to one ablation."""

    name: str
    verdict: Outcome
    reason: str = ""


class CellRow(Record, frozen=True, kw_only=True):
    """One cell of a table. ``asked`` is what was to be installed; ``folder`` is its run, None where none was made.

    ``label`` is a name that no other cell of the table has. ``outputs`` are the digests of what a good cell's forward
    pass gave, one for each input; ``sketches`` say how far these are from another cell's.
    """

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
    outputs: tuple[str, ...] = ()
    sketches: tuple[Sketch, ...] = ()


class Difference(Record, frozen=True, kw_only=True):
    """One thing with another value in each of two cells; None where a cell does not have it.

    Where both cells are bad, ``bad`` is the first one's value and ``good`` the second one's.
    """

    name: str
    bad: Any = None
    good: Any = None


class CellPair(Record, frozen=True, kw_only=True):
    """A bad cell beside a good one, with all that differs; ``good`` is None where there is no good cell to compare.

    ``nearest`` is False for a pair that is listed only because a single axis differs and ``in_the_way`` keeps it from
    bearing a statement. ``note`` is a sentence.
    """

    bad: str
    good: str | None
    nearest: bool
    axes: tuple[Difference, ...] = ()
    packages: tuple[Difference, ...] = ()
    settings: tuple[Difference, ...] = ()
    in_the_way: tuple[str, ...] = ()
    note: str | None = None


class Statement(Record, frozen=True, kw_only=True):
    """What a pair of cells shows about one axis.

    ``follows``: the first cell is bad and the second good. Otherwise both are bad with the same kind of fault.
    ``carried`` names the packages and settings that differ because the axis does.
    """

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
    """One run in one environment. ``folder`` is None where nothing ran, so that asking again would change nothing."""

    verdict: Outcome
    reason: str
    command: str
    kind: Kind | None = None
    folder: str | None = None
    seconds: float = 0.0


class Release(Record, frozen=True, kw_only=True):
    """One release and what it answered; without any run it was skipped for what it declares.

    ``votes``, such as "bad in 2 of 5", is set where it ran more than once. ``command`` is that of the run that decided.
    """

    version: str
    verdict: Outcome
    reason: str
    pins: dict[str, str] = field(default_factory=dict)
    kind: Kind | None = None
    votes: str | None = None
    command: str | None = None
    runs: tuple[ReleaseRun, ...] = ()


class Boundary(Record, frozen=True, kw_only=True):
    """Two releases between which the answer changes; ``skipped`` lie between them, oldest first.

    ``direction`` is "regression" where the newer one is bad, "fix" where it is good. ``moved`` is what the fault
    follows: the package, its partner, "both needed", "either alone" or "could not tell"; ``why`` is the reason.
    ``crossed``: where the two differ in the partner as well, each with the partner of the other.
    """

    direction: str
    last_good: str
    first_bad: str
    skipped: tuple[str, ...] = ()
    moved: str | None = None
    why: str | None = None
    crossed: tuple[Release, ...] = ()


class Versions(Record, frozen=True, kw_only=True):
    """A search over releases.

    The fields from ``direction`` to ``skipped``, ``moved`` and ``attribution`` are those of the oldest boundary, None
    without one. ``pairs`` are the releases of the range, each with its partner; ``probes`` are in order of asking.
    ``changes`` compares the operators on the two sides of the oldest boundary, ``all_changes`` those of each boundary.
    """

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
    changes: Changes | None = None
    all_changes: tuple[Changes, ...] = ()


# --- models ----------------------------------------------------------------------------------------------------------


class Born(Record, frozen=True, kw_only=True):
    """Where a model's fault is born, as far as it is known."""

    module: str | None = None
    op: str | None = None
    source: str | None = None
    token_index: int | None = None
    token: str | None = None


class Peak(Record, frozen=True, kw_only=True):
    """The largest finite magnitude in any layer's output, and the dtype in which it was measured.

    ``measured`` is False where the run went bad before its largest value: then this is a lower bound.
    """

    value: float
    dtype: str
    measured: bool


class SiblingModel(Record, frozen=True, kw_only=True):
    """One model of a comparison, and what was seen of it.

    ``asked`` counts the prompts that answered, ``failed`` the bad ones among them, and ``share`` is their ratio.
    ``wider`` is the verdict in the next wider dtype, where it was asked. ``headroom`` is each dtype's limit divided by
    the peak, None where nothing was measured.
    """

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
    """What the order by size says.

    ``kind``: "bad_from" and "good_from" are a threshold, and ``below`` and ``above`` the two models beside it;
    "all_good", "all_bad", "not_in_order", "dtypes" and "too_few" are none. ``headroom``: "cause", "not_cause",
    "unknown", or None where no model is bad. ``headroom_with_size``: "rises", "falls" or "not in order"; None where it
    is not measured in each.
    """

    kind: str
    below: str | None = None
    above: str | None = None
    headroom: str | None = None
    headroom_with_size: str | None = None
    sentences: tuple[str, ...] = ()


class Setting(Record, frozen=True, kw_only=True):
    """A setting in which the models differ, with a value for each model; ``absent`` where a model does not set it.

    ``order`` is "rises", "falls" or "not in order" with the number of parameters; None where it is no number in each of
    them, or sizes are not known. ``separates``: whether it tells the bad models from the good ones.
    """

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
    """Where examples go bad first, and how many.

    ``layer`` is "output" where every layer is finite and the logits are not; ``module`` then says which module gives
    them, where that is known. ``kind`` is "text", "special", "padding", "every" or "logits".
    """

    layer: str
    kind: str
    examples: int
    token: str | None = None
    module: str | None = None


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
    """What one ablation saves of the failing examples, and what it costs. ``weights_bytes``: memory of the weights.

    It was tried on ``asked`` of the ``failing`` ones: a few of those that fail alike, or all.
    """

    name: str
    verdict: Outcome
    reason: str = ""
    saved: int | None = None
    asked: int | None = None
    failing: int | None = None
    share: float | None = None
    seconds: float | None = None
    weights_bytes: int | None = None


class FirstBad(Record, frozen=True, kw_only=True):
    """Where one example goes bad first; ``token_index`` is counted from its first token that is no padding."""

    layer: str
    module: str | None = None
    token_index: int | None = None
    token: str | None = None
    token_kind: str | None = None
    cause: str | None = None


class SearchedExample(Record, frozen=True, kw_only=True):
    """One failing example under the full search: what the pass over all examples said, what the search found, and
    whether the two agree; None where the search has no answer.
    """

    index: int
    said: FirstBad
    verdict: Outcome
    reason: str = ""
    side: str | None = None
    found: FirstBad | None = None
    agrees: bool | None = None
    origin: Origin | None = None


class ChatTemplate(Record, frozen=True, kw_only=True):
    """The chat template that made texts of messages: the file that it is in, its hash, and of how many examples."""

    file: str | None = None
    sha256: str
    examples: int


class Searched(Record, frozen=True, kw_only=True):
    """The failing examples that were put to the full search, as ``repro run`` makes it."""

    asked: int = 0
    answered: int = 0
    agreed: int = 0
    samples: tuple[SearchedExample, ...] = ()
    sentence: str = ""


class Topic(Record, frozen=True, kw_only=True):
    """What a question about prompts is about.

    ``words`` names it, and prompts ``verb`` it. ``more`` and ``less`` are what the failing prompts do where a number of
    theirs is greater or smaller; both are empty for yes or no. Topics of one ``family`` are about one thing.
    """

    name: str
    family: str
    words: str
    more: str = ""
    less: str = ""
    verb: str = "have"


class Group(Record, frozen=True, kw_only=True):
    """The failing or the passing prompts, as one question sees them.

    ``of`` have an answer. ``yes`` is how many say yes; the others are for questions about a number.
    """

    of: int
    yes: int | None = None
    median: float | None = None
    least: float | None = None
    greatest: float | None = None


class PromptFinding(Record, frozen=True, kw_only=True):
    """One question and what came of it.

    ``corrected`` is ``p`` corrected for all questions (Holm); ``significant`` where it is at most the level.
    ``separates`` where failing and passing have no answer in common. The test's fields are None without scipy.
    ``ruled_out`` says why it cannot be the reason by itself, where runs of one prompt alone show it.
    """

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


class WhyOutcome(enum.Enum):
    """What the comparison of failing and passing prompts came to."""

    PATTERN = "pattern"
    NO_PATTERN = "no pattern"
    TOO_FEW = "too few"
    NOTHING_TO_COMPARE = "nothing to compare"
    NOT_TESTED = "not tested"


class Why(Record, frozen=True, kw_only=True):
    """What tells failing from passing prompts.

    ``findings``: what tells them apart most comes first. ``asked`` counts all questions, also those about tokens that
    are not among the findings. ``shared`` says what the failing prompts have in common, whatever the passing ones
    have. ``sentences`` is all of it in words.
    """

    outcome: WhyOutcome
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
    searched: Searched | None = None
    chat_template: ChatTemplate | None = None
    ablations: tuple[PromptAblation, ...] = ()
