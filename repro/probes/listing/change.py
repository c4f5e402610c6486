"""What the author of a script may change: the first change of their own lines with which it is good."""

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Optional

from ..reduce.trials import Trials
from .edits.edit import Edit
from .edits.repairs import repairs
from .runs.pool import Pool, Run, Setting
from .text.tree import Tree
from .text.written import written

SEEDS = (1, 2, 3)
MOST = 80  # changes that are tried
ALIKE = 6  # of the script as it is
LINES = 2  # that a change may touch


def change(
    original: Tree, tree: Tree, at: frozenset[int], origin: Mapping[str, Any], setting: Setting, seconds: float,
    pool: Pool, trials: Trials,
) -> Optional[dict[str, Any]]:  # fmt: skip
    """The change as it travels to the host; None where no change of so few lines makes the script good.

    original, tree: the script as it is, and made smaller. at: the statements of the original in which the fault is
    born. seconds: that a run may take.
    """
    trials.begin("a change with which the script is good")
    before = written(tree).text
    of = at, origin["mechanism"], origin.get("decided_by") == "integers"
    for edit, text in islice(_distinct(before, tree, repairs(tree, *of)), MOST):
        if trials.over:
            break
        if trials.ask(f"changed: {edit.what}", functools.partial(_is_good, text, setting, seconds, pool)):
            alike = [edit, *(other for other in repairs(original, *of) if other.of == edit.of)]
            return {**_lines(before, text), "text": text, **_of_original(original, alike, setting, seconds, pool)}
    return None


def _distinct(before: str, tree: Tree, edits: Iterator[Edit]) -> Iterator[tuple[Edit, str]]:
    """Each change with the text that it gives, where that is another one and touches few lines."""
    seen = {before}
    for edit in edits:
        made = edit.make(tree)
        text = before if made is None else written(made).text
        if text not in seen and len(_lines(before, text)["after"]) <= LINES:
            seen.add(text)
            yield edit, text


def _is_good(text: str, setting: Setting, seconds: float, pool: Pool) -> bool:
    """Whether it ends well under each seed."""
    for seed in SEEDS:
        ran = pool.answer(pool.ask(setting, Run(text, seed=seed, seconds=seconds)))
        if ran is None or ran.verdict != "good":
            return False
    return True


def _of_original(
    original: Tree, edits: Sequence[Edit], setting: Setting, seconds: float, pool: Pool
) -> Mapping[str, Any]:
    """The first of these changes of the script as it is with which that is good as well."""
    before = written(original).text
    for _, after in islice(_distinct(before, original, iter(edits)), ALIKE):
        if _is_good(after, setting, seconds, pool):
            return {f"script_{name}": found for name, found in _lines(before, after).items()}
    return {"script_before": [], "script_after": []}


def _lines(before: str, after: str) -> dict[str, list[str]]:
    """The lines that differ."""
    found: dict[str, list[str]] = {"before": [], "after": []}
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line.startswith(("- ", "+ ")):
            found["before" if line[0] == "-" else "after"].append(line[2:])
    return found
