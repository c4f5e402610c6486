"""Does a script end the same way twice? It is run again from other random numbers, as a new process would have them.

Copies of this process share the state of its generators, so that they all end alike. A script that sets no seed has
another state each time that a user runs it.
"""

import contextlib
import dataclasses
import hashlib
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .child import Around
from .run import Ran
from .runs import Runs

SEEDED, DREW = "script.chance:seeded", "script.chance:drew"
SEEDS = range(1, 6)
SECONDS = 120.0  # all these runs together
LONG = 60.0  # a script that is good and takes so long is not run again for a note


@dataclass(frozen=True)
class Chance:
    """What further runs of a script say of chance.

    unseeded: the generators that it draws from and sets no seed of. asked: the further runs by their seeds; the plain
    run is one of them, with none, where another is looked at in its place. other: the first that did not end as the one
    that is looked at did; None where all did. seed: the first under which one did.
    """

    unseeded: tuple[str, ...] = ()
    asked: tuple[tuple[Optional[int], Ran], ...] = ()
    otherwise: int = 0
    other: Optional[Ran] = None
    seed: Optional[int] = None

    @property
    def words(self) -> str:
        """One sentence on a script that does not end the same way twice."""
        assert self.other is not None  # else there is nothing to say
        ended = f"{self.otherwise} of {len(self.asked)} further runs ended otherwise"
        said = ", and ".join(filter(None, (self._drew, ended)))
        return f"the script does not end the same way twice: {said} ({self.other.verdict}: {self.other.reason})"

    @property
    def turned(self) -> bool:
        """Whether the plain run was good, and another is looked at in its place."""
        return any(seed is None for seed, _ in self.asked)

    @property
    def note(self) -> Optional[str]:
        """What is to be said of a script that came out good; None where nothing is."""
        if self.other is None:
            return f"{self._drew}, so another run may end otherwise" if self._drew else None
        ended = f"another run ended otherwise: {self.other.verdict}: {self.other.reason}"
        return ", and ".join(filter(None, (self._drew, ended)))

    @property
    def _drew(self) -> str:
        return f"it draws random numbers without a seed ({', '.join(self.unseeded)})" if self.unseeded else ""

    def payload(self) -> dict[str, Any]:
        other = None if self.other is None else f"{self.other.verdict}: {self.other.reason}"
        return {
            "unseeded": list(self.unseeded), "further_runs": len(self.asked), "otherwise": self.otherwise,
            "other_end": other,
        }  # fmt: skip

    def same(self, runs: Runs, *settings: str) -> bool:
        """Whether a good end with these settings is more than luck: with no seed set, it is good under each of them."""
        if not self.unseeded:
            return True
        seeds = [seed for seed, _ in self.asked if seed is not None]
        return all(under(runs, seed).run(settings).verdict == "good" for seed in seeds)


def under(runs: Runs, seed: int) -> Runs:
    """The same script, with all its random numbers from this seed where it sets none."""
    return dataclasses.replace(runs, around=Around((SEEDED, seed)), changed={})


def chance_of(runs: Runs) -> Chance:
    """How the script ends from other random numbers: once, again where it moves a generator, and under every seed where
    it sets none itself. Of a script that is good, no more than two runs are asked, unless one of them was bad.
    """
    begin = time.monotonic()
    asked: list[tuple[int, Ran]] = []
    drawn: list[Mapping[str, Any]] = []
    unseeded: tuple[str, ...] = ()
    for number, seed in enumerate(SEEDS):
        ran = runs.run(watch=DREW, given=seed)
        asked.append((seed, ran))
        drawn.append(ran.found or {})
        if number == 0 and not drawn[0]:
            break
        if number == 1:
            unseeded = tuple(name for name, state in drawn[1].items() if drawn[0].get(name, state) != state)
        late = time.monotonic() - begin > SECONDS
        sound = runs.plain.verdict == "good" and all(ran.verdict != "bad" for _, ran in asked)
        if late or (number > 0 and (not unseeded or sound)):
            break
    return _told(unseeded, tuple(asked), runs.plain)


def _told(unseeded: tuple[str, ...], asked: tuple[tuple[Optional[int], Ran], ...], looked_at: Ran) -> Chance:
    ends = [(seed, ran, _alike(looked_at, ran)) for seed, ran in asked]
    other = next((ran for _, ran, alike in ends if not alike), None)
    held = next((seed for seed, _, alike in ends if alike and seed is not None), None)
    return Chance(unseeded, asked, sum(not alike for *_, alike in ends), other, held)


def failing(runs: Runs, chance: Chance) -> Optional[tuple[Runs, Chance]]:
    """The same from a further run that did not end well, for a script whose plain run did; None where all did."""
    at = next((seed for verdict in ("bad", "skip") for seed, ran in chance.asked if ran.verdict == verdict), None)
    if at is None:
        return None
    looked_at = dict(chance.asked)[at]
    others = ((None, runs.plain), *((seed, ran) for seed, ran in chance.asked if seed != at))
    turned = dataclasses.replace(under(runs, at), plain=looked_at)
    return turned, dataclasses.replace(_told(chance.unseeded, others, looked_at), seed=at)


def decided_by_draws(runs: Runs, chance: Chance) -> bool:
    """Whether the seed of these runs makes the script fail, and another does not: no file of a first run does."""
    return (
        bool(chance.unseeded)
        and any(seed is not None and ran.verdict == "good" for seed, ran in chance.asked)
        and runs.same(runs.run())
    )


def _alike(one: Ran, two: Ran) -> bool:
    return one.verdict == two.verdict and (one.verdict == "good" or one.key == two.key)


def seeded(seed: int) -> tuple[Any, Any]:
    """(context around the script, function that gives nothing)."""
    return _seeded(seed), lambda: None


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
    yield


def drew(seed: int) -> tuple[Any, Any]:
    """(context around the script, function that gives the state of each generator that the script has moved)."""
    before: dict[str, str] = {}

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with _seeded(seed):
            before.update(_states())
            yield

    return around(), lambda: {name: state for name, state in _states().items() if before.get(name, state) != state}


def _states() -> dict[str, str]:
    import torch

    found = {"torch": bytes(torch.get_rng_state().tolist()), "random": repr(random.getstate()).encode()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        found["numpy.random"] = keys.tobytes() + repr((kind, rest)).encode()
    return {name: hashlib.sha256(state).hexdigest() for name, state in found.items()}
