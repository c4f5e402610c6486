"""What follows from several models of one family: from which size on they fail, as far as it was tested, and whether
the headroom to the dtype's limit is the measured cause.
"""

from collections.abc import Iterator, Sequence

from repro.core.mechanisms import LIMITS, mechanism
from repro.core.records import Kind, Outcome
from repro.core.sentences import listed, plain
from repro.core.sweep_answers import SiblingModel, Threshold
from repro.report.models import size
from repro.sweeps.models.model import headroom
from repro.sweeps.models.settings import trend

DIGITS = 4


def threshold(siblings: Sequence[SiblingModel]) -> Threshold:
    """What follows, with a sentence for each part of it; also for what does not."""
    ordered = sorted((one for one in siblings if _answered(one)), key=_size)
    kind, below, above = _kind(ordered)
    cause, why = _headroom(ordered)
    with_size = _with_size(ordered)
    sentences = [
        *_random(siblings),
        *_order(siblings, ordered, kind, below, above),
        *(_caveats(ordered) if kind in ("bad_from", "good_from") else ()),
        *_shares(ordered),
        *why,
        *(_sizes_and_headroom(ordered, with_size) if cause == "cause" and len(ordered) > 1 else ()),
        *_unordered(siblings),
    ]
    first, then = (None if one is None else one.name for one in (below, above))
    return Threshold(
        kind=kind,
        below=first,
        above=then,
        headroom=cause,
        headroom_with_size=with_size,
        sentences=tuple(sentences),
    )


def _answered(one: SiblingModel) -> bool:
    return one.verdict is not Outcome.SKIP and one.parameters is not None


def _size(one: SiblingModel) -> int:
    return one.parameters or 0


def _kind(ordered: Sequence[SiblingModel]) -> tuple[str, SiblingModel | None, SiblingModel | None]:
    """The kind, and the two models beside the threshold where there is one."""
    good = [one for one in ordered if one.verdict is Outcome.GOOD]
    bad = [one for one in ordered if one.verdict is Outcome.BAD]
    if len(ordered) < 2:
        return "too_few", None, None
    if not bad or not good:
        return ("all_bad" if bad else "all_good"), None, None
    if len({one.dtype for one in ordered}) > 1:
        return "dtypes", None, None
    if _size(good[-1]) < _size(bad[0]):
        return "bad_from", good[-1], bad[0]
    if _size(bad[-1]) < _size(good[0]):
        return "good_from", bad[-1], good[0]
    return "not_in_order", None, None


def _named(one: SiblingModel) -> str:
    return f"{one.name} ({size(_size(one))} parameters)"


def _random(siblings: Sequence[SiblingModel]) -> Iterator[str]:
    drawn = [one.name for one in siblings if one.weights == "random"]
    if drawn:
        which = "all of these models" if len(drawn) == len(siblings) else listed(drawn)
        yield f"The weights of {which} are random: nothing follows from this about their checkpoints."


def _order(
    siblings: Sequence[SiblingModel],
    ordered: Sequence[SiblingModel],
    kind: str,
    below: SiblingModel | None,
    above: SiblingModel | None,
) -> Iterator[str]:
    if kind == "too_few":
        yield "Fewer than two models of a known size answered, so no threshold follows."
    elif kind in ("all_good", "all_bad"):
        ends = f"from {_named(ordered[0])} to {_named(ordered[-1])}"
        yield f"Every model that answered is {kind[4:]}, {ends}: in what was tested there is no threshold."
    elif kind == "dtypes":
        ran = listed([f"{one.name} in {one.dtype} ({one.verdict.value})" for one in ordered])
        yield f"The models ran in different dtypes ({ran}), so no threshold in size follows. Give --dtype."
    elif kind == "not_in_order":
        yield f"The verdicts do not follow the size ({_sequence(ordered)}), so no threshold follows."
    elif below is not None and above is not None:
        first, then = ("Good", "bad") if kind == "bad_from" else ("Bad", "good")
        between = _gap(siblings, below, above)
        yield f"{first} up to {_named(below)}, {then} from {_named(above)}, as far as it was tested: {between}."


def _sequence(ordered: Sequence[SiblingModel]) -> str:
    return ", ".join(f"{one.name} {one.verdict.value}" for one in ordered)


def _gap(siblings: Sequence[SiblingModel], below: SiblingModel, above: SiblingModel) -> str:
    """What is known of the sizes between."""
    silent = [
        one.name
        for one in siblings
        if one.verdict is Outcome.SKIP and (one.parameters is None or _size(below) <= _size(one) <= _size(above))
    ]
    if silent:
        return f"no other size between them answered ({listed(silent)} gave no answer)"
    return f"no size between {size(_size(below))} and {size(_size(above))} was asked"


def _caveats(ordered: Sequence[SiblingModel]) -> Iterator[str]:
    """What else the models differ in, so that it need not be the size."""
    for what, values in (
        ("architectures", {one.model_class for one in ordered}),
        ("attention implementations", {one.attn for one in ordered}),
    ):
        if len(values) > 1:
            yield f"They have different {what} ({listed(sorted(map(str, values)))}): it need not be the size."


