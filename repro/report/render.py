"""The answer as report.md, by way of REPORT_TEMPLATE.md; and a report cut into its parts again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from repro.core.answer import Answer
from repro.core.errors import ReproError
from repro.report import opening
from repro.report.markdown import DIGITS, outside_code, text, tidy
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.section import Shown, named, template

NAME = "REPORT_TEMPLATE.md"
LIMIT = 65_536
"""GitHub's limit for the body of an issue, in characters; held in bytes here, which is never more."""
NOTHING_PRIVATE = Private()
ROWS = (40, 24, 12, 6, 3)
"""How many rows a table may have, tried in this order until the report is below the limit."""
CUT = "\n\nCut here, at GitHub's limit for the length of an issue. verdict.json has all of it.\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A report from one heading to the next; what stands above the first section has the report's title."""

    heading: str
    text: str


def render(answer: Answer, private: Private = NOTHING_PRIVATE, scripts: Mapping[str, str] | None = None) -> str:
    """The report: redacted, below 65,536 bytes, every table thinned as little as that needs.

    Args:
        answer: Whole.
        private: What must not be in it.
        scripts: The text of each script that goes with it, by its file's name.

    Raises:
        ReproError: the template is not where it should be, or cannot be filled.
    """
    mask = Mask.of(answer, private)
    clean = mask.answer(answer)
    shown = {name: mask.script(script) for name, script in (scripts or {}).items()}
    filled = ""
    for rows in ROWS:
        filled = _filled(Shown(clean, rows, shown))
        if len(filled.encode("utf-8", "backslashreplace")) < LIMIT:
            return filled
    return filled.encode("utf-8", "backslashreplace")[: LIMIT - 1 - len(CUT)].decode("utf-8", "ignore") + CUT


def parts(report: str) -> list[Part]:
    """A report cut at its headings."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line, outside in outside_code(report):
        if outside and line.startswith(("# ", "## ")):
            mark, _, heading = line.partition(" ")
            found = [(heading, found[0][1])] if mark == "#" else [*found, (heading, [])]
        else:
            found[-1][1].append(line)
    return [Part(heading, "\n".join(lines).strip()) for heading, lines in found]


def scripts_of(folder: Path, answer: Answer) -> dict[str, str]:
    """The text of each script that the answer names and the folder of the run has, by its file's name."""
    first = answer.reproducer
    names = [item.path for item in (first, *first.others) if item.path] if first else []
    paths = [folder / name for name in dict.fromkeys(names) if Path(name).name == name]  # none from elsewhere
    return {path.name: path.read_text("utf-8", "replace") for path in paths if path.is_file()}


def _filled(shown: Shown) -> str:
    path = _template()
    try:
        filled = template(path.read_text(encoding="utf-8")).render(
            title=text(opening.title(shown.answer)),
            statement=opening.statement(shown.answer),
            section=lambda name: named(name).markdown(shown),
            tool=text(shown.answer.tool),
            digits=DIGITS,
        )
    except jinja2.TemplateError as error:
        raise ReproError(
            f"{path} cannot be filled: {str(error).rstrip('.')}. Correct it, or install repro-kit again."
        ) from None
    return f"{tidy(filled)}\n"


def _template() -> Path:
    """The template beside this module (in a wheel), or at the top of the repository."""
    for folder in (Path(__file__).parent, Path(__file__).parents[2]):
        if (folder / NAME).is_file():
            return folder / NAME
    raise ReproError(f"{NAME} is missing from the installation ({Path(__file__).parent}): install repro-kit again.")
