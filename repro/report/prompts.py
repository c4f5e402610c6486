"""The section on many prompts: where they go bad first, how many values, why these, and what saves them."""

from typing import Any

from repro.core.sentences import sentence
from repro.report.markdown import cell, text
from repro.report.tables import DASH, Json, Row, first_of, shown_number

CAUSES = {
    "own": "fail alone too",
    "padding": "fail only with the padding that they have in their batch",
    "composition": "fail only beside the others of their batch",
}


def many(document: Json, rows: int) -> dict[str, Any] | None:
    """The section; None where the run was of no file of prompts."""
    found = document.get("prompts")
    if not found or found.get("asked") is None:
        return None
    places, places_note = first_of(found.get("places") or (), rows, "places")
    counts, counts_note = first_of(found.get("counts") or (), rows, "counts")
    lost = (found.get("lost_why") or {}).get("sentences") or ()
    why = (
        *((found.get("why") or {}).get("sentences") or ()),
        *(f"Lost pairs against the rest: {line}" for line in lost),
    )
    return {
        "facts": _facts(found),
        "places": [_place(item) for item in places],
        "places_note": places_note,
        "counts": [_count(item) for item in counts],
        "counts_note": counts_note,
        "causes": [f"{times:,} {CAUSES.get(name, name)}." for name, times in (found.get("causes") or {}).items()],
        "why": [text(sentence(line)) for line in why],
        "ablations": [_ablation(item) for item in found.get("ablations") or ()],
    }


def _facts(found: Json) -> list[Row]:
    rows = [[name, shown_number(found[name])] for name in ("asked", "good", "bad", "skip")]
    rows += [["padding", cell(found["padding_side"])]] if found.get("padding_side") else []
    if found.get("pairs"):
        rows += [["pairs", f"{found['pairs']:,}, {len(found.get('pairs_lost') or ()):,} of them lost"]]
    vectors = found.get("vectors")
    if vectors:
        rows += [["steering vectors", f"of {vectors['used']:,} sound pairs; {vectors['lost']:,} pairs are left out"]]
    return rows


def _place(item: Json) -> Row:
    token = DASH if item["token"] is None else cell(item["token"])
    return [cell(item["layer"]), token, text(item["kind"]), shown_number(item["examples"])]


def _count(item: Json) -> Row:
    """How many values are bad in the last layer, and whether these are whole rows of tokens."""
    whole = f"{item['rows']:,} x {item['row_size']:,}" if item["whole"] else "no whole rows"
    return [shown_number(item["values"]), whole, shown_number(item["examples"])]


def _ablation(item: Json) -> Row:
    saves = DASH if item["saved"] is None else f"{item['saved']:,} of {item['asked']:,}"
    seconds = DASH if item["seconds"] is None else f"{item['seconds']:.1f}"
    weights = DASH if item["weights_bytes"] is None else f"{item['weights_bytes'] / 1e9:.2f} GB"
    return [cell(item["name"]), saves, seconds, weights, text(item["reason"])]