def _shares(ordered: Sequence[SiblingModel]) -> Iterator[str]:
    """Whether more prompts fail in larger models, where several fail of more than one prompt."""
    bad = [one for one in ordered if one.verdict is Outcome.BAD and one.share is not None and (one.asked or 0) > 1]
    if len(bad) > 1:
        shares = [one.share or 0.0 for one in bad]
        words = {"rises": "rises", "falls": "falls"}.get(trend(shares), "neither rises nor falls")
        told = listed([f"{one.name} {one.failed} of {one.asked} ({100 * (one.share or 0):.3g} %)" for one in bad])
        yield f"Among the bad models the failing share {words} with the size: {told}."


def _headroom(ordered: Sequence[SiblingModel]) -> tuple[str | None, list[str]]:
    """Whether it is the cause: each bad model's layers go beyond the limit, each good one's do not, and the faults are
    of that kind.
    """
    bad = [one for one in ordered if one.verdict is Outcome.BAD]
    dtype = _dtype(ordered)
    if dtype is None:
        return ("unknown" if bad else None), []
    if not bad:
        known = [one for one in ordered if one.peak is not None]
        if not known:
            return None, []
        least = max(known, key=_value)
        return None, [
            f"The least headroom to {dtype}'s limit of {_limit(dtype)} is {_ratio(least, dtype)}, in {least.name}."
        ]
    against = [words for one in bad for words in _against(one, dtype)]
    if against:
        return "not_cause", [f"Headroom to {dtype}'s limit is not the measured cause: {'; '.join(against)}."]
    unknown = [one.name for one in bad if _value(one) <= LIMITS[dtype]]
    unknown += [one.name for one in ordered if one.verdict is Outcome.GOOD and one.peak is None]
    if unknown:
        return "unknown", [f"Whether headroom to {dtype}'s limit is the cause is not known: {_unmeasured(unknown)}."]
    good = [one for one in ordered if one.verdict is Outcome.GOOD]
    below = f", and each good one stays below it ({_peaks(good)})" if good else ""
    where = f"in each bad model a layer's output goes beyond {dtype}'s limit of {_limit(dtype)} ({_peaks(bad)})"
    return "cause", [f"Headroom is the measured cause: {where}{below}."]


def _dtype(ordered: Sequence[SiblingModel]) -> str | None:
    """The one dtype that all ran in, if its limit is known."""
    dtypes = {one.dtype for one in ordered}
    only = next(iter(dtypes)) if len(dtypes) == 1 else None
    return only if only in LIMITS else None


def _against(one: SiblingModel, dtype: str) -> Iterator[str]:
    """What shows that a bad model's fault is not a lack of headroom."""
    if one.kind is not Kind.NONFINITE:
        yield f"what is bad in {one.name} is of another kind ({one.kind.value if one.kind else 'not known'})"
    elif one.mechanism is not None and not mechanism(one.mechanism).beyond_limit:
        yield f"in {one.name} the mechanism is {one.mechanism}, not an overflow"
    elif one.wider is Outcome.BAD:
        yield f"{one.name} is bad in the wider dtype too"
    elif one.peak is not None and one.peak.measured and one.peak.value <= LIMITS[dtype]:
        inside = (
            f"; its overflow is inside {_module(one)}"
            if one.mechanism and mechanism(one.mechanism).beyond_limit
            else ""
        )
        reached = f"{plain(one.peak.value, DIGITS)} in {one.peak.dtype}"
        yield f"the layers' outputs of {one.name} reach {reached}, which is below it{inside}"


def _module(one: SiblingModel) -> str:
    return (one.born and one.born.module) or "the model itself"


def _unmeasured(names: Sequence[str]) -> str:
    return f"how large the layers' outputs of {listed(names)} would be was not measured"


def _value(one: SiblingModel) -> float:
    return 0.0 if one.peak is None else one.peak.value


def _limit(dtype: str) -> str:
    return plain(LIMITS[dtype])


def _ratio(one: SiblingModel, dtype: str) -> str:
    ratio = headroom(one.peak, dtype)
    return "not known" if ratio is None else plain(ratio, DIGITS)


def _peaks(some: Sequence[SiblingModel]) -> str:
    """``12b 81234 in float32``; with "at least" where it was not measured to the end."""
    return ", ".join(
        f"{one.name} {'' if one.peak.measured else 'at least '}{plain(one.peak.value, DIGITS)} in {one.peak.dtype}"
        for one in some
        if one.peak is not None
    )


def _with_size(ordered: Sequence[SiblingModel]) -> str | None:
    """How headroom goes with the number of parameters, where it is measured in each."""
    peaks = [one.peak for one in ordered]
    if len(ordered) < 2 or any(peak is None or not peak.measured or peak.value <= 0 for peak in peaks):
        return None
    if len({one.parameters for one in ordered}) == 1:
        return "not in order"
    return trend([1 / peak.value for peak in peaks if peak is not None])


def _sizes_and_headroom(ordered: Sequence[SiblingModel], with_size: str | None) -> Iterator[str]:
    if with_size is None:
        yield "Whether headroom falls with the size is not known: it is not measured to the end in each model."
    elif with_size == "falls":
        yield "It falls with the size throughout."
    else:
        yield "It does not fall with the size throughout, so the size alone does not decide it."


def _unordered(siblings: Sequence[SiblingModel]) -> Iterator[str]:
    """Those that have no place in the order."""
    silent = [f"{one.name} ({one.reason})" for one in siblings if one.verdict is Outcome.SKIP]
    if silent:
        yield f"No answer: {'; '.join(silent)}."
    unsized = [one.name for one in siblings if one.verdict is not Outcome.SKIP and one.parameters is None]
    if unsized:
        yield f"Not in the order, for the number of parameters is not known: {listed(unsized)}."
