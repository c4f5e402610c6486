"""Many attacks, some at a time, each in a process and a folder of its own."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import forked, pool

from . import makers
from .attack import Attack
from .drive import environment, hold

GRACE = 30.0
"""What an attack's process may take beyond the attack itself, to make its files and to look at what came out."""


@dataclass(frozen=True)
class Result:
    """How one attack came out. ``broken``: what did not hold. ``cpu_seconds``: of all of its processes."""

    attack: Attack
    broken: tuple[str, ...]
    seconds: float
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class _Turn:
    """An attack with the time that its process may take."""

    attack: Attack

    @property
    def name(self) -> str:
        return self.attack.name

    @property
    def seconds(self) -> float:
        return self.attack.seconds + GRACE


def run(attacks: Sequence[Attack], folder: Path, jobs: int) -> Iterator[Result]:
    """The results as they come.

    Args:
        attacks: Which.
        folder: An empty one, in which each makes its own.
        jobs: How many at a time.
    """
    # One cache for all, as one user has it; and nothing of this user's.
    os.environ.update(REPRO_CACHE_DIR=str(folder / "cache"), HF_HOME=str(folder / "hub"), HF_HUB_OFFLINE="1")
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    forked.start(environment(folder))
    makers.prepare_models(folder / "models", {name for attack in attacks for name in attack.models.values()})
    deeds, _ = makers.deeds(), makers.files()
    # What the product imports when it is first asked is imported here, once: every attack is forked from this process.
    (folder / "first").mkdir()
    list(deeds["inject"](folder / "first", text=["no secret"]))

    def work(turn: _Turn) -> tuple[list[str], float, float]:
        place, begin = folder / f"{os.getpid()}", time.monotonic()
        place.mkdir()
        try:
            return hold(turn.attack, place), time.monotonic() - begin, _processors()
        finally:
            shutil.rmtree(place, ignore_errors=True)

    # The longest first, so that none of them is left alone at the end.
    turns = sorted((_Turn(attack) for attack in attacks), key=lambda turn: -turn.seconds)
    for turn, found in pool.each(turns, work, jobs, folder / "log"):
        if isinstance(found, str):
            yield Result(turn.attack, (found,), turn.seconds)
        else:
            yield Result(turn.attack, tuple(found[0]), *found[1:])


def _processors() -> float:
    """Seconds that this process and those that it has started have taken of the processors."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) + forked.usage.seconds
