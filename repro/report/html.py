"""verdict.json's content -> report.html: report.md as a page, with the plots and the scripts.

One file that fetches nothing: plots are drawn into it, its style sheet is inside, and a policy in its head forbids
every script and every address. The text is report.md's own, turned into HTML by markdown-it with raw HTML switched off.
So both say the same, and a name that a model brings along stays text.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token

from repro.core.errors import ReproError
from repro.report.plots import plots
from repro.report.plots.chart import Plot, svg
from repro.report.privacy.redact import Private, redact_json, scope
from repro.report.render import NOTHING_PRIVATE, render

TEMPLATE = "report.html.j2"
PLACES = {
    "cells": "Cells",
    "versions": "Versions",
    "spread": "How it spreads",
    "magnitude": "Headroom",
    "ablations": "One change at a time",
}
"""The section of report.md that a plot belongs to, by the plot's name."""
PLOTS = "Plots"
"""The section for plots whose own one is not in report.md."""
WORDS = {"good": "✔ good", "bad": "✖ bad", "skip": "? skip: could not tell"}
COMMENT = re.compile(r"<!--.*-->", re.S)
"""What the template says to whoever posts report.md. No text from elsewhere begins so: there it is escaped."""
NOT_DRAWN = "The plots are missing: vl-convert-python, which draws them, is not installed or does not run here."


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. ``figures`` are pairs of a plot and its ``<svg>``."""

    title: str
    html: str
    figures: tuple[tuple[Plot, str], ...] = ()

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def render_html(
    document: Mapping[str, Any], private: Private = NOTHING_PRIVATE, scripts: Mapping[str, str] | None = None
) -> str:
    """The page: redacted, complete in itself.

    Args:
        document: The content of verdict.json.
        private: What must not be in it.
        scripts: The text of each script to show, by its file's name.

    Raises:
        ReproError: a template is not where it should be.
    """
    text = render(document, private, scripts)
    private, keep = scope(document, private)
    drawn, note = _drawn(plots(redact_json(document, private, keep)))
    head, *sections = _sections(text)
    return _template().render(
        title=head.title,
        verdict=document["verdict"],
        words=WORDS[document["verdict"]],
        owner=_owner(document),
        head=head.html,
        sections=_with_plots(sections, drawn),
        note=note,
    )


def _owner(document: Mapping[str, Any]) -> str | None:
    """Whose fault it is; None where there is none."""
    owner = document.get("owner")
    return str(owner.get("project") or "not known") if owner and document["verdict"] == "bad" else None


def _drawn(made: Sequence[Plot]) -> tuple[dict[str, tuple[Plot, str]], str | None]:
    """Each plot and its drawing by name; a sentence where they could not be drawn."""
    try:
        return {plot.name: (plot, svg(plot)) for plot in made}, None
    except ImportError:
        return {}, NOT_DRAWN


def _sections(text: str) -> list[Section]:
    """report.md cut at its headings; the first part has the report's title, and no heading."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable("image")  # it would be fetched
    parts: list[tuple[str, list[Token]]] = [("", [])]
    tokens = iter(_without_comments(reader.parse(text)))
    for token in tokens:
        if token.type == "heading_open" and token.tag in ("h1", "h2"):
            title = _plain(next(tokens))
            next(tokens)
            parts = [(title, parts[0][1])] if token.tag == "h1" else [*parts, (title, [])]
        else:
            parts[-1][1].append(token)
    return [Section(title, reader.renderer.render(_scrolling(body), reader.options, {})) for title, body in parts]


def _without_comments(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without the paragraphs that are a comment: with raw HTML off they would be shown."""
    hidden = {
        place
        for index, token in enumerate(tokens)
        if token.type == "inline" and COMMENT.fullmatch(token.content)
        for place in (index - 1, index, index + 1)
    }
    return [token for index, token in enumerate(tokens) if index not in hidden]


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _scrolling(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with each table in a box of its own that scrolls, and without heads that are empty."""
    found: list[Token] = []
    tokens = list(tokens)
    while tokens:
        token = tokens.pop(0)
        if token.type == "table_open":
            end = next(index for index, item in enumerate(tokens) if item.type == "thead_close")
            empty = not any(item.content for item in tokens[:end])
            kind = "table facts" if empty else "table"
            found += [_raw(f'<div class="{kind}" role="region" aria-label="table" tabindex="0">'), token]
            tokens = tokens[end + 1 :] if empty else tokens
        else:
            found += [token, _raw("</div>")] if token.type == "table_close" else [token]
    return found


def _raw(html: str) -> Token:
    return Token("html_block", "", 0, content=f"{html}\n", block=True)


def _with_plots(sections: Sequence[Section], drawn: Mapping[str, tuple[Plot, str]]) -> list[Section]:
    """Each plot in its section; those without one in a section before all others."""
    titles = {section.title for section in sections}
    placed = [
        dataclasses.replace(
            section, figures=tuple(plot for name, plot in drawn.items() if PLACES.get(name) == section.title)
        )
        for section in sections
    ]
    homeless = tuple(plot for name, plot in drawn.items() if PLACES.get(name) not in titles)
    return [*([Section(PLOTS, "", homeless)] if homeless else ()), *placed]


def _template() -> jinja2.Template:
    path = Path(__file__).with_name(TEMPLATE)
    if not path.is_file():
        raise ReproError(f"{TEMPLATE} is missing from the installation ({path.parent}): install repro-kit again.")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    return environment.from_string(path.read_text(encoding="utf-8"))
