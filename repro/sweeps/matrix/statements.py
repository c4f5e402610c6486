"""What the differences between the cells of a matrix say about the fault. Pure.

A cell takes part where it is good or bad and its environment was recorded; a skip says nothing about the fault.

**Nearest.** The good cell nearest to a bad one is that with the fewest axes changed; among those the one with the
fewest other packages changed, then with the fewest settings changed, then the first by name.

**Statements.** "The fault follows torch" is said of two cells only, one bad and one good, that differ in torch alone
(``gap`` says what alone means); "not torch" of two cells with the same kind of fault that differ in torch alone. Of
statements with a cell in common only those between the nearest versions are kept, for they say more. Two statements
that contradict each other both stand, for both were seen.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from repro.core.sentences import listed
from repro.environments.difference import AXES, Change, Gap, Row, between

NAMED = 4
"""How many things that stand in the way, or come along, a sentence names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A bad cell beside a good one, with all that differs.

    ``good`` is None where no good cell took part. ``nearest`` is False for a pair that is given only because a single
    axis differs and something stands in the way of each statement about it: the nearest such pair for that axis.
    ``in_the_way`` names it; ``note`` is a sentence.
    """

    bad: str
    good: str | None
    nearest: bool
    axes: tuple[Change, ...] = ()
    packages: tuple[Change, ...] = ()
    settings: tuple[Change, ...] = ()
    in_the_way: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a pair of cells shows about one axis.

    ``follows``: the first cell is bad, the second good. Otherwise both are bad with the same kind of fault. ``carried``
    names the packages and settings that differ because the axis does.
    """

    axis: str
    follows: bool
    cells: tuple[str, str]
    values: tuple[str, str]
    carried: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Differences:
    """``verdict.json``'s "differences"."""

    pairs: tuple[Pair, ...]
    statements: tuple[Statement, ...]


def compare(rows: Sequence[Row]) -> Differences:
    """Each bad cell against its nearest good one, and every statement that two cells bear."""
    named = list(zip(labels(rows), rows, strict=True))
    bad = [(label, row) for label, row in named if row.get("environment") and row["verdict"] == "bad"]
    good = [(label, row) for label, row in named if row.get("environment") and row["verdict"] == "good"]
    gaps = {(b, g): between(row, other) for (b, row), (g, other) in itertools.product(bad, good)}
    pairs: list[Pair] = []
    for label, row in named:
        if row["verdict"] == "bad":
            pairs += _pairs(label, {g: gap for (b, g), gap in gaps.items() if b == label}, bool(row.get("environment")))
    statements = [_statement(cells, gap) for cells, gap in gaps.items() if gap.alone]
    for (first, row), (second, other) in itertools.combinations(bad, 2):
        gap = between(row, other)
        if gap.alone and row.get("kind") == other.get("kind"):
            statements.append(_statement((first, second), gap, agree=f"both are bad{_places(row, other)}"))
    kept = _between_nearest(statements)
    return Differences(tuple(pairs), tuple(sorted(kept, key=lambda one: (not one.follows, list(AXES).index(one.axis)))))


def labels(rows: Sequence[Row]) -> tuple[str, ...]:
    """A name for each row: its id; with system and machine where several have that id; then a number if need be."""
    ids = Counter(row["id"] for row in rows)
    names = [row["id"] if ids[row["id"]] == 1 else f"{row['id']} ({_system(row)})" for row in rows]
    total, seen, result = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        result.append(name if total[name] == 1 else f"{name} #{seen[name]}")
    return tuple(result)


def _system(row: Row) -> str:
    """``macOS arm64``."""
    parts = (str(row.get("platform") or "").partition("-")[0], row.get("machine"))
    return " ".join(str(part) for part in parts if part) or "platform not known"


def _pairs(bad: str, gaps: Mapping[str, Gap], recorded: bool) -> list[Pair]:
    """The nearest pair of a bad cell; then for each axis of which nothing can be said the nearest that shows why."""
    if not gaps:
        why = "no good cell took part" if recorded else "its environment was not recorded"
        return [Pair(bad, None, nearest=True, note=f"There is nothing to compare it with: {why}.")]
    first, *others = sorted(gaps, key=lambda good: (*gaps[good].size, good))
    shown, settled = [first], {gap.alone for gap in gaps.values()} | {change.name for change in gaps[first].axes[:1]}
    for good in others:
        axes = gaps[good].axes
        if len(axes) == 1 and axes[0].name not in settled:
            shown.append(good)
            settled.add(axes[0].name)
    return [_pair(bad, good, gaps[good], nearest=good == first) for good in shown]


def _pair(bad: str, good: str, gap: Gap, *, nearest: bool) -> Pair:
    note = None
    if not gap.axes:
        besides = f"; what differs is {_few(gap.in_the_way)}" if gap.in_the_way else ", and nothing else differs"
        note = f"Both have the same versions, platform and device{besides}."
    elif len(gap.axes) == 1 and gap.in_the_way:
        axis, verb = AXES[gap.axes[0].name], "differ" if len(gap.in_the_way) > 1 else "differs"
        note = f"It is not said that the fault follows {axis}, because {_few(gap.in_the_way)} {verb} too."
    in_the_way = gap.in_the_way if len(gap.axes) == 1 else ()
    return Pair(bad, good, nearest, gap.axes, gap.packages, gap.settings, in_the_way, note)


def _few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    return listed([*names[:NAMED], f"{more} more"] if more > 0 else names)


def _statement(cells: tuple[str, str], gap: Gap, agree: str | None = None) -> Statement:
    """Of a bad and a good cell; of two bad ones where ``agree`` says so in words."""
    change = gap.axes[0]
    axis, values = AXES[change.name], (str(change.bad), str(change.good))
    besides = f" besides what comes with it ({_few(gap.carried)})" if gap.carried else ""
    if agree:
        places = " and ".join(f"{value} ({cell})" for value, cell in zip(values, cells, strict=True))
        text = f"Not {axis} between {places}: {agree}, and nothing else differs{besides}."
    else:
        places = f"{values[0]} (bad, {cells[0]}) and {values[1]} (good, {cells[1]})"
        text = f"The fault follows {axis} between {places}: nothing else differs{besides}."
    return Statement(change.name, not agree, cells, values, gap.carried, text)


def _places(first: Row, second: Row) -> str:
    """A remark where two bad cells have their origins in different places: it may not be one fault."""
    origins = [row.get("origin") or {} for row in (first, second)]
    places = [" ".join(str(one[key]) for key in ("module", "op") if one.get(key)) for one in origins]
    return f", but not in one place ({places[0]}; {places[1]})" if all(places) and places[0] != places[1] else ""


def _between_nearest(statements: Sequence[Statement]) -> list[Statement]:
    """Those of which no other says the same of one of the two cells and a version in between."""
    nearest: dict[tuple[str, bool, str, bool], Version] = {}
    for one in statements:
        for end, (own, other) in _ends(one):
            found = nearest.get(end, other)
            nearest[end] = min(found, other) if other > own else max(found, other)
    return [one for one in statements if all(nearest[end] == other for end, (_, other) in _ends(one))]


def _ends(one: Statement) -> list[tuple[tuple[str, bool, str, bool], tuple[Version, Version]]]:
    """Of each cell: what is said of it and on which side the other version lies; then its own version and the other.

    Nothing for a platform or a device, which have no order.
    """
    try:
        first, second = map(Version, one.values)
    except InvalidVersion:
        return []
    pairs = ((one.cells[0], first, second), (one.cells[1], second, first))
    return [((one.axis, one.follows, cell, other > own), (own, other)) for cell, own, other in pairs]
