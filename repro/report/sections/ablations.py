"""The case with one thing changed, again and again."""

from repro.core.answer import Ablation
from repro.core.records import Ending, Outcome
from repro.core.sentences import listed
from repro.report.markdown import cell, code, ending, text
from repro.report.plots.verdicts import ablations
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
Each row is the same case with one thing changed.{{ " Workarounds: " ~ workarounds ~ "." if workarounds }}

{{ table(["ablation", "verdict", "result"], rows) }}

{{ "Not applicable: " ~ not_applicable ~ "." if not_applicable }}
"""


def fill(shown: Shown) -> Variables | None:
    answer = shown.answer
    rows = [
        [cell(item.name), ending(item.verdict, item.ending, item.signal), text(item.reason)]
        for item in answer.ablations
        if item.ending is not Ending.NOT_RUN and not _not_applicable(item)
    ]
    not_applicable = [f"{code(item.name)} ({text(item.reason)})" for item in answer.ablations if _not_applicable(item)]
    if not rows:
        return None
    workarounds = listed([cell(name) for name in answer.workarounds])
    return {"rows": rows, "workarounds": workarounds, "not_applicable": "; ".join(not_applicable)}


def _not_applicable(item: Ablation) -> bool:
    """The change does not apply to this case; a crash or a time-out is an answer of its own."""
    return item.verdict is Outcome.SKIP and item.ending is Ending.ENDED


SECTION = Section("Ablations", fill, TEMPLATE, plot=ablations, rank=2)
