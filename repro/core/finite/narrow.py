"""What the steps about narrower dtypes answer: what would overflow in them, and what must not be in them."""

from repro.core.encoding import Number, Record
from repro.core.payloads import InputPlace, Section


class NarrowOperator(Record, frozen=True, kw_only=True):
    """One operator in the forecast: the greatest magnitude of what it gives, or, where ``partial_sum``, of what its
    kernel holds in the narrow dtype on the way. ``ratio`` is the dtype's limit divided by it.

    The element and where it is are told of the first operator beyond a limit only; ``value`` has its sign.
    """

    module: str
    op: str
    absmax: Number
    module_class: str | None = None
    call_index: int = 0
    occurrence: int = 0
    ratio: Number | None = None
    partial_sum: bool = False
    source: str | None = None
    element: tuple[int, ...] = ()
    value: Number | None = None
    token_index: int | None = None
    token: str | None = None
    head_index: int | None = None
    channel_index: int | None = None
    place: InputPlace | None = None


class BeyondLimit(Record, frozen=True, kw_only=True):
    """A module with an operator beyond the limit, and the greatest magnitude in it."""

    module: str
    absmax: Number


class NarrowDtype(Record, frozen=True, kw_only=True):
    """What one narrower dtype would do.

    ``verdict``: "sound", "overflows", "absorbed" where numbers beyond the limit leave the output as it is, or "wrong"
    where it stays finite and is ``apart`` (RMSE) by more than rounding, which makes ``noise``. ``absorbed`` is how many
    operators beyond the limit have no effect. ``first`` is the first operator that would overflow, ``modules`` are all
    from it on, ``weights`` the parameters that the dtype does not hold. ``largest``: of all that stays within.
    ``prompt``: the number of the input of which this is said, that with the least room.
    """

    dtype: str
    limit: Number
    verdict: str
    first: NarrowOperator | None = None
    modules: tuple[BeyondLimit, ...] = ()
    weights: tuple[str, ...] = ()
    largest: NarrowOperator | None = None
    absorbed: int = 0
    apart: Number | None = None
    noise: Number | None = None
    prompt: int = 0

    @property
    def overflows(self) -> bool:
        return self.verdict == "overflows"


class Forecast(Section, frozen=True, kw_only=True):
    """The forecast step: a run in ``dtype``, told as it would be in narrower ones. ``operators`` that were looked at in
    ``passes`` passes.
    """

    dtype: str | None = None
    dtypes: tuple[NarrowDtype, ...] = ()
    operators: int | None = None
    passes: int | None = None


class Keep(Section, frozen=True, kw_only=True):
    """The keep step: the smallest set of ``modules`` that must stay in ``kept_in`` for the rest to be sound in
    ``dtype``; None where no proper subset of the ``candidates`` helps, empty where nothing has to.

    ``words``: the set in short. ``bytes``: what it takes more, of ``bytes_of_model``. ``rmse``: how far the output is
    from float32, ``noise``: how far rounding to ``rounded_to`` brings it, of which ``allowed`` times are; ``flips``:
    rows whose largest element is another. ``code``: what keeps it, ``verified``: whether that, run in a process of its
    own, is sound as well. ``trials``: how many sets were asked.
    """

    dtype: str | None = None
    kept_in: str = "float32"
    rounded_to: str | None = None
    modules: tuple[str, ...] | None = None
    words: str | None = None
    candidates: int | None = None
    trials: int | None = None
    bytes: int | None = None
    bytes_of_model: int | None = None
    rmse: Number | None = None
    noise: Number | None = None
    allowed: float | None = None
    flips: int | None = None
    code: str | None = None
    verified: bool | None = None
    verified_reason: str | None = None
