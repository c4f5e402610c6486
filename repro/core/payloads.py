"""What each step of the kit answers, as records.

A field that a step did not fill has its default. ``Number`` fields hold floats; those that are not finite are the
strings "nan", "inf" and "-inf", as they travel.
"""

from typing import Any

from msgspec import field
from packaging.utils import canonicalize_name

from repro.core.encoding import Number, Record
from repro.core.records import Outcome

Plain = dict[str, Any]


class Section(Record, frozen=True, kw_only=True):
    """A step's verdict with its reason; each step's own fields are in the classes below.

    ``fatal``: nothing behind this step can run.
    """

    verdict: Outcome = Outcome.SKIP
    reason: str = ""
    fatal: bool = False


class Figures(Record, frozen=True, kw_only=True):
    """Figures of one tensor, computed in float32 or wider. ``min`` and ``max`` pass a NaN on."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    min: Number | None = None
    max: Number | None = None
    mean: Number | None = None
    nan: int | None = None
    posinf: int | None = None
    neginf: int | None = None


# --- environment -----------------------------------------------------------------------------------------------------


class Environment(Record, frozen=True, kw_only=True):
    """The interpreter that ran the kit, and what in it changes numbers. Sizes are in bytes. ``modules`` has the
    distribution of each importable module that bears another name than it.
    """

    python: str | None = None
    executable: str | None = None
    torch: str | None = None
    torch_git: str | None = None
    transformers: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    closures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    python_build: str | None = None
    build: Plain = field(default_factory=dict)
    platform: str | None = None
    machine: str | None = None
    system: str | None = None
    libc: str | None = None
    memory_bytes: int | None = None
    cpu: Plain = field(default_factory=dict)
    blas: str | None = None
    mkldnn: bool | None = None
    threads: int | None = None
    interop_threads: int | None = None
    matmul_precision: str | None = None
    tf32: Plain = field(default_factory=dict)
    deterministic: bool | None = None
    flush_denormal: bool | None = None
    accelerator: str | None = None
    accelerators: tuple[Plain, ...] | None = None
    gpu_driver: str | None = None
    accelerate_config: Plain | None = None
    allocator: Plain = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def distribution(self, module: str) -> str:
        """The name under which the package of a top-level module is installed, as registries compare it."""
        return self.modules.get(module) or canonicalize_name(module)

    def version(self, package: str) -> str | None:
        """The release of an installed package, by that name; None where it is not installed."""
        known = {canonicalize_name(name): version for name, version in {**self.distributions, **self.packages}.items()}
        return known.get(canonicalize_name(package))


# --- files, weights, load --------------------------------------------------------------------------------------------


class WeightFile(Record, frozen=True, kw_only=True):
    """One weight file. ``data_start`` is the offset of its first tensor; None where the format has no header."""

    name: str
    bytes: int | None = None
    tensors: int | None = None
    data_start: int | None = None
    data_start_mod_8: int | None = None
    sha256: str | None = None


class Finding(Record, frozen=True, kw_only=True):
    """A problem, with its severity ("bad", "unread" or "note"); ``file`` where it is of one file, ``cause`` where it
    says why others are there: the kind of a ``Cause``, or "misplaced".
    """

    problem: str
    severity: str = "note"
    file: str | None = None
    cause: str | None = None


class Files(Section, frozen=True, kw_only=True):
    """The files step. ``format`` is "safetensors", "pickle" or "none"; ``adapter`` is the folder of an adapter, and
    ``folder`` then that of its base model. ``package`` runs the folder, where that is not Transformers.
    """

    source: str | None = None
    package: str | None = None
    folder: str | None = None
    adapter: str | None = None
    revision: str | None = None
    format: str | None = None
    untrusted_pickle: bool = False
    files: tuple[WeightFile, ...] = ()
    findings: tuple[Finding, ...] = ()


class Tensor(Record, frozen=True, kw_only=True):
    """Figures of one tensor in a file. ``first_index`` is that of its first NaN or Inf, ``stored_as`` the tensor's name
    in a .gguf file.
    """

    tensor: str
    file: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    min: Number | None = None
    max: Number | None = None
    absmax: Number | None = None
    nan: int | None = None
    posinf: int | None = None
    neginf: int | None = None
    subnormal: int | None = None
    zeros: int | None = None
    constant: bool | None = None
    stored_as: str | None = None
    first_index: tuple[int, ...] | None = None


class Largest(Record, frozen=True, kw_only=True):
    """The tensor with the largest magnitude, that, and its dtype where the step says it."""

    tensor: str
    value: Number
    dtype: str | None = None


class Weights(Section, frozen=True, kw_only=True):
    """The weights step. ``overflows_in`` names, for each dtype, the tensors that it cannot hold."""

    tensors: int | None = None
    parameters: int | None = None
    bytes: int | None = None
    findings: tuple[Tensor, ...] = ()
    masks: tuple[str, ...] = ()
    subnormal: int | None = None
    zero_tensors: tuple[str, ...] = ()
    constant_tensors: int | None = None
    overflows_in: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absmax: Largest | None = None


class Mismatch(Record, frozen=True, kw_only=True):
    """A tensor whose shape in the file is not the model's."""

    tensor: str
    file: tuple[int, ...] | None = None
    model: tuple[int, ...] | None = None


