"""Verdicts as plots: of the ablations, of the cells of a matrix, of the releases of a package."""

from collections.abc import Mapping, Sequence

from packaging.version import InvalidVersion, Version

from repro.core.answer import Answer
from repro.core.records import Ending, Outcome
from repro.core.sweep_answers import Release
from repro.report.cells import answered_ablations, cells_of
from repro.report.markdown import first_of, thinned
from repro.report.plots.chart import MUTED, ROW, VERDICTS, Plot, chart, distinct, layer, short, verdicts

ROWS, COLUMNS = 40, 14
WIDE, NARROW = 70, 24
"""Units of a column that is a verdict, and of one that is an ablation."""
ASKED = "as asked"


def ablations(answer: Answer) -> Plot | None:
    """The verdict of the case as asked, and of each ablation; None where none was run."""
    ran = [ablation for ablation in answer.ablations if ablation.ending is not Ending.NOT_RUN]
    if not ran:
        return None
    few, note = first_of(ran, ROWS, "ablations")
    asked = answer.forward.verdict if answer.forward else answer.verdict
    rows = [(ASKED, asked), *((short(ablation.name), ablation.verdict) for ablation in few)]
    return _strip("ablations", "Verdict of each ablation", rows, [note])


def cells(answer: Answer) -> Plot | None:
    """Cells x ablations where some were run in the cells, else the verdict of each cell; None without cells."""
    every = cells_of(answer)
    if not every:
        return None
    bad = {index for index, item in enumerate(every) if item.verdict is Outcome.BAD}
    items, thinned_note = thinned(every, ROWS, bad)
    note = thinned_note and f"{len(items)} of {len(every)} cells are drawn; verdict.json has all."
    rows = distinct(short(item.label or item.id) for item in items)
    names, more = first_of(answered_ablations(items), COLUMNS, "ablations")
    if not names:
        verdicts_of = [item.verdict for item in items]
        return _strip("cells", "Verdict of each cell", list(zip(rows, verdicts_of, strict=True)), [note])
    columns = distinct([ASKED, *map(short, names)])
    values = []
    for row, item in zip(rows, items, strict=True):
        by_name = {ablation.name: ablation.verdict for ablation in item.ablations}
        found = [item.verdict, *map(by_name.get, names)]
        values += [
            {"row": row, "column": column, "verdict": verdict.value}
            for column, verdict in zip(columns, found, strict=True)
            if verdict is not None
        ]
    layers = verdicts(values, rows, columns, NARROW, upright=True)
    return Plot(
        name="cells",
        title="Verdict of each ablation in each cell",
        note=" ".join(part for part in (note, more) if part) or None,
        spec=chart(layers, NARROW * len(columns), ROW * len(rows)),
    )


def versions(answer: Answer) -> Plot | None:
    """The verdict of each release that was asked, from the oldest to the newest; None where no search was made."""
    found = answer.versions
    if found is None or not found.probes:
        return None
    package = found.package
    probes = sorted(found.probes, key=lambda probe: _version(probe.pins.get(package)))
    ends = [(item.last_good, item.first_bad) for item in found.boundaries or (found,)]
    near = {version for pair in ends for version in pair}
    keep = {index for index, probe in enumerate(probes) if probe.pins.get(package) in near}
    few, thinned_note = thinned(probes, ROWS, keep)
    note = thinned_note and f"{len(few)} of {len(probes)} releases are drawn; verdict.json has all."
    labels = distinct(_release(probe.pins, package, few) for probe in few)
    rows = [(label, probe.verdict) for label, probe in zip(labels, few, strict=True)]
    places = [probe.pins.get(package) for probe in few]
    borders = sorted({border for pair in ends for border in _borders(places, *pair)})
    said = f"The verdict changes at the dashed line{'' if len(borders) == 1 else 's'}."
    if any(len(_borders(places, *pair)) > 1 for pair in ends):
        said = "The verdict changes between the dashed lines, where no release gave one."
    title = f"Releases of {short(package)}, from the oldest to the newest"
    return _strip("versions", title, rows, [said if borders else None, note], borders)


def _release(pins: Mapping[str, str], package: str, probes: Sequence[Release]) -> str:
    """The release, and what else was pinned where that was not the same for all."""
    others = [name for name in pins if name != package and len({probe.pins.get(name) for probe in probes}) > 1]
    return short(", ".join([str(pins.get(package)), *(f"{name} {pins[name]}" for name in others)]), 34)


def _borders(places: Sequence[object], last_good: object, first_bad: object) -> set[int]:
    """How many rows stand above each line between the last good and the first bad release: one line where they are
    neighbours, else two; none without both.
    """
    if last_good not in places or first_bad not in places:
        return set()
    first, second = sorted((places.index(last_good), places.index(first_bad)))
    return {first + places.count(places[first]), second}


def _version(text: object) -> Version:
    """A version to order by; one that is none comes first."""
    try:
        return Version(str(text))
    except InvalidVersion:
        return Version("0")


def _strip(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Outcome]],
    notes: Sequence[str | None],
    borders: Sequence[int] = (),
) -> Plot:
    """One mark for each row, in the column of its verdict; a dashed line above each row whose number is a border."""
    labels = distinct(label for label, _ in rows)
    words = [verdict.value for _, verdict in rows]
    values = [{"row": row, "column": word, "verdict": word} for row, word in zip(labels, words, strict=True)]
    lines = [
        layer([{}], {"type": "rule", "color": MUTED, "strokeDash": [4, 3]}, y={"value": ROW * row}) for row in borders
    ]
    layers = [*verdicts(values, labels, tuple(VERDICTS), WIDE, upright=False), *lines]
    return Plot(
        name=name,
        title=title,
        note=" ".join(note for note in notes if note) or None,
        spec=chart(layers, WIDE * len(VERDICTS), ROW * len(rows)),
    )
