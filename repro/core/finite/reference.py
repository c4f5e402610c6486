"""The answer of the step ``reference``: operators held against float64 of their own inputs."""

from msgspec import field

from repro.core.encoding import Number, Record
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


class Reference(Section, frozen=True, kw_only=True):
    """The reference step. ``operators``: calls that were held against float64, of which ``sampled`` in part.

    ``not_judged`` counts calls by operator, ``departed`` those farther than rounding explains. ``kinds`` has the
    farthest kinds first. ``prompt`` is the number of the input in which ``origin`` lies, the first that departs;
    ``others`` follow it.
    """

    operators: int = 0
    sampled: int = 0
    not_judged: dict[str, int] = field(default_factory=dict)
    departed: int = 0
    kinds: tuple[OperatorKind, ...] = ()
    prompt: int | None = None
    origin: Origin | None = None
    others: tuple[Departed, ...] = ()
    seconds: Number | None = None