class Misaligned(Record, frozen=True, kw_only=True):
    """A parameter whose address is ``address_mod`` bytes beyond a multiple of its item size."""

    tensor: str
    address_mod: int


class Values(Record, frozen=True, kw_only=True):
    """Loaded tensors held against the file: how many were, which differ, how many could not be."""

    compared: int = 0
    differ: tuple[str, ...] = ()
    not_compared: int = 0


class Misplaced(Record, frozen=True, kw_only=True):
    """A tensor in memory with the values of ``holds``, a tensor of the file, in place of those of ``belongs``."""

    tensor: str
    holds: str
    belongs: str


class Quantised(Record, frozen=True, kw_only=True):
    """How many weights are quantised in the file, how, and how many of them were compared through their own
    arithmetic.
    """

    method: str | None = None
    tensors: int = 0
    compared: int = 0


class KeyPair(Record, frozen=True, kw_only=True):
    """A key of the file, and the model's that it would be."""

    file: str
    model: str


class Cause(Record, frozen=True, kw_only=True):
    """Why ``keys`` of ``of`` keys are missing, or do not fit; further rules explain ``explained`` of them together.

    ``kind``: "prefix", "suffix", "renamed" or "wrapped" (several times in a key), where ``file`` in the file's keys
    stands for ``model``; "transposed"; "quantised", where the configuration does not say so.
    """

    kind: str
    file: str = ""
    model: str = ""
    transposed: bool = False
    keys: int = 0
    explained: int = 0
    of: int = 0
    example: KeyPair | None = None


class Load(Section, frozen=True, kw_only=True):
    """The load step. ``config`` holds the settings of the model's architecture, ``cause`` why most keys are missing.

    ``config_dtype`` and ``architectures`` are as the file of the configuration has them. ``beside_missing``: by missing
    tensor, the same of another layer that the file has.
    """

    class_: str | None = field(default=None, name="class")
    model_type: str | None = None
    config: Plain = field(default_factory=dict)
    parameters: int | None = None
    dtype: str | None = None
    attn: str | None = None
    device: str | None = None
    random_seed: int | None = None
    config_dtype: str | None = None
    architectures: tuple[str, ...] = ()
    missing_keys: tuple[str, ...] = ()
    beside_missing: dict[str, str] = field(default_factory=dict)
    unexpected_keys: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    cause: Cause | None = None
    misaligned: int | None = None
    misaligned_examples: tuple[Misaligned, ...] = ()
    meta: tuple[str, ...] = ()
    unset_buffers: tuple[str, ...] = ()
    buffers_checked: int | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    values: Values | None = None
    misplaced: tuple[Misplaced, ...] = ()
    quantised: Quantised | None = None
    findings: tuple[Finding, ...] = ()


# --- forward, script -------------------------------------------------------------------------------------------------


