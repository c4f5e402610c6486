"""verdict.json's content -> report.md, by way of REPORT_TEMPLATE.md."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from repro.errors import ReproError
from repro.report.redact import Private, redact
from repro.report.view import view

NAME = "REPORT_TEMPLATE.md"
LIMIT = 65_536
"""GitHub's limit for the body of an issue, in characters; held in bytes here, which is never more."""
PUBLIC = frozenset({"/", "/usr", "/usr/local"})
"""Folders that are the same on every machine."""
NOTHING_PRIVATE = Private()
ROWS = (40, 24, 12, 6, 3)
"""How many rows a table may have, tried in this order until the report is below the limit."""


def render(document: Mapping[str, Any], private: Private = NOTHING_PRIVATE) -> str:
    """The report: redacted, below 65,536 bytes, every table thinned as little as that needs.

    Raises:
        ReproError: the template is not where it should be.
    """
    template = _template()
    model = str(document["model"]["id"])
    keep = (model,) if not Path(model).is_absolute() and "/" in model else ()
    clean = _redacted(document, dataclasses.replace(private, folders=_folders(document)), keep)
    filled = ""
    for rows in ROWS:
        filled = template.render(view(clean, rows))
        if len(filled.encode("utf-8", "backslashreplace")) < LIMIT:
            return filled
    end = "\n\nThis report was cut here, at the limit of an issue's length. verdict.json has all of it.\n"
    return filled.encode("utf-8", "backslashreplace")[: LIMIT - 1 - len(end)].decode("utf-8", "ignore") + end


def _folders(document: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Where a local model and the environment lie, which is nobody's business, and what stands for it."""
    model = Path(str(document["model"]["id"]))
    pairs = [(model.parent, ".")] if model.is_absolute() else []
    rows = [row.get("environment") or {} for row in document.get("cells") or ()]
    for found in (document["cell"]["executable"], *(row.get("executable") for row in rows)):
        executable = Path(str(found))
        pairs += [(executable.parent.parent, "ENV")] if executable.is_absolute() else []
    return tuple((str(folder), word) for folder, word in pairs if str(folder) not in PUBLIC)


def _redacted(value: Any, private: Private, keep: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return redact(value, private, keep)
    if isinstance(value, Mapping):
        return {key: _redacted(item, private, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if isinstance(item, int) else _redacted(item, private, keep) for item in value]
    return value


def _template() -> jinja2.Template:
    """The template beside this module (in a wheel), or at the top of the repository."""
    for folder in (Path(__file__).parent, Path(__file__).parents[2]):
        path = folder / NAME
        if path.is_file():
            environment = jinja2.Environment(
                undefined=jinja2.StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
                keep_trailing_newline=True,
                autoescape=False,  # Markdown, not HTML: ``markdown`` has made every value safe
            )
            return environment.from_string(path.read_text(encoding="utf-8"))
    raise ReproError(f"{NAME} is missing from the installation ({Path(__file__).parent}): install repro-kit again.")
