"""Many prompts: where they go bad first, how many values, why these, and which ablation saves them."""

from repro.core.sentences import OUTPUT, first_bad_in, sentence, template_used, tried_on
from repro.core.sweep_answers import Counts, Place, PromptAblation, Prompts
from repro.report.markdown import DASH, Row, cell, first_of, shown_number, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ facts(numbers) }}

{{ "First bad values:" if places }}

{{ table(["layer", "token", "kind", "examples"], places) }}

{{ places_note }}

{{ searched }}

{{ bullets(causes) }}

{{ "Bad values in the last layer examined, in rows of tokens:" if counts }}

{{ table(["values", "rows x width", "examples"], counts) }}

{{ counts_note }}

{{ bullets(why) }}

{{ "How many failing examples each ablation saves, and at what cost:" if ablations }}

{{ tried }}

{{ table(["ablation", "saved", "seconds", "weights", "result"], ablations) }}
"""
CAUSES = {
    "own": "also fail alone",
    "padding": "fail only with the padding of their batch",
    "composition": "fail only beside the other prompts of their batch",
}


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.prompts
    if found is None or not found.asked:
        return None
    places, places_note = first_of(found.places, shown.rows, "places")
    counts, counts_note = first_of(found.counts, shown.rows, "counts")
    why = [
        *(found.why.sentences if found.why else ()),
        *(
            f"Lost pairs compared with the rest: {line}"
            for line in (found.lost_why.sentences if found.lost_why else ())
        ),
    ]
    return {
        "numbers": _facts(found),
        "places": [_place(item) for item in places],
        "places_note": places_note,
        "counts": [_count(item) for item in counts],
        "counts_note": counts_note,
        "searched": text(found.searched.sentence) if found.searched else "",
        "tried": text(tried_on(found.ablations) or ""),
        "causes": [f"{times:,} {CAUSES.get(name, name)}." for name, times in found.causes.items()],
        "why": [text(sentence(line)) for line in why],
        "ablations": [_ablation(item) for item in found.ablations],
    }


def _facts(found: Prompts) -> list[Row]:
    counts = {"asked": found.asked, "good": found.good, "bad": found.bad, "skip": found.skip}
    rows = [[name, shown_number(count)] for name, count in counts.items()]
    rows += [["padding", cell(found.padding_side)]] if found.padding_side else []
    rows += [["chat template", text(template_used(found.chat_template))]] if found.chat_template else []
    rows += [["pairs", f"{found.pairs:,}, {len(found.pairs_lost):,} of them lost"]] if found.pairs else []
    if found.vectors:
        used, lost = found.vectors.used, found.vectors.lost
        rows.append(["steering vectors", f"from {used:,} sound pairs ({lost:,} left out)"])
    return rows


def _place(item: Place) -> Row:
    token = DASH if item.token is None else cell(item.token)
    where = text(first_bad_in(item)) if item.layer == OUTPUT else cell(item.layer)
    return [where, token, text(item.kind), shown_number(item.examples)]


def _count(item: Counts) -> Row:
    """How many values are bad in the last layer, and whether these are whole rows of tokens."""
    whole = f"{item.rows:,} x {item.row_size:,}" if item.whole else "no whole rows"
    return [shown_number(item.values), whole, shown_number(item.examples)]


def _ablation(item: PromptAblation) -> Row:
    saves = DASH if item.saved is None else f"{item.saved:,} of {item.asked:,}"
    seconds = DASH if item.seconds is None else f"{item.seconds:.1f}"
    weights = DASH if item.weights_bytes is None else f"{item.weights_bytes / 1e9:.2f} GB"
    return [cell(item.name), saves, seconds, weights, text(item.reason)]


SECTION = Section("Prompts", fill, TEMPLATE)