class Further(Record, frozen=True, kw_only=True):
    """An input beside the token ids.

    ``made``: "normal" is ``torch.randn`` of ``shape`` from a generator with ``seed``, cast to ``dtype``, and "whole" is
    ``torch.randint`` up to ``below``; "ones" are ones, "exact" are ``values``, "given" is as the program gave it.
    "file", "image" and "audio" were read, and are ``stored`` with another dtype where there is one. ``values`` are
    absent where there are many.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    seed: int | None = None
    made: str = "normal"
    below: int | None = None
    stored: str | None = None
    values: Any = None


class Pass(Record, frozen=True, kw_only=True):
    """One input and what came of it. ``input_source`` is "tokenizer", "seeded", "file" (exact inputs), "processor" (a
    picture or a sound through the model's own), or "memory"; ``input_ids`` are empty for a model that takes none;
    ``without`` names inputs that it takes and was not given.

    ``absorbed``: how many module calls gave a bad value of which nothing is seen in the output.
    """

    input_source: str | None = None
    prompt: str | None = None
    seed: int | None = None
    input_ids: tuple[int, ...] = ()
    decoder_input_ids: tuple[int, ...] | None = None
    tokens: tuple[str, ...] | None = None
    further: tuple[Further, ...] = ()
    without: tuple[str, ...] = ()
    output: str | None = None
    logits: Figures | None = None
    entropy_ratio: float | None = None
    uniform: bool | None = None
    repeat_equal: bool | None = None
    verdict: Outcome | None = None
    digest: str | None = None
    absorbed: int = 0


class Forward(Section, frozen=True, kw_only=True):
    """The forward step; ``logits`` are those of the worst input, ``plain_seconds`` the fastest pass."""

    output: str | None = None
    prompts: tuple[Pass, ...] = ()
    logits: Figures | None = None
    plain_seconds: float | None = None


class Script(Section, frozen=True, kw_only=True):
    """The script step: how it ended, and its last lines.

    ``unseeded`` names the generators that it draws from and sets no seed of. Of ``further_runs`` of it, unchanged,
    ``otherwise`` did not end as the one that is told of here did; ``other_end`` is how. That is the first run, or one
    that failed where the first was good, which then is one of the others.
    """

    exit_status: int | None = None
    lines: tuple[str, ...] = ()
    script_sha256: str | None = None
    unseeded: tuple[str, ...] = ()
    further_runs: int = 0
    otherwise: int = 0
    other_end: str | None = None


class Watch(Section, frozen=True, kw_only=True):
    """The watch step: what ran in the user's own process while it was watched.

    ``arrived`` says what the first NaN or Inf arrived in, and ``phase`` in which phase. ``unseen`` counts the calls of
    operators that could not be looked at, ``scaled`` the overflows of gradients that a loss scaler threw away.
    Of a guarded training loop: ``step``, its number from 1, and ``examples`` of the ``batch``
    that are bad alone.
    """

    operators: int = 0
    unseen: dict[str, int] = field(default_factory=dict)
    scaled: int = 0
    arrived: str | None = None
    phase: str | None = None
    step: int | None = None
    examples: tuple[int, ...] | None = None
    batch: int | None = None


# --- bisect ----------------------------------------------------------------------------------------------------------


class Reference(Record, frozen=True, kw_only=True):
    """What other arithmetic has there. ``scope``: "model", "operator" or "file"."""

    value: Number | None = None
    dtype: str | None = None
    scope: str | None = None


class CameIn(Record, frozen=True, kw_only=True):
    """A tensor that was bad before anything that was watched ran.

    ``kind``: "data", "parameter", "buffer", "attribute" or "constant". ``bad`` of ``total`` values are NaN or Inf;
    ``examples`` are the rows of the first dimension that hold one, ``features`` the places of the last dimension that
    do (the first few of each). Of a script, ``entry_code`` is the package whose code made the tensor, and ``held_by`` a
    variable of the script itself that holds a bad value outside of PyTorch.
    """

    kind: str
    shape: tuple[int, ...] = ()
    bad: int = 0
    total: int = 0
    examples: tuple[int, ...] = ()
    features: tuple[int, ...] = ()
    entry_code: str | None = None
    held_by: str | None = None


class InputPlace(Record, frozen=True, kw_only=True):
    """A place in an input that is no text: ``index`` of ``shape`` places in the input ``of``.

    ``kind``: "patch" or "map" (row, column; of a video frame, row, column), "spectrogram patch" (which along the
    frequencies, and which in time), "pixel" (row, column), "frame", "sample", "step" or "stretch" (of a series; of
    several, series and step), "picture token", "video token" or "sound token" (the number among those that stand for
    it), or "special": a token beside the patches.
    """

    kind: str
    of: str | None = None
    index: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


class Excerpt(Record, frozen=True, kw_only=True):
    """The ``lines`` of a source file around the line ``source``, as the file had them; ``first`` is the number of the
    first one. ``package`` is the top-level package of the code, "__main__" for a script.
    """

    source: str
    first: int
    package: str | None = None
    lines: tuple[str, ...] = ()


class Held(Record, frozen=True, kw_only=True):
    """A number of the model that makes the origin bad whatever its module is given; with ``instead`` in its place that
    is finite there. ``in_file``: whether it is as the file has it.
    """

    tensor: str
    index: tuple[int, ...]
    value: Number
    instead: Number
    in_file: bool


class Origin(Record, frozen=True, kw_only=True):
    """Where the first bad value is born.

    ``occurrence`` counts the calls of the same operator within the module's call. ``code`` is the package that the
    source line belongs to. ``operands`` are the inputs at the element. ``tensor`` and ``tensor_index`` name the weight
    or buffer in which the value lay, ``stored_as`` its name in a .gguf file. ``confirmed_by``: "repaired", "changed",
    "suffices", "together", "corrected", "layers", "walked", "repeated" or "widened".

    ``phase``: "load", "forward", "loss", "backward", "clip", "optimizer" or "generate". Behind a backward operator
    stand ``forward_op`` and ``forward_source``, the operator and line of the forward pass, and ``gradient``, the
    parameter whose gradient went bad first. ``generate_step`` counts the passes of a generation from 0, ``train_step``
    the steps of a training, ``micro_batch`` the parts of such a step. ``came_in`` is of a value that came in from
    outside. ``layer`` is the one that a fault needs: "inductor", "aot_eager", "fast path".
    ``library`` is the module of PyTorch's own Python code that runs the operator, such as "torch.nn.init", or the
    function that does a whole attention.
    ``cause_source`` is the line that made its inputs what they are: of a mask, the line that wrote it.
    ``decided_by`` is "integers" where other integers in the same call (labels, lengths) give a finite result, and
    "epsilon" where the module's epsilon is 0; "constant" or "default constant" where one is 0 in the dtype, given to
    the function in ``library`` or its default.
    ``ratio``: of a finite number, how many times farther from float64 it is than rounding allows.
    ``held`` is the number of the model that decides. ``largest_weight`` is the largest parameter of the modules that
    ran. ``excerpt`` shows ``cause_source``, where there is none ``forward_source``, else ``source``.
    """

    module: str | None = None
    module_class: str | None = None
    op: str | None = None
    call_index: int | None = None
    occurrence: int | None = None
    mechanism: str = "unknown"
    source: str | None = None
    code: str | None = None
    token_index: int | None = None
    token: str | None = None
    place: InputPlace | None = None
    head_index: int | None = None
    channel_index: int | None = None
    element: tuple[int, ...] | None = None
    value: Number | None = None
    operands: tuple[Number | None, ...] = ()
    inputs: tuple[Figures, ...] = ()
    output: Figures | None = None
    reference_value: Number | None = None
    reference: Reference | None = None
    limit: Number | None = None
    tensor: str | None = None
    tensor_index: tuple[int, ...] | None = None
    stored_as: str | None = None
    confirmed: bool | None = None
    confirmed_by: str | None = None
    note: str | None = None
    phase: str | None = None
    forward_op: str | None = None
    forward_source: str | None = None
    gradient: str | None = None
    generate_step: int | None = None
    train_step: int | None = None
    micro_batch: int | None = None
    came_in: CameIn | None = None
    layer: str | None = None
    library: str | None = None
    cause_source: str | None = None
    decided_by: str | None = None
    ratio: Number | None = None
    held: Held | None = None
    largest_weight: Largest | None = None
    excerpt: Excerpt | None = None


class Spread(Record, frozen=True, kw_only=True):
    """The bad tokens in one module's output."""

    module: str = ""
    bad_tokens: tuple[int, ...] = ()
    tokens: int | None = None


class Headroom(Record, frozen=True, kw_only=True):
    """The largest magnitude in one module's output; ``ratio`` is the dtype's limit divided by it."""

    module: str = ""
    call_index: int | None = None
    absmax: Number | None = None
    ratio: Number | None = None


class RuledOut(Record, frozen=True, kw_only=True):
    """An operator with a bad output from which nothing bad follows, and why that is known."""

    module: str = ""
    op: str | None = None
    why: str | None = None


ADDED = 4.0
"""Units of rounding that one operator may add to what comes out: each is held to one, and may be read several times."""


class Rounding(Record, frozen=True, kw_only=True):
    """Of a script without NaN: the operator farthest from float64, in units of its dtype's rounding.

    ``drawn``: those of ``not_judged`` that draw random numbers. ``of_itself``: operators whose float64 is their own: in
    float64 already, or of a library of the program's. ``wrapped``: what is said of the first operation on integers that
    went beyond their dtype. ``apart``: how far the two tensors that the script compared last are from each other, in
    units of the coarsest dtype of the run. ``nonfinite``: whether an operator got or gave a NaN or Inf, of which
    float64 of the same operator is no judge.
    """

    within: bool | None = None
    operators: int | None = None
    not_judged: tuple[str, ...] = ()
    of_itself: tuple[str, ...] = ()
    wrapped: str | None = None
    drawn: tuple[str, ...] = ()
    apart: float | None = None
    op: str | None = None
    module: str | None = None
    ratio: Number | None = None
    allowed: float | None = None
    dtype: str | None = None
    value: Number | None = None
    reference_value: Number | None = None
    index: tuple[int, ...] = ()
    nonfinite: bool = False

    @property
    def is_more(self) -> bool:
        """Whether what the script compared is farther apart than the roundings of all its operators add up to."""
        return self.apart is not None and self.apart > ADDED * (self.operators or 1)

    @property
    def explains_all(self) -> bool:
        """Whether every operator was held against float64 and is within what its dtype allows, and that is enough."""
        left = self.not_judged or self.wrapped or self.is_more or self.nonfinite
        return bool(self.within) and not left


class Bisect(Section, frozen=True, kw_only=True):
    """The bisect step. ``prompt`` is the number of the input in which the origin lies. ``watching``: what differs for a
    script that is not bad while it is watched.
    """

    origin: Origin | None = None
    prompt: int | None = None
    limit: Number | None = None
    dtype: str | None = None
    spread: tuple[Spread, ...] = ()
    headroom: tuple[Headroom, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    screened_calls: int | None = None
    rounding: Rounding | None = None
    watching: str | None = None


# --- generate, train -------------------------------------------------------------------------------------------------


class Generate(Section, frozen=True, kw_only=True):
    """The generate step: at most ``tokens`` new tokens behind input number ``prompt``; ``generated`` are those that
    there were. ``judged``: how many tensors of logits and scores were looked at; ``bad`` names those that are not
    finite. ``cached``: whether each pass behind the first was given one token alone.
    """

    tokens: int | None = None
    prompt: int | None = None
    generated: tuple[int, ...] = ()
    judged: int | None = None
    bad: tuple[str, ...] = ()
    cached: bool | None = None
    note: str | None = None


class Train(Section, frozen=True, kw_only=True):
    """The train step. ``loss`` says in words what the loss is, ``losses`` are its values by step. ``autocast`` is a
    dtype, ``loss_scale`` what a GradScaler began with, ``clip`` the largest norm of all gradients. ``batch`` is the
    number of examples, ``micro_batches`` that of the parts into which it is split, ``examples`` are those that make it
    bad; ``bad`` names what is not finite at the end.
    """

    steps: int | None = None
    loss: str | None = None
    losses: tuple[Number, ...] = ()
    batch: int | None = None
    micro_batches: int | None = None
    autocast: str | None = None
    loss_scale: Number | None = None
    clip: Number | None = None
    optimizer: str | None = None
    examples: tuple[int, ...] = ()
    bad: tuple[str, ...] = ()
    note: str | None = None


# --- trace -----------------------------------------------------------------------------------------------------------


class Trace(Section, frozen=True, kw_only=True):
    """The trace step: a row for each operator of one pass, with a value for each column; ``rows_left_out`` had no room.

    ``classes`` has the class of each module; ``root`` is the class of the model, or the script's name.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    classes: dict[str, str] = field(default_factory=dict)
    rows_left_out: int = 0
    root: str | None = None


# --- ablations -------------------------------------------------------------------------------------------------------


class Change(Record, frozen=True, kw_only=True):
    """The payload of an ablation: what it changes, and what came of it."""

    change: Plain = field(default_factory=dict)
    same_as_case: bool = False
    logits: Figures | None = None
    equal_to_case: bool | None = None


# --- reduce ----------------------------------------------------------------------------------------------------------


class Inputs(Record, frozen=True, kw_only=True):
    """The reduced input: how many tokens there were and are, and which. ``further``: inputs with a place for each."""

    before: int | None = None
    after: int | None = None
    ids: tuple[int, ...] = ()
    decoder_ids: tuple[int, ...] | None = None
    attention_mask: bool | None = None
    tokens: tuple[str, ...] | None = None
    special: tuple[bool, ...] = ()
    further: tuple[Further, ...] = ()
    prompts: int | None = None
    trials: int | None = None


class Layers(Record, frozen=True, kw_only=True):
    """Which of the model's layers are kept, and with what they are fed."""

    path: str | None = None
    total: int | None = None
    kept: tuple[int, ...] = ()
    trials: int | None = None
    fed: str | None = None


class Leaf(Record, frozen=True, kw_only=True):
    """A tensor of the reduced case. ``values`` is the rule that writes it down, ``layout`` strides and misalignment."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Plain
    layout: Plain | None = None


class Call(Record, frozen=True, kw_only=True):
    """One operator. An argument is an object with one of: ref, const, list, dtype, device, layout, memory_format.

    ``several``: whether its result is a tuple or a list.
    """

    op: str
    args: tuple[Plain, ...] = ()
    kwargs: dict[str, Plain] = field(default_factory=dict)
    name: str | None = None
    several: bool = False


class Output(Record, frozen=True, kw_only=True):
    """The bad element: of which call and result, and where."""

    result: int = 0
    index: tuple[int, ...] = ()
    call: int | None = None


class Expected(Record, frozen=True, kw_only=True):
    """What wider arithmetic gives at the bad element."""

    value: Number
    dtype: str


class Program(Record, frozen=True, kw_only=True):
    """A few operators with their inputs, that show the fault by themselves. ``allowed``: of a finite value, how far
    from the expected one rounding may put it.
    """

    calls: tuple[Call, ...]
    output: Output
    leaves: tuple[Leaf, ...] = ()
    seen: Number | None = None
    expected: Expected | None = None
    mechanism: str | None = None
    limit: Number | None = None
    allowed: Number | None = None
    device: str | None = None

    @property
    def swallows(self) -> bool:
        """Whether a number that overflowed inside ends as a finite one, by operators that are right each."""
        return self.allowed is not None and self.mechanism == "overflow" and len(self.calls) > 1


class Module(Record, frozen=True, kw_only=True):
    """A module built small from the model's configuration, that shows the fault by itself."""

    model_class: str
    config_class: str
    path: str
    class_: str = field(name="class")
    config: Plain = field(default_factory=dict)
    dtype: str | None = None
    attn: str | None = None
    parameters: tuple[Leaf, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    args: tuple[Plain, ...] = ()
    kwargs: dict[str, Plain] = field(default_factory=dict)
    output: Output = field(default_factory=Output)
    seen: Number | None = None
    expected: Expected | None = None
    op: str | None = None
    source: str | None = None
    mechanism: str | None = None
    limit: Number | None = None


class ScriptChange(Record, frozen=True, kw_only=True):
    """What the author of a script may change, so that it is good: it was run so, under several seeds.

    ``before``, ``after``: the lines of the script made smaller that differ; ``text``: that script, changed.
    ``script_before``, ``script_after``: those of the script as it is, where the same change makes that good as well.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    text: str = ""
    script_before: tuple[str, ...] = ()
    script_after: tuple[str, ...] = ()


class Listing(Record, frozen=True, kw_only=True):
    """A user's script, made smaller or as it is.

    ``lines_before`` and ``lines`` count lines of code. ``whole``: it is the script as it is. ``complete``: nothing more
    can be left out by what was tried, rather than that the time was up. ``change``: with which it is good; None where
    no such change was found. ``unseeded``: the generators that it draws from without a seed. ``reads``: the files of
    data that it reads, as paths below its folder or the current one, else by name.
    """

    text: str
    lines_before: int = 0
    lines: int = 0
    trials: int = 0
    seconds: Number | None = None
    whole: bool = False
    complete: bool = False
    change: ScriptChange | None = None
    unseeded: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


class Configuration(Record, frozen=True, kw_only=True):
    """The model's class built from a small configuration with weights of a seed, and the ids that show the fault.

    ``model_from``, ``config_from``: the modules that the classes are imported from.
    """

    model_class: str
    config_class: str
    model_from: str = "transformers"
    config_from: str = "transformers"
    config: Plain = field(default_factory=dict)
    dtype: str = "float32"
    attn: str | None = None
    seed: int = 0
    ids: tuple[int, ...] = ()
    decoder_ids: tuple[int, ...] | None = None
    attention_mask: bool = False
    further: tuple[Further, ...] = ()


class Reduction(Section, frozen=True, kw_only=True):
    """The reduce step; what could not be made smaller is None."""

    inputs: Inputs | None = None
    layers: Layers | None = None
    program: Program | None = None
    configuration: Configuration | None = None
    module: Module | None = None
    listing: Listing | None = None
    notes: tuple[str, ...] = ()
    trials: int = 0
    crashed_trials: int = 0
