"""The modules that must stay in float32, or in bfloat16, and the code that keeps them there."""

from repro.core.encoding import number
from repro.core.finite.narrow import Keep
from repro.core.sentences import many
from repro.report.markdown import block, text
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{% for part in parts %}
{{ part.said }}

{{ facts(part.rows) }}

{{ part.code if part.code }}

{% endfor %}
"""

VERIFIED = {True: "is sound as well", False: "is not sound", None: "could not be run"}


def fill(shown: Shown) -> Variables | None:
    asked = [keep for keep in (shown.answer.keep, shown.answer.keep_bfloat16) if keep is not None and keep.dtype]
    return {"parts": [_part(keep) for keep in asked]} if asked else None


def _part(keep: Keep) -> Variables:
    code = block(keep.code, "python") if keep.code else None
    return {"said": text(keep.reason), "rows": _rows(keep), "code": code}


def _rows(keep: Keep) -> list[list[str]]:
    rows = [["sets of modules that were run", str(keep.trials)]]
    if keep.modules:
        more, whole = keep.bytes or 0, keep.bytes_of_model or 1
        rows.append(["memory", f"{many(more, 'byte')} more, {100 * more / whole:.2g} % of the weights"])
        rows.append(["the code, in a process of its own", VERIFIED[keep.verified]])
    rmse, noise = number(keep.rmse), number(keep.noise)
    if keep.modules is not None and rmse is not None and noise is not None:
        rows.append(
            ["RMSE against float32", f"{rmse:.3g}; rounding to {keep.rounded_to or keep.dtype} alone makes {noise:.3g}"]
        )
        rows.append(["rows with another largest element", str(keep.flips)])
    return rows


SECTION = Section("Kept in another dtype", fill, TEMPLATE, rank=3)
