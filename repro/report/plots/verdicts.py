"""Verdicts as plots: of the single changes, of the cells of a matrix, of the releases of a package."""

from collections.abc import Mapping, Sequence
from typing import Any

from packaging.version import InvalidVersion, Version

from repro.report.plots.chart import MUTED, ROW, VERDICTS, Plot, chart, distinct, layer, short, verdicts
from repro.report.tables import Json, first_of, thinned

ROWS, COLUMNS = 40, 14
WIDE, NARROW = 70, 24
"""Units of a column that is a verdict, and of one that is a change."""
ASKED = "as asked"


def ablations(document: Json) -> Plot | None:
    """The verdict of the case as asked, and of each single change; None where none was tried."""
    tried = [ablation for ablation in document.get("ablations") or () if ablation["ending"] != "not_run"]
    if not tried:
        return None
    few, note = first_of(tried, ROWS, "changes")
    forward: Json = document.get("forward") or document
    rows = [(ASKED, forward["verdict"]), *((short(ablation["name"]), ablation["verdict"]) for ablation in few)]
    return _strip("ablations", "The verdict with each single change", rows, [note])


def cells(document: Json) -> Plot | None:
    """Cells x changes where changes were tried in the cells, else the verdict of each cell; None without cells."""
    every = document.get("cells") or ()
    if not every:
        return None
    bad = {index for index, item in enumerate(every) if item["verdict"] == "bad"}
    items, thinned_note = thinned(every, ROWS, bad)
    note = thinned_note and f"{len(items)} of {len(every)} cells are drawn; verdict.json has all."
    rows = distinct(short(item.get("label") or item["id"]) for item in items)
    answered = [
        ablation["name"] for item in items for ablation in item.get("ablations") or () if ablation["verdict"] != "skip"
    ]
    changes, more = first_of(list(dict.fromkeys(answered)), COLUMNS, "changes")
    if not changes:
        verdict_of = [item["verdict"] for item in items]
        return _strip("cells", "The verdict of each cell", list(zip(rows, verdict_of, strict=True)), [note])
    columns = distinct([ASKED, *map(short, changes)])
    values = []
    for row, item in zip(rows, items, strict=True):
        by_change = {ablation["name"]: ablation["verdict"] for ablation in item.get("ablations") or ()}
        found = [item["verdict"], *map(by_change.get, changes)]
        values += [
            {"row": row, "column": column, "verdict": verdict}
            for column, verdict in zip(columns, found, strict=True)
            if verdict is not None
        ]
    layers = verdicts(values, rows, columns, NARROW, upright=True)
    return Plot(
        name="cells",
        title="Cells, and one change at a time in each",
        figures=_matrix_in_words(values, rows),
        note=" ".join(part for part in (note, more) if part) or None,
        spec=chart(layers, NARROW * len(columns), ROW * len(rows)),
    )


def versions(document: Json) -> Plot | None:
    """The verdict of each release that was asked, from the oldest to the newest; None where no search was made."""
    found: Json = document.get("versions") or {}
    probes = sorted(found.get("probes") or (), key=lambda probe: _version(probe["pins"].get(found["package"])))
    if not probes:
        return None
    package = found["package"]
    ends = [(item.get("last_good"), item.get("first_bad")) for item in found.get("boundaries") or [found]]
    near = {version for pair in ends for version in pair}
    keep = {index for index, probe in enumerate(probes) if probe["pins"].get(package) in near}
    few, thinned_note = thinned(probes, ROWS, keep)
    note = thinned_note and f"{len(few)} of {len(probes)} releases are drawn; verdict.json has all."
    labels = distinct(_release(probe["pins"], package, few) for probe in few)
    rows = [(label, probe["verdict"]) for label, probe in zip(labels, few, strict=True)]
    places = [probe["pins"].get(package) for probe in few]
    borders = sorted({border for pair in ends for border in _borders(places, *pair)})
    said = "The answer changes at the dashed line." if len(borders) == 1 else "The answer changes at the dashed lines."
    if any(len(_borders(places, *pair)) > 1 for pair in ends):
        said = "The answer changes between the dashed lines, where nothing could be told."
    title = f"Releases of {short(package)}, from the oldest to the newest"
    return _strip("versions", title, rows, [said if borders else None, note], borders)


def _release(pins: Mapping[str, Any], package: str, probes: Sequence[Json]) -> str:
    """The release, and what else was pinned where that was not the same for all."""
    others = [name for name in pins if name != package and len({probe["pins"].get(name) for probe in probes}) > 1]
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
    rows: Sequence[tuple[str, str]],
    notes: Sequence[str | None],
    borders: Sequence[int] = (),
) -> Plot:
    """One mark for each row, in the column of its verdict; a dashed line above each row whose number is a border."""
    labels = distinct(label for label, _ in rows)
    values = [{"row": label, "column": word, "verdict": word} for label, (_, word) in zip(labels, rows, strict=True)]
    lines = [
        layer([{}], {"type": "rule", "color": MUTED, "strokeDash": [4, 3]}, y={"value": ROW * row}) for row in borders
    ]
    layers = [*verdicts(values, labels, tuple(VERDICTS), WIDE, upright=False), *lines]
    return Plot(
        name=name,
        title=title,
        figures=" ".join(f"{value['row']}: {value['verdict']}." for value in values),
        note=" ".join(note for note in notes if note) or None,
        spec=chart(layers, WIDE * len(VERDICTS), ROW * len(rows)),
    )


def _matrix_in_words(values: Sequence[Json], rows: Sequence[str]) -> str:
    said = []
    for row in rows:
        words = [f"{value['column']} {value['verdict']}" for value in values if value["row"] == row]
        said.append(f"{row}: {', '.join(words)}.")
    return " ".join(said)
