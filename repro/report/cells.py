"""The sections of a run over several environments: the cells of a matrix, and the versions of a bisection."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.sentences import listed, plain
from repro.report.markdown import block, cell, text
from repro.report.opening import first_sentence
from repro.report.tables import DASH, Json, Row, first_of, thinned

NAMES = 8
"""How many packages or settings that differ are named in one cell of a table."""
DIRECTIONS = {"regression": "the newer releases are bad", "fix": "the newer releases are good"}
RESULT = ("verdict", "seconds", "what was found")
ENDS = ("last_good", "first_bad")
NOTHING_ALONE = "No bad and good cell differ in one thing alone, so it is not known what the fault follows."
# A run over several environments has no single model, environment or step: what it does not have is absent here.
ABSENT: Json = {
    **dict.fromkeys(("kind", "files", "weights", "load", "forward", "origin", "bisect", "owner", "environment")),
    **dict.fromkeys(("versions", "differences", "kit_sha256", "evidence_sha256", "shown_cell")),
    **dict.fromkeys(("ablations", "workarounds", "steps", "cells"), ()),
}
MODEL = dict.fromkeys(("revision", "seed", "class", "parameters"))
CELL = dict.fromkeys(("python", "torch", "transformers", "device", "dtype", "attn", "platform", "executable"))


def complete(document: Json) -> Json:
    """The document with None or nothing for each part that a run over several environments does not have."""
    model, where = {**MODEL, **document["model"]}, {**CELL, **document["cell"]}
    return {**ABSENT, "case": {"prompts": ()}, **document, "model": model, "cell": where}


def title_place(document: Json) -> str:
    """What the title says behind the model: how many cells, or which versions. Empty for a run in one environment."""
    versions, rows = document["versions"], document["cells"]
    if versions and versions.get("last_good") and versions.get("first_bad"):
        return f" ({versions['package']}: good at {versions['last_good']}, bad at {versions['first_bad']})"
    if not rows:
        return ""
    such = sum(row["verdict"] == document["verdict"] for row in rows)
    return f" ({such} of {len(rows)} cells)"


def lead(document: Json) -> str | None:
    """The second sentence of such a report; None for a run in one environment."""
    versions, rows = document["versions"], document["cells"]
    if versions:
        said = (versions.get("changes") or {}).get("sentence") or versions.get("attribution")
        return first_sentence(said) if said else ""
    if not rows:
        return None
    if document["verdict"] == "good":
        return ""
    return _statements(document)[0] if document["verdict"] == "bad" else "Nothing follows from this run."


def _statements(document: Json) -> list[str]:
    found = [str(item["text"]) for item in (document["differences"] or {}).get("statements") or ()]
    return found or [NOTHING_ALONE]


def cells(document: Json, rows: int) -> dict[str, Any] | None:
    """The section "Cells"; None where the run was no matrix."""
    items = document["cells"]
    if not items:
        return None
    bad = {index for index, item in enumerate(items) if item["verdict"] == "bad"}
    chosen, note = thinned(items, rows, bad)
    named = {index for index, item in enumerate(items) if item.get("ablations")}
    with_ablations, ablations_note = thinned([items[index] for index in sorted(named)], rows, set())
    platforms = len({item.get("platform") for item in items if item.get("platform")}) > 1
    names = _ablation_names(items)
    statements, more = first_of(_statements(document) if bad else [], rows, "statements")
    return {
        "head": ["cell", "Python", "torch", "Transformers", "device", *(["platform"] if platforms else ()), *RESULT],
        "rows": [_cell_row(item, platforms) for item in chosen],
        "note": note,
        "ablations_head": ["cell", "as asked", *map(cell, names)],
        "ablations": [_ablations_row(item, names) for item in with_ablations] if names else [],
        "ablations_note": ablations_note,
        "pairs": _pairs(document["differences"] or {}, rows),
        "statements": [text(line) for line in statements] + ([more] if more else []),
        "commands": _commands(chosen),
        "shown": cell(document["shown_cell"]) if document["shown_cell"] else None,
    }


def _cell_row(item: Json, platforms: bool) -> Row:
    seconds = item.get("seconds")
    values = [item.get(name) for name in ("python", "torch", "transformers", "device")]
    values += [item.get("platform")] if platforms else []
    took = DASH if seconds is None else f"{seconds:.1f}"
    return [
        _label(item),
        *(_or_dash(value) for value in values),
        _word(item["verdict"]),
        took,
        text(item["reason"]),
    ]


def _label(item: Json) -> str:
    return cell(item.get("label") or item["id"])


def _or_dash(value: object) -> str:
    return text(value) if value else DASH


def _word(verdict: str) -> str:
    return "**bad**" if verdict == "bad" else verdict


def _ablation_names(items: Sequence[Json]) -> list[str]:
    """Those changes that at least one cell answered."""
    ablations = [ablation for item in items for ablation in item.get("ablations") or ()]
    return list(dict.fromkeys(ablation["name"] for ablation in ablations if ablation["verdict"] != "skip"))


def _ablations_row(item: Json, names: Sequence[str]) -> Row:
    verdicts = {ablation["name"]: _word(ablation["verdict"]) for ablation in item["ablations"]}
    return [_label(item), _word(item["verdict"]), *(verdicts.get(name, DASH) for name in names)]


def _pairs(differences: Json, rows: int) -> dict[str, Any] | None:
    """The nearest pairs as a table, and what is to be said of these and of other pairs."""
    pairs = differences.get("pairs") or ()
    nearest, note = first_of([pair for pair in pairs if pair["nearest"] and pair["good"]], rows, "pairs")
    table = [
        [cell(pair["bad"]), cell(pair["good"]), *(_changes(pair[part]) for part in ("axes", "packages", "settings"))]
        for pair in nearest
    ]
    remarks: dict[str, list[str]] = {}
    for pair in pairs:
        if pair["note"]:
            remarks.setdefault(pair["note"], []).append(_beside(pair))
    said = [f"{listed(names)}: {text(note)}" for note, names in remarks.items()]
    notes, more = first_of(said, rows, "remarks")
    return {"rows": table, "note": note, "notes": notes + ([more] if more else [])} if table or notes else None


def _beside(pair: Json) -> str:
    return cell(pair["bad"]) + (f" beside {cell(pair['good'])}" if pair["good"] else "")


def _changes(changes: Sequence[Json]) -> str:
    """``numpy 1.26.4, 2.1.0; ...``: the bad cell's value, then the good one's."""
    shown = [f"{cell(item['name'])} {_value(item['bad'])}, {_value(item['good'])}" for item in changes[:NAMES]]
    more = len(changes) - NAMES
    return "; ".join(shown + ([f"and {more} more"] if more > 0 else [])) or DASH


def _value(value: object) -> str:
    if value is None:
        return "none"
    return plain(value) if isinstance(value, float) else text(value)


def _commands(items: Sequence[Json]) -> str | None:
    """The commands that give the shown rows again, one a line."""
    lines = list(dict.fromkeys(str(item["command"]) for item in items if item.get("command")))
    return block("\n".join(lines), "sh") if lines else None


def versions(document: Json, rows: int) -> dict[str, Any] | None:
    """The section "Versions"; None where no bisection was made."""
    found = document["versions"]
    if not found:
        return None
    ends = {found.get("last_good"), found.get("first_bad")}
    probes = found.get("probes") or ()
    keep = {index for index, item in enumerate(probes) if item["pins"].get(found["package"]) in ends}
    chosen, note = thinned(probes, rows, keep)
    boundaries, more = first_of(found.get("boundaries") or (), rows, "boundaries")
    answer = found.get("sentence")
    compared = found.get("all_changes") or [found.get("changes") or {}]
    said = [None if answer == document["headline"] else answer, *(item.get("sentence") for item in compared)]
    said += [found.get("attribution"), *(found.get("notes") or ())]
    return {
        "facts": _facts(found),
        "sentences": [text(first_sentence(line)) for line in said if line],
        "boundaries": [[_or_dash(item.get(key)) for key in ENDS] + [_listed(item)] for item in boundaries],
        "boundaries_note": more,
        "rows": [_probe_row(item) for item in chosen],
        "note": note,
        "commands": _commands(chosen),
    }


def _facts(found: Json) -> list[Row]:
    direction = found.get("direction")
    rows = [["package", cell(found["package"])]]
    rows += [["direction", text(DIRECTIONS.get(direction, direction))]] if direction else []
    rows += [[key.replace("_", " "), cell(found[key])] for key in ENDS if found.get(key)]
    rows += [["skipped between them", _listed(found)]] if found.get("skipped") else []
    rows += [["with", _pins(found["with"])]] if found.get("with") else []
    counts = (("python", "Python"), ("releases", "releases in the range"), ("environments", "environments"))
    return rows + [[words, text(found[key])] for key, words in counts if found.get(key) is not None]


def _listed(found: Json) -> str:
    return listed([cell(version) for version in found.get("skipped") or ()]) or DASH


def _pins(pins: Mapping[str, object]) -> str:
    return ", ".join(cell(f"{name} {version}") for name, version in pins.items())


def _probe_row(item: Json) -> Row:
    votes = item.get("votes")
    counted = ", ".join(map(str, votes)) if isinstance(votes, list | tuple) else votes
    return [_pins(item["pins"]), _word(item["verdict"]), _or_dash(counted), text(item["reason"])]
