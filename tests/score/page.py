"""The results as a page for people. Nothing in it is written by hand."""

from __future__ import annotations

import platform
import re
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .beside import ATTACHED
from .mark import OPEN, RIGHT, WRONG
from .session import Result

PACKAGES = ("torch", "transformers", "numpy")
WAYS = ("folder", "script", "backward", "loss", "generate", "vision", "audio", "inputs", "quantised", "compiled")

RULES = """\
**Origin exact**: the module and the operator of the table, and in a script the line. Several places are accepted only
where they are equally true; the table says where and why. Behind a backward operator the operator and the line of the
forward pass count.

An operator may have several names for the same arithmetic: a projection is `addmm`, `mm`, `bmm` or `linear`, by the
shape of its input and by its bias.

**Owner**: where numbers that all fit their dtype overflow together, checkpoint, caller and Transformers are accepted.
Where a weight itself lies at the edge of the dtype it is the checkpoint's, or the caller's, who asked for the dtype.
Numbers in the file or in its configuration are the checkpoint's. A script's own lines and data are the caller's.

Kit and host are driven in one process for each case, without ablations and without a reduction; a script's plain run is
a fork of that process. Owners that need a verified script (PyTorch's own) are left open here."""


@dataclass(frozen=True)
class Page:
    """What is reported."""

    results: tuple[Result, ...]
    tools: tuple[str, ...]
    seconds: float
    processor_seconds: float
    jobs: int

    @property
    def faults(self) -> list[Result]:
        return [one for one in self.results if not one.is_twin]

    @property
    def twins(self) -> list[Result]:
        return [one for one in self.results if one.is_twin]


def wrong(results: Iterable[Result]) -> list[Result]:
    """Those with a wrong claim."""
    return [one for one in results if one.mark is not None and one.mark.claims]


def silent(results: Iterable[Result]) -> list[Result]:
    """Those without a claim that is wrong, and without the whole truth."""
    return [
        one for one in results
        if one.mark is None or (not one.mark.claims and OPEN in (one.mark.verdict, one.mark.origin, one.mark.mechanism))
    ]  # fmt: skip


def summary(page: Page) -> str:
    """The numbers in a few lines."""
    faults, twins = page.faults, page.twins
    return "\n".join([
        f"{len(faults)} injected faults and {len(twins)} sound twins in {page.seconds:.0f} s, {page.jobs} at a time",
        *(f"{what}: {_counts(faults, what)}" for what in ("origin", "mechanism", "owner")),
        f"wrong claims: {len(wrong(faults))} of {len(faults)}",
        f"false alarms: {len(wrong(twins))} of {len(twins)} (not known: {_count(twins, 'verdict', OPEN)})",
        f"no answer at all: {sum(one.failed is not None for one in page.results)}",
        f"the table's truth disagrees with plain torch: {sum(bool(one.table) for one in page.results)}",
        *(f"{one.name}: {'; '.join(one.mark.claims)}" for one in wrong(page.results) if one.mark),
        *(f"{one.name}: {one.failed}" for one in page.results if one.failed),
        *(f"{one.name}: the table: {one.table}" for one in page.results if one.table),
    ])  # fmt: skip


def _count(results: Iterable[Result], what: str, value: str) -> int:
    return sum(one.mark is not None and getattr(one.mark, what) == value for one in results)


def _counts(results: list[Result], what: str) -> str:
    return ", ".join(f"{_count(results, what, value)} {value}" for value in (RIGHT, OPEN, WRONG))


