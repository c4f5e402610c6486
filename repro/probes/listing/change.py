"""What the author of a script may change: the first change of their own lines with which it is good."""

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Optional

from ..reduce.trials import Trials
from .edits.edit import Edit
from .edits.guards import guards
from .edits.repairs import guard_comes, repairs
from .edits.wrapping import wrapped
from .runs.pool import Pool, Run, Setting
from .runs.worth import HOOK, KEEPS
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
    """The change as it travels to the host; None where no change of so few lines makes the script good and keeps the
    numbers that were good before.

    original, tree: the script as it is, and made smaller. at: the statements of the original in which the fault is
    born. seconds: that a run may take.
    """
    trials.begin("a change with which the script is good")
    asking = Asking(setting, seconds, pool, trials)
    of = at, origin["mechanism"], origin.get("decided_by") == "integers"
    when = "never" if of[2] else guard_comes(of[1])
    found = _guard(original, tree, at, asking) if when == "first" else None
    found = found or _repair(original, tree, of, asking)
    return found or (_guard(original, tree, at, asking) if when == "last" else None)


@dataclass(frozen=True)
class Asking:
    """What the questions have in common."""

    setting: Setting
    seconds: float
    pool: Pool
    trials: Trials

    def is_good(self, what: str, text: str) -> bool:
        """Whether it ends well under each seed."""
        return self.trials.ask(f"changed: {what}", functools.partial(self._ends_well, text))

    def _ends_well(self, text: str) -> bool:
        for seed in SEEDS:
            ran = self._run(Run(text, seed=seed, seconds=self.seconds))
            if ran is None or ran.verdict != "good":
                return False
        return True

    def kept(self, tree: Tree, edits: Sequence[Edit]) -> list[Edit]:
        """Those that keep all values that are finite without them."""
        worths = {key: edit.worth for key, edit in enumerate(edits) if edit.worth is not None}
        looked = tree
        for number in sorted({worth.number for worth in worths.values()}):
            hook = wrapped(looked.nodes[number], f"({HOOK}({number}, globals(), locals()), {{}})[1]").make(looked)
            looked = looked if hook is None else hook
        ran = self._run(Run(written(looked).text, KEEPS, worths, seconds=self.seconds)) if worths else None
        holding = frozenset() if ran is None else ran.found or frozenset()
        return [edit for key, edit in enumerate(edits) if key in holding]

    def _run(self, run: Run) -> Any:
        return self.pool.answer(self.pool.ask(self.setting, run))


def _guard(original: Tree, tree: Tree, at: frozenset[int], asking: Asking) -> Optional[dict[str, Any]]:
    """A guard of the script as it is, and the same of the smaller one; of that alone, whose values are few, it would
    not be known whether it keeps them.
    """
    before = written(original).text
    for edit, after in _distinct(before, original, iter(asking.kept(original, list(guards(original, at))))):
        if asking.trials.over:
            return None
        if not asking.is_good(edit.what, after):
            continue
        own = _lines(before, after)
        small = written(tree).text
        alike = asking.kept(tree, [one for one in guards(tree, at) if one.of == edit.of])
        for one, text in islice(_distinct(small, tree, iter(alike)), ALIKE):
            if asking.is_good(one.what, text):
                return {**_lines(small, text), "text": text, **_of_original(own)}
        return {**own, "text": after, **_of_original({"before": [], "after": []})}
    return None


def _repair(original: Tree, tree: Tree, of: Any, asking: Asking) -> Optional[dict[str, Any]]:
    before = written(tree).text
    for edit, text in islice(_distinct(before, tree, repairs(tree, *of)), MOST):
        if asking.trials.over:
            break
        if asking.is_good(edit.what, text):
            alike = [edit, *(other for other in repairs(original, *of) if other.of == edit.of)]
            return {**_lines(before, text), "text": text, **_first_good(original, alike, asking)}
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


def _first_good(original: Tree, edits: Sequence[Edit], asking: Asking) -> Mapping[str, Any]:
    """The first of these changes of the script as it is with which that is good as well."""
    before = written(original).text
    for edit, after in islice(_distinct(before, original, iter(edits)), ALIKE):
        if asking.is_good(edit.what, after):
            return _of_original(_lines(before, after))
    return _of_original({"before": [], "after": []})


def _of_original(lines: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {f"script_{name}": found for name, found in lines.items()}


def _lines(before: str, after: str) -> dict[str, list[str]]:
    """The lines that differ."""
    found: dict[str, list[str]] = {"before": [], "after": []}
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line.startswith(("- ", "+ ")):
            found["before" if line[0] == "-" else "after"].append(line[2:])
    return found
