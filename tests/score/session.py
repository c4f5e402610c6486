"""All cases, or a seeded tenth, through the oracle, the tool, and what stands beside it; one result for each."""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch._dynamo  # the first operator under a dispatch mode imports it, which takes a second in each process
import transformers
from support import pool

from . import beside, custom, drive, folders, programs, quantised
from .architectures import architectures
from .mark import Mark, mark
from .records import Case

SEED = 20261128
"""Of the tenth."""
SOUND = "/sound"


@dataclass(frozen=True)
class Result:
    """How one case came out.

    ``told``: what the other tools' answers are worth, by tool. ``table``: what plain torch has against the truth that
    the table gives. ``failed``: why there is no answer at all.
    """

    name: str
    way: str
    fault: str
    architecture: str
    is_twin: bool
    answered: drive.Answered | None = None
    mark: Mark | None = None
    table: str | None = None
    told: dict[str, str] = field(default_factory=dict)
    failed: str | None = None


def every() -> list[Case]:
    """All cases, a fault and then its twin."""
    return [*folders.cases(), *quantised.cases(), *custom.cases(), *programs.cases()]


def tenth(cases: list[Case]) -> list[Case]:
    """Every tenth fault or so, drawn by a fixed seed, with its twin. Compiled code is left out: it takes seconds."""
    names = sorted(case.name for case in cases if case.truth is not None and case.way != "compiled")
    drawn = set(random.Random(SEED).sample(names, len(names) // 10))
    return [case for case in cases if case.name.removesuffix(SOUND) in drawn]


def run(cases: list[Case], jobs: int, tools: list[str]) -> Iterator[Result]:
    """The results as they come."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        home = Path(folder)
        for case, found in pool.each(cases, worker(home, tools), jobs, home / "log"):
            if isinstance(found, Result):
                yield found
            else:
                yield Result(case.name, case.way, case.fault, case.architecture, case.truth is None, failed=found)


def prepare() -> None:
    """Import what the cases use, and compute nothing: each case is a fork of this process."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for architecture in architectures().values():
        if architecture.model:
            getattr(transformers, architecture.model)


def worker(home: Path, tools: list[str]) -> Callable[[Case], Result]:
    """What is done with one case, in a process of its own."""
    drawn = {case.name for case in tenth(every())}

    def work(case: Case) -> Result:
        with tempfile.TemporaryDirectory(dir=home) as folder:
            return within(case, Path(folder))

    def within(case: Case, folder: Path) -> Result:
        path = case.write(folder)
        # A script before anything is computed here, for it is run in forks of this process.
        answered = drive.run(case, path, home / "cache")
        truth = None if case.truth is None else case.truth()
        asked = [tool for tool in tools if tool not in beside.SLOW or case.name.removesuffix(SOUND) in drawn]
        told = {}
        if asked and case.way != "compiled" and not case.trusted:
            told = beside.compare(path if case.is_script else programs.loading(case, folder), truth, asked)
        return Result(
            case.name, case.way, case.fault, case.architecture, truth is None, answered, mark(answered, truth),
            None if truth is None else case.check(), told,
        )  # fmt: skip

    return work


class Clock:
    """Seconds since it was made, and those that the processors spent on the cases."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    @property
    def processor_seconds(self) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
