"""The results in a few lines, and as the table in ``docs/security.md``. Nothing in it is written by hand."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from .attack import TABLES
from .session import Result

BEGIN, END = "<!-- attacks: written by `nox -s attacks` -->", "<!-- /attacks -->"


@dataclass(frozen=True)
class Page:
    """What is reported."""

    results: tuple[Result, ...]
    seconds: float
    jobs: int

    @property
    def held(self) -> int:
        """How many attacks held."""
        return sum(not result.broken for result in self.results)


def summary(page: Page) -> str:
    """The numbers in one line, and the attacks that did not hold."""
    fallen = [f"did not hold: {result.attack.name}" for result in page.results if result.broken]
    return "\n".join([*fallen, f"{page.held} of {len(page.results)} attacks held, {page.seconds:.0f} s"])


def written(text: str, page: Page) -> str:
    """The page for people with another table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table(page)}\n\n{END}{rest.partition(END)[2]}"


def table(page: Page) -> str:
    """Tried and held by kind."""
    lines = ["| attacks on | tried | held |", "|---|---|---|"]
    for kind in sorted({result.attack.kind for result in page.results}):
        of_kind = [result for result in page.results if result.attack.kind == kind]
        held = sum(not result.broken for result in of_kind)
        lines.append(f"| {title(kind)} | {len(of_kind)} | {held} |")
    lines.append(f"| **all** | **{len(page.results)}** | **{page.held}** |")
    where = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    how = f"{page.seconds:.0f} s, {page.jobs} at a time, on {where}."
    fallen = [f"- did not hold: {result.attack.name}" for result in page.results if result.broken]
    return "\n".join([*lines, "", how, *fallen])


def title(kind: str) -> str:
    """A table's own words for its kind: its first line, a comment."""
    return (TABLES / f"{kind}.toml").read_text("utf-8").split("\n", 1)[0].removeprefix("#").strip()