def text(page: Page) -> str:
    """The page."""
    parts = [
        *_head(page), *_by(page, "way", WAYS), *_by(page, "fault", sorted({one.fault for one in page.results})),
        *_beside(page), *_listed(page), *_rules(),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _wrapped(words: str) -> str:
    """A paragraph, or an item of a list, in lines of at most 120 characters."""
    indent = "  " if words.startswith("- ") else ""
    return textwrap.fill(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A table; ``head`` has the names of its columns, one after the other with bars between them."""
    count = head.count("|") + 1
    lines = [f"| {head} |", "|---" * count + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _head(page: Page) -> Iterator[str]:
    faults, twins = page.faults, page.twins
    architectures = len({one.architecture for one in faults})
    bad = sum(bool(one.table) for one in page.results)
    right = _count(faults, "origin", RIGHT)
    yield "# The score"
    yield _wrapped(
        f"Written by `nox -s score`, never by hand. {len(faults)} injected faults in {architectures} architectures, "
        "each with a sound twin. What must be answered comes from what was changed and from plain arithmetic. An "
        "oracle of plain torch, which is not the code under test, agrees with "
        f"{len(faults) - bad} of {len(faults)} entries of the table. `tests/score/` has the table, the oracle and the "
        "rules."
    )
    yield _table("what | result", (
        ("origin exact (module, operator, line)", f"**{right} of {len(faults)}** ({_share(right, len(faults))})"),
        ("mechanism", _counts(faults, "mechanism")),
        ("owner", _counts(faults, "owner")),
        ("faults with a wrong claim", f"**{len(wrong(faults))}**"),
        ("false alarms on sound twins",
         f"**{len(wrong(twins))} of {len(twins)}**; not known: {_count(twins, 'verdict', OPEN)}"),
        ("no answer at all (died, or took too long)", sum(one.failed is not None for one in page.results)),
        ("seconds for one case", _seconds(page.results)),
        (
                "the whole",
                f"{page.seconds:.0f} s, {page.jobs} cases at a time; {page.processor_seconds:.0f} s of processor time",
            ),
    ))  # fmt: skip
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    yield _wrapped(
        f"{versions}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, {_processor()}, "
        "one thread for each process."
    )
    yield _wrapped(
        "A **wrong claim** is a confident answer that is wrong: a fault called good, another place, another mechanism, "
        'another owner. It is worse than "not known", and is counted apart. Leaving the owner open is never wrong.'
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _seconds(results: Iterable[Result]) -> str:
    took = sorted(one.answered.seconds for one in results if one.answered is not None)
    if not took:
        return "-"
    most = took[len(took) * 9 // 10]
    return f"median {statistics.median(took):.1f}, nine of ten within {most:.1f}, longest {took[-1]:.0f}"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as opened:
            return next(line.partition(":")[2].strip() for line in opened if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "an unnamed processor"


def _by(page: Page, what: str, values: Iterable[str]) -> Iterator[str]:
    """One row for each value of an attribute."""
    yield f"## By {'way in' if what == 'way' else 'what was injected'}"
    rows = []
    for value in values:
        of = [one for one in page.results if getattr(one, what) == value]
        faults, twins = [one for one in of if not one.is_twin], [one for one in of if one.is_twin]
        if not of:
            continue
        took = [one.answered.seconds for one in of if one.answered is not None]
        rows.append((
            value.replace("_", " "), len(faults), _count(faults, "origin", RIGHT),
            _count(faults, "origin", OPEN) + sum(one.mark is None for one in faults), _count(faults, "origin", WRONG),
            _count(faults, "mechanism", WRONG), _count(faults, "owner", WRONG), len(twins), len(wrong(twins)),
            f"{statistics.median(took):.1f}" if took else "-",
        ))  # fmt: skip
    columns = (
        "faults | origin exact | not known | wrong | mechanism wrong | owner wrong | twins | false alarms | seconds"
    )
    yield _table(f"{'way' if what == 'way' else 'fault'} | {columns}", rows)


def _beside(page: Page) -> Iterator[str]:
    """The other tools."""
    faults, twins = page.faults, page.twins
    yield "## What else can be installed"
    yield _wrapped(
        "The same cases, except compiled code and code that comes with a model. None of these names an operator, a "
        "mechanism and an owner, so only the module counts for them (the line, for `detect_anomaly`, which sees NaN in "
        "a backward pass). `mindstudio-probe`'s own overflow check needs an NPU; of its dump of statistics the first "
        "call with sound inputs and a bad output is taken, and it is asked about the seeded tenth alone, for it takes "
        "seconds to import. `DebugUnderflowOverflow` raises at the first NaN or Inf that it meets."
    )
    rows: list[tuple[object, ...]] = []
    for tool in ATTACHED:
        if tool not in page.tools:
            rows.append((tool, "not installed here", "not run", "", "", ""))
            continue
        counts = Counter(one.told[tool] for one in faults if tool in one.told)
        alarms = sum(one.told.get(tool) == "wrong" for one in twins)
        asked = sum(tool in one.told for one in twins)
        rows.append(
            (tool, _version(tool), *(counts[key] for key in ("right", "wrong", "nothing")), f"{alarms} of {asked}")
        )
    yield _table("tool | version | place right | wrong | says nothing of it | alarms on sound twins", rows)


def _version(tool: str) -> str:
    package = {"mindstudio-probe": tool, "DebugUnderflowOverflow": "transformers"}.get(tool, "torch")
    return f"{package} {metadata.version(package)}"


def _listed(page: Page) -> Iterator[str]:
    """Every answer that is not wholly right, by name."""
    yield "## Wrong claims"
    yield _lines(wrong(page.results), lambda one: "; ".join(one.mark.claims) if one.mark else "")
    yield "## Not known"
    yield _lines(silent(page.results), _why)
    yield "## Where plain torch disagrees with the table"
    yield _lines([one for one in page.results if one.table], lambda one: str(one.table))


def _lines(results: list[Result], words: Callable[[Result], str]) -> str:
    lines = []
    for one in results:
        said = re.sub(r"\s+", " ", words(one)).replace("|", "/").replace("<", "&lt;").replace("`", "")
        lines.append(_wrapped(f"- `{one.name}`: {said[:400]}"))
    return "\n".join(lines) or "None."


def _why(one: Result) -> str:
    if one.answered is None:
        return str(one.failed)
    steps = [f"{step} {verdict}: {reason}" for step, verdict, reason in one.answered.steps if verdict == "skip"]
    return "; ".join(steps) or one.answered.reason


def _rules() -> Iterator[str]:
    yield "## How it is marked"
    yield "\n".join(_wrapped(f"- {' '.join(rule.split())}") for rule in RULES.split("\n\n"))
