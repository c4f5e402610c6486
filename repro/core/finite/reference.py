"""The answer of the step ``reference``: operators held against float64 of their own inputs."""

from msgspec import field

from repro.core.encoding import Number, Record
from repro.core.finite.diff import Grown
from repro.core.payloads import Origin, Section


class OperatorKind(Record, frozen=True, kw_only=True):
    """Calls of one operator in one dtype. ``ratio``: the farthest of them, in units of what rounding allows. ``rms``:
    the largest error of one of them, as a root mean square in epsilons of the dtype times that of the reference.
    """

    op: str
    dtype: str
    calls: int
    ratio: Number
    rms: Number


class Departed(Record, frozen=True, kw_only=True):
    """A further operator that is farther from float64 than rounding explains."""

    module: str
    op: str
    ratio: Number


class Swallowed(Record, frozen=True, kw_only=True):
    """An operator that gives a ``value`` that is not finite, of finite numbers, in a pass that ends finite.

    ``verdict``: "sound" where the output is that of wider numbers but for rounding, "wrong" where it is not, for the
    overflow; "open" where that could not be told.
    """

    prompt: int = 0
    dtype: str
    module: str
    op: str
    source: str | None = None
    value: Number | None = None
    verdict: str
    reason: str = ""


class Reference(Section, frozen=True, kw_only=True):
    """The reference step. ``operators``: calls that were held against float64, of which ``sampled`` in part.

    ``not_judged`` counts calls by operator, ``departed`` those farther than rounding explains. ``kinds`` has the
    farthest kinds first. ``prompt`` is the number of the input in which ``origin`` lies, the first that departs;
    ``alone`` counts calls that were held against nothing independent: in float64 by themselves, or of another library.
    ``others`` follow it. ``swallowed`` has the first operator of each input and dtype that gave no finite number.
    ``growth``: how far the run is from float64 behind each layer, where both run freely; of a bad one.
    """

    operators: int = 0
    sampled: int = 0
    not_judged: dict[str, int] = field(default_factory=dict)
    departed: int = 0
    alone: dict[str, int] = field(default_factory=dict)
    kinds: tuple[OperatorKind, ...] = ()
    prompt: int | None = None
    origin: Origin | None = None
    others: tuple[Departed, ...] = ()
    swallowed: tuple[Swallowed, ...] = ()
    growth: tuple[Grown, ...] = ()
    seconds: Number | None = None
