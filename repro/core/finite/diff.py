"""What the diff step answers: two ways of running the same weights on the same inputs, and where they part first.

"This" way is the case as it is, the "other" is what it is held against. Every deviation is a root of a mean square.
"""

from typing import Any

from msgspec import field

from repro.core.encoding import Number, Record
from repro.core.payloads import Excerpt, Origin, Plain, Section

SIDES = {
    "this": "this way is the one farther from float64 of the same inputs",
    "other": "the other way is the one farther from float64 of the same inputs",
    "different": "in float64 the two differ as well: they compute different things, and it cannot tell which is right",
}
"""What float64 says of the two, by ``Departure.side``."""


class Beside(Record, frozen=True, kw_only=True):
    """A place held against the same place of the other way.

    ``drift`` is what rounding alone does there, by runs that are rounded at random; ``whole`` and ``row`` are the
    deviation over it, of the whole tensor and of the row (the channels of one token) that is furthest off; ``column``
    is that of one channel of all tokens, and ``limits`` has what rounding is allowed of the three.
    ``mismatched`` elements are NaN or infinite on one side alone, or integers that differ.
    """

    module: str = ""
    what: str = ""
    deviation: Number | None = None
    drift: Number | None = None
    whole: Number | None = None
    row: Number | None = None
    column: Number | None = None
    limits: tuple[Number, ...] = ()
    mismatched: int = 0


class Differing(Record, frozen=True, kw_only=True):
    """A weight or buffer that is another one in the other way; ``there``: whether this way has one of that name."""

    tensor: str
    there: bool = True


class Departure(Beside, frozen=True, kw_only=True):
    """The first place whose inputs are the same on both sides, and what is made of them is not.

    ``what`` is "output" (of the module) or "input": of ``of``, a module inside, which the module's own code feeds; or
    "gradient": of the parameter ``path``, or, where there is none, of what ``of`` gives, which is made behind it.
    ``path`` is else the argument or the place in the output. ``this`` and ``other`` are the values at ``element``.
    ``operators`` are those that the module itself ran since the last one that agreed, on either side. ``side`` is the
    way that is farther from float64: "this" or "other"; "different" where the two are different formulas in float64
    too (``exact_apart``), so that float64 cannot tell; None where it could not be asked. ``mechanism`` is
    "cancellation" where the formula loses digits that its inputs have; ``condition`` is how many times larger ``op``
    makes the error.
    """

    module_class: str | None = None
    call_index: int | None = None
    prompt: int = 0
    path: str = ""
    of: str | None = None
    element: tuple[int, ...] = ()
    token_index: int | None = None
    token: str | None = None
    channel_index: int | None = None
    this: Number | None = None
    other: Number | None = None
    dtype: str | None = None
    other_dtype: str | None = None
    op: str | None = None
    occurrence: int | None = None
    source: str | None = None
    code: str | None = None
    excerpt: Excerpt | None = None
    other_op: str | None = None
    other_source: str | None = None
    operators: tuple[str, ...] = ()
    other_operators: tuple[str, ...] = ()
    side: str | None = None
    error_this: Number | None = None
    error_other: Number | None = None
    exact_apart: Number | None = None
    weights: tuple[Differing, ...] = ()
    mechanism: str | None = None
    condition: Number | None = None
    note: str | None = None


class Gradients(Record, frozen=True, kw_only=True):
    """The gradients of ``parameters``, and of what modules give: ``places`` in all. ``nearest`` as of the values.
    ``why_not``: why they were not compared.
    """

    parameters: int = 0
    places: int = 0
    nearest: Beside | None = None
    why_not: str | None = None


class Grown(Record, frozen=True, kw_only=True):
    """How far the two ways are apart behind a layer when both run freely, and what rounding does there. ``module`` is
    empty for the end.
    """

    module: str
    deviation: Number | None = None
    drift: Number | None = None
    scale: Number | None = None


class End(Beside, frozen=True, kw_only=True):
    """What both ways end with. ``kl_*`` are in nats, of the other's probabilities from this one's. ``rmse_this`` and
    ``rmse_other`` are the errors against float64, as ``torch._dynamo.utils.same`` takes them. ``degree`` is above 1
    where rounding does not explain the difference.
    """

    output: str = ""
    rmse: Number | None = None
    max_abs_diff: Number | None = None
    positions: int = 0
    kl_mean: Number | None = None
    kl_max: Number | None = None
    top1_flips: int | None = None
    rank_correlation: Number | None = None
    entropy_this: Number | None = None
    entropy_other: Number | None = None
    degree: Number | None = None
    rmse_this: Number | None = None
    rmse_other: Number | None = None


class NotCompared(Record, frozen=True, kw_only=True):
    """A tensor that stands on one side alone, or in another shape there; ``count``: in so many calls of its class."""

    module: str
    what: str
    reason: str
    count: int = 1


class Stage(Record, frozen=True, kw_only=True):
    """One of several other ways that were asked one after the other, such as the backends of torch.compile."""

    name: str
    verdict: str
    reason: str = ""


class Diff(Section, frozen=True, kw_only=True):
    """Two ways, held against each other at ``places`` inputs and outputs of ``calls`` module calls.

    ``nearest`` is the place that is nearest to the limit, or farthest beyond. ``modules`` are those that part on equal
    inputs, in order of running. ``elsewhere`` is the environment of the other way, where it is another one.
    """

    against: str = ""
    way: str = ""
    places: int = 0
    calls: int = 0
    nearest: Beside | None = None
    departure: Departure | None = None
    modules: tuple[str, ...] = ()
    growth: tuple[Grown, ...] = ()
    gradients: Gradients | None = None
    end: End | None = None
    not_compared: tuple[NotCompared, ...] = ()
    prompts: tuple[Plain, ...] = ()
    stages: tuple[Stage, ...] = ()
    elsewhere: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin | None:
        """The departure in the words of every other origin; ``reference_value`` is the other way's value."""
        found = self.departure
        if found is None:
            return None
        return Origin(
            module=found.module,
            module_class=found.module_class,
            call_index=found.call_index,
            op=found.op,
            occurrence=found.occurrence,
            source=found.source,
            code=found.code,
            excerpt=found.excerpt,
            token_index=found.token_index,
            token=found.token,
            channel_index=found.channel_index,
            element=found.element,
            value=found.this,
            reference_value=found.other,
            note=found.note,
            phase="backward" if found.what == "gradient" else "forward",
            mechanism=found.mechanism or ("differing_weight" if found.weights else "unknown"),
        )
