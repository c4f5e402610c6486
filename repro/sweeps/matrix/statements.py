"""What the differences between the cells of a matrix say about the fault. Pure.

A cell is compared where it is good or bad and its environment was recorded; a skip says nothing about the fault.

**Nearest.** The good cell nearest to a bad one is that with the fewest axes changed; among those the one with the
fewest other packages changed, then with the fewest settings changed, then the first by name.

**Statements.** "The fault follows torch" is said of two cells only, one bad and one good, that differ in torch alone
(``environments.difference`` says what alone means); "does not depend on torch" of two bad cells with the same kind of
fault that differ in torch alone. Of statements with a cell in common only those between the nearest versions are kept,
because they say more. Two statements that contradict each other both stand: both were seen.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from packaging.version import InvalidVersion, Version

from repro.core.encoding import replace
from repro.core.payloads import Origin
from repro.core.records import Outcome
from repro.core.sentences import listed
from repro.core.sweep_answers import CellPair, CellRow, Differences, Statement
from repro.environments.difference import AXES, Gap, between

NAMED = 4
"""How many of the other differences a sentence names."""


def compare(rows: Sequence[CellRow]) -> Differences:
    """Each bad cell against its nearest good one, and every statement that two cells bear."""
    named = list(zip(labels(rows), rows, strict=True))
    recorded = [(label, row) for label, row in named if row.environment is not None]
    bad = [(label, row) for label, row in recorded if row.verdict is Outcome.BAD]
    good = [(label, row) for label, row in recorded if row.verdict is Outcome.GOOD]
    gaps = {(b, g): between(row, other) for (b, row), (g, other) in itertools.product(bad, good)}
    pairs: list[CellPair] = []
    for label, row in named:
        if row.verdict is Outcome.BAD:
            own = {g: gap for (b, g), gap in gaps.items() if b == label}
            pairs += _pairs(label, own, recorded=row.environment is not None)
    statements = [_statement(cells, gap) for cells, gap in gaps.items() if gap.alone]
    for (first, row), (second, other) in itertools.combinations(bad, 2):
        gap = between(row, other)
        if gap.alone and row.kind == other.kind:
            statements.append(_statement((first, second), gap, agree=f"both are bad{_places(row, other)}"))
    kept = sorted(_between_nearest(statements), key=lambda one: (not one.follows, list(AXES).index(one.axis)))
    return Differences(pairs=tuple(pairs), statements=tuple(kept))


def labelled(rows: Sequence[CellRow]) -> tuple[CellRow, ...]:
    """The rows, each with its label."""
    return tuple(replace(row, label=label) for label, row in zip(labels(rows), rows, strict=True))


def labels(rows: Sequence[CellRow]) -> tuple[str, ...]:
    """A name for each row: its id; with system and machine where several have that id; then a number if need be."""
    ids = Counter(row.id for row in rows)
    names = [row.id if ids[row.id] == 1 else f"{row.id} ({_system(row)})" for row in rows]
    total, seen, result = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        result.append(name if total[name] == 1 else f"{name} #{seen[name]}")
    return tuple(result)


def _system(row: CellRow) -> str:
    """``macOS arm64``."""
    parts = ((row.platform or "").partition("-")[0], row.machine)
    return " ".join(part for part in parts if part) or "platform not known"


def _pairs(bad: str, gaps: Mapping[str, Gap], *, recorded: bool) -> list[CellPair]:
    """The nearest pair of a bad cell; then for each axis of which nothing can be said the nearest that shows why."""
    if not gaps:
        why = "no good cell has a recorded environment" if recorded else "its environment was not recorded"
        return [CellPair(bad=bad, good=None, nearest=True, note=f"Not compared: {why}.")]
    first, *others = sorted(gaps, key=lambda good: (*gaps[good].size, good))
    shown, settled = [first], {gap.alone for gap in gaps.values()} | {change.name for change in gaps[first].axes[:1]}
    for good in others:
        axes = gaps[good].axes
        if len(axes) == 1 and axes[0].name not in settled:
            shown.append(good)
            settled.add(axes[0].name)
    return [_pair(bad, good, gaps[good], nearest=good == first) for good in shown]


def _pair(bad: str, good: str, gap: Gap, *, nearest: bool) -> CellPair:
    note = None
    if not gap.axes:
        besides = f"; what differs is {_few(gap.in_the_way)}" if gap.in_the_way else ", and nothing else differs"
        note = f"Both have the same versions, platform and device{besides}."
    elif len(gap.axes) == 1 and gap.in_the_way:
        axis, verb = AXES[gap.axes[0].name], "differ" if len(gap.in_the_way) > 1 else "differs"
        note = f"Whether the fault follows {axis} is not known: {_few(gap.in_the_way)} {verb} too."
    return CellPair(
        bad=bad,
        good=good,
        nearest=nearest,
        axes=gap.axes,
        packages=gap.packages,
        settings=gap.settings,
        in_the_way=gap.in_the_way if len(gap.axes) == 1 else (),
        note=note,
    )


def _few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    return listed([*names[:NAMED], f"{more} more"] if more > 0 else names)


def _statement(cells: tuple[str, str], gap: Gap, agree: str | None = None) -> Statement:
    """Of a bad and a good cell; of two bad ones where ``agree`` says so in words."""
    change = gap.axes[0]
    axis, values = AXES[change.name], (str(change.bad), str(change.good))
    besides = f" except what comes with it ({_few(gap.carried)})" if gap.carried else ""
    if agree:
        places = " and ".join(f"{value} ({cell})" for value, cell in zip(values, cells, strict=True))
        text = f"The fault does not depend on {axis} between {places}: {agree}, and nothing else differs{besides}."
    else:
        places = f"{values[0]} (bad, {cells[0]}) and {values[1]} (good, {cells[1]})"
        text = f"The fault follows {axis} between {places}: nothing else differs{besides}."
    return Statement(axis=change.name, follows=not agree, cells=cells, values=values, carried=gap.carried, text=text)


def _places(first: CellRow, second: CellRow) -> str:
    """A remark where two bad cells have their origins in different places: it may not be one fault."""
    origins = [row.origin or Origin() for row in (first, second)]
    places = [" ".join(part for part in (one.module, one.op) if part) for one in origins]
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
