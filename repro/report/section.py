"""What a section of the report is. Each is one file of ``repro/report/sections/``, found by its name."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jinja2

from repro.core.answer import Answer
from repro.core.errors import ReproError
from repro.report import sections
from repro.report.markdown import bullets, facts, table, tidy
from repro.report.plots.chart import Plot

Variables = Mapping[str, object]
LAST = 99


@dataclass(frozen=True, slots=True)
class Shown:
    """What sections are filled from.

    Args:
        answer: Redacted.
        rows: The most rows that a table may have.
        scripts: The text of each script by its file's name, redacted.
    """

    answer: Answer
    rows: int
    scripts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of report.md, of the page and of a filled form.

    Args:
        heading: Empty for one that belongs to the part above it.
        fill: The template's variables; None where the run has nothing to show. Every string in them is Markdown.
        template: Jinja2, with ``table``, ``facts`` and ``bullets`` of ``markdown``. What stays empty leaves no gap.
        plot: The plot that belongs to it.
        rank: Where room is short, a form keeps the section with the lowest first.
    """

    heading: str
    fill: Callable[[Shown], Variables | None]
    template: str
    plot: Callable[[Answer], Plot | None] | None = None
    rank: int = LAST

    def markdown(self, shown: Shown) -> str:
        """The section with its heading; empty where it is left out."""
        variables = self.fill(shown)
        if variables is None:
            return ""
        heading = f"## {self.heading}\n\n" if self.heading else ""
        return heading + tidy(template(self.template).render(variables))


def named(name: str) -> Section:
    """The section in ``sections/NAME.py``.

    Raises:
        ReproError: there is none.
    """
    known = names()
    if name not in known:
        raise ReproError(f"there is no section {name!r}. Sections: {', '.join(known)}.")
    found: Section = importlib.import_module(f"{sections.__name__}.{name}").SECTION
    return found


def names() -> list[str]:
    """All sections, by their files' names."""
    return sorted(module.name for module in pkgutil.iter_modules(sections.__path__))


@functools.cache
def template(text: str) -> jinja2.Template:
    """A template for Markdown: values are made safe by ``markdown``, and a None shows nothing."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
        finalize=lambda value: "" if value is None else value,
    )
    environment.globals.update(table=table, facts=facts, bullets=bullets)
    return environment.from_string(text)
