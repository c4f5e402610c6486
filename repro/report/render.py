"""verdict.json's content -> report.md, by way of REPORT_TEMPLATE.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from repro.core.errors import ReproError
from repro.report.privacy.redact import Private, redact, redact_json, scope
from repro.report.view import view

NAME = "REPORT_TEMPLATE.md"
LIMIT = 65_536
"""GitHub's limit for the body of an issue, in characters; held in bytes here, which is never more."""
NOTHING_PRIVATE = Private()
ROWS = (40, 24, 12, 6, 3)
"""How many rows a table may have, tried in this order until the report is below the limit."""


def render(
    document: Mapping[str, Any], private: Private = NOTHING_PRIVATE, scripts: Mapping[str, str] | None = None
) -> str:
    """The report: redacted, below 65,536 bytes, every table thinned as little as that needs.

    Args:
        document: The content of verdict.json.
        private: What must not be in it.
        scripts: The text of each script that goes with it, by its file's name.

    Raises:
        ReproError: the template is not where it should be.
    """
    template = _template()
    words, keep = scope(document, private)
    clean = redact_json(document, words, keep)
    shown = {name: redact(script, words, keep) for name, script in (scripts or {}).items()}
    filled = ""
    for rows in ROWS:
        filled = template.render(view(clean, rows, shown))
        if len(filled.encode("utf-8", "backslashreplace")) < LIMIT:
            return filled
    end = "\n\nThis report was cut here, at the limit of an issue's length. verdict.json has all of it.\n"
    return filled.encode("utf-8", "backslashreplace")[: LIMIT - 1 - len(end)].decode("utf-8", "ignore") + end


def scripts_of(folder: Path, document: Mapping[str, Any]) -> dict[str, str]:
    """The text of each script that the document names and the folder of the run has, by its file's name."""
    first = document.get("reproducer") or {}
    names = [str(item.get("path")) for item in (first, *(first.get("others") or ()))] if first else []
    paths = [folder / name for name in dict.fromkeys(names) if Path(name).name == name]  # none from elsewhere
    return {path.name: path.read_text("utf-8", "replace") for path in paths if path.is_file()}


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
