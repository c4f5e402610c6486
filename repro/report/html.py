"""The answer as report.html: report.md as a page, with the plots and the scripts.

One file that fetches nothing: plots are drawn into it, its style sheet is inside, and a policy in its head forbids
every script and every address. The text is report.md's own, turned into HTML by markdown-it with raw HTML switched off.
So both say the same, and a name that a model brings along stays text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token

from repro.core.answer import Answer
from repro.core.errors import ReproError
from repro.core.records import Outcome
from repro.report.pictures import plots
from repro.report.plots.chart import Plot, svg
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.render import NOTHING_PRIVATE, Part, parts, render

TEMPLATE = "report.html.j2"
PLOTS = "Plots"
"""The section for plots whose own section is not in report.md."""
WORDS = {Outcome.GOOD: "✔ good", Outcome.BAD: "✖ bad", Outcome.SKIP: "? skip: could not tell"}
COMMENT = re.compile(r"<!--.*-->", re.S)
"""A note of the template to whoever posts report.md. Text from elsewhere cannot begin like this: it is escaped."""
NOT_DRAWN = "No plots: vl-convert-python, which draws them, is not installed or does not run here."

Drawing = tuple[Plot, str]
"""A plot and its ``<svg>``."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    html: str
    figures: Sequence[Drawing] = ()

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def render_html(answer: Answer, private: Private = NOTHING_PRIVATE, scripts: Mapping[str, str] | None = None) -> str:
    """The page: redacted, complete in itself.

    Args:
        answer: Whole.
        private: What must not be in it.
        scripts: The text of each script to show, by its file's name.

    Raises:
        ReproError: a template is not where it should be, or cannot be filled.
    """
    drawn, note = _drawn(plots(Mask.of(answer, private).answer(answer)))
    head, *others = (_section(part, drawn) for part in parts(render(answer, private, scripts)))
    placed = {section.title for section in others}
    homeless = [figure for heading, figure in drawn.items() if heading not in placed]
    return _template().render(
        title=head.title,
        verdict=answer.verdict.value,
        words=WORDS[answer.verdict],
        owner=(answer.owner.project or "not known") if answer.owner and answer.verdict is Outcome.BAD else None,
        head=head.html,
        sections=[*([Section(PLOTS, "", homeless)] if homeless else ()), *others],
        note=note,
    )


def _drawn(made: Mapping[str, Plot]) -> tuple[dict[str, Drawing], str | None]:
    """Each plot with its drawing by its section's heading; a sentence where they could not be drawn."""
    try:
        return {heading: (plot, svg(plot)) for heading, plot in made.items()}, None
    except ImportError:
        return {}, NOT_DRAWN


def _section(part: Part, drawn: Mapping[str, Drawing]) -> Section:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable("image")  # it would be fetched
    title = "".join(child.content for token in reader.parseInline(part.heading) for child in token.children or ())
    tokens = _scrolling(_without_comments(reader.parse(part.text)))
    figures = [drawn[part.heading]] if part.heading in drawn else []
    return Section(title, reader.renderer.render(tokens, reader.options, {}), figures)


def _without_comments(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without the paragraphs that are a comment: with raw HTML off they would be shown."""
    hidden = {
        place
        for index, token in enumerate(tokens)
        if token.type == "inline" and COMMENT.fullmatch(token.content)
        for place in (index - 1, index, index + 1)
    }
    return [token for index, token in enumerate(tokens) if index not in hidden]


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


def _template() -> jinja2.Template:
    path = Path(__file__).with_name(TEMPLATE)
    if not path.is_file():
        raise ReproError(f"{TEMPLATE} is missing from the installation ({path.parent}): install repro-kit again.")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    return environment.from_string(path.read_text(encoding="utf-8"))
