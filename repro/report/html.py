"""The answer as report.html: in short, the network and the way of the bad value, then report.md as a page.

One file that fetches nothing: its style sheet and its one script, for copying, are inside, and a policy in its head
forbids every other script and every address. It is whole without the script. The text below the first part is
report.md's own, turned into HTML by markdown-it with raw HTML switched off. So both say the same, and a name that a
model brings along stays text.
"""

import base64
import functools
import hashlib
import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token

from repro.core.answer import Answer
from repro.core.errors import ReproError
from repro.core.records import Outcome
from repro.core.sentences import visible
from repro.report.page import highlight
from repro.report.page.glance import glance, shown_run
from repro.report.page.grid import Grid, by_ablations, by_versions
from repro.report.page.marks import Row, ablations, versions
from repro.report.page.network import network
from repro.report.page.way import way
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.render import NOTHING_PRIVATE, Part, parts, render

TEMPLATE, STYLE, SCRIPT = "report.html.j2", "page/style.css", "page/copy.js"
ABLATIONS, CELLS = "Ablations", "Cells"
"""The headings of the sections that marks and a grid belong to."""
WORDS = {Outcome.GOOD: "✔ good", Outcome.BAD: "✖ bad", Outcome.SKIP: "? skip: could not tell"}
NOT_SHOWN = re.compile(r"<!--.*-->|(?:(?:</?details>|<summary>[^<]*</summary>)\s*)+", re.S)
"""A note of the template to whoever posts report.md, and what folds a part of it on GitHub: here all of it is shown.
Text from elsewhere cannot begin like this: it is escaped."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report."""

    title: str
    html: str
    anchor: str
    marks: Row | None = None
    grid: Grid | None = None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of code: the number of each, its HTML, and whether it is the line that matters."""

    source: str
    package: str
    lines: Sequence[tuple[int, str, bool]]


def render_html(answer: Answer, private: Private = NOTHING_PRIVATE, scripts: Mapping[str, str] | None = None) -> str:
    """The page: redacted, complete in itself.

    Args:
        answer: Whole.
        private: What must not be in it.
        scripts: The text of each script to show, by its file's name.

    Raises:
        ReproError: a template is not where it should be, or cannot be filled.
    """
    mask = Mask.of(answer, private)
    clean = mask.answer(answer)
    head, *others = parts(render(answer, private, scripts))
    sections = [_section(part, clean) for part in others]
    grid, releases, column, steps = by_versions(clean), versions(clean), network(clean), way(clean)
    own = (
        ("at-short", "In short", True),
        ("at-cells", "The cells", grid),
        ("at-releases", "The releases", releases),
        ("at-network", "The network", column),
        ("at-way", "From the origin to the output", steps),
        ("at-report", "The report", True),
    )
    anchors = [(anchor, name) for anchor, name, found in own if found]
    script = _text(SCRIPT)
    return _template(TEMPLATE).render(
        title=_title(head.heading),
        verdict=answer.verdict.value,
        words=WORDS[answer.verdict],
        owner=(answer.owner.project or "not known") if answer.owner and answer.verdict is Outcome.BAD else None,
        questions=glance(clean),
        excerpt=_excerpt(clean, mask),
        grid=grid,
        releases=releases,
        network=column,
        shown=visible(shown_run(clean) or ""),
        way=steps,
        head=_html(head.text, "The report"),
        anchors=[*anchors, *((section.anchor, section.title) for section in sections)],
        sections=sections,
        style=_text(STYLE),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _section(part: Part, answer: Answer) -> Section:
    title = _title(part.heading)
    return Section(
        title,
        _html(part.text, title),
        re.sub(r"\W+", "-", title.lower()).strip("-"),
        marks=ablations(answer) if part.heading == ABLATIONS else None,
        grid=by_ablations(answer) if part.heading == CELLS else None,
    )


def _excerpt(answer: Answer, mask: Mask) -> Excerpt | None:
    """The lines around the origin's line, masked as a script is: a password in them is one only with its name."""
    found = answer.origin.excerpt if answer.origin else None
    if found is None or not found.lines:
        return None
    text = textwrap.dedent(mask.script("\n".join(found.lines)).expandtabs(4)).rstrip()
    lines = highlight.python_lines("\n".join(map(visible, text.split("\n"))))
    here = found.source.rpartition(":")[2]
    code, environment = found.package or "", answer.environment
    version = environment.version(environment.distribution(code)) if environment else None
    package = f" of {code} {version}" if version else ""
    numbered = [(number, line, str(number) == here) for number, line in enumerate(lines, found.first)]
    while numbered and not numbered[0][1].strip():
        numbered.pop(0)
    return Excerpt(visible(found.source), visible(package), numbered)


# --- Markdown --------------------------------------------------------------------------------------------------------


@functools.cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "highlight": highlight.fenced}).enable("table")
    return reader.disable("image")  # it would be fetched


def _title(heading: str) -> str:
    return "".join(child.content for token in _reader().parseInline(heading) for child in token.children or ())


def _html(markdown: str, title: str) -> str:
    reader = _reader()
    tokens = _scrolling(_without_tags(reader.parse(markdown)), title)
    return str(reader.renderer.render(tokens, reader.options, {}))


def _without_tags(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without the paragraphs that are for GitHub alone: with raw HTML off they would be shown."""
    hidden = {
        place
        for index, token in enumerate(tokens)
        if token.type == "inline" and NOT_SHOWN.fullmatch(token.content)
        for place in (index - 1, index, index + 1)
    }
    return [token for index, token in enumerate(tokens) if index not in hidden]


def _scrolling(tokens: Sequence[Token], title: str) -> list[Token]:
    """The tokens with each table in a box of its own that scrolls, and without heads that are empty."""
    found: list[Token] = []
    tokens = list(tokens)
    number = 0
    while tokens:
        token = tokens.pop(0)
        if token.type == "table_open":
            end = next(index for index, item in enumerate(tokens) if item.type == "thead_close")
            empty = not any(item.content for item in tokens[:end])
            kind = "table facts" if empty else "table"
            number += 1
            label = html.escape(f"{title}: table {number}")  # regions of one name could not be told apart
            found += [_raw(f'<div class="{kind}" role="region" aria-label="{label}" tabindex="0">'), token]
            tokens = tokens[end + 1 :] if empty else tokens
        else:
            if token.type == "th_open":
                token.attrSet("scope", "col")
            found += [token, _raw("</div>")] if token.type == "table_close" else [token]
    return found


def _raw(tag: str) -> Token:
    return Token("html_block", "", 0, content=f"{tag}\n", block=True)


# --- files -----------------------------------------------------------------------------------------------------------


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
    )
    return environment.from_string(_text(name))


def _text(name: str) -> str:
    path = Path(__file__).parent / name
    if not path.is_file():
        raise ReproError(f"{name} is missing from the installation ({path.parent}): install repro-kit again.")
    return path.read_text(encoding="utf-8")
