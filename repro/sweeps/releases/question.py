"""What is asked, what a run and a release answer, what comes out; and the one interface to everything outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name

from repro.core.records import Verdict

PARTNERS = {"torch": "transformers", "transformers": "torch"}
"""The package whose releases must go together with those of another."""
DECLARES = "transformers"
"""The one of the two that says which releases of the other it takes: torch declares nothing on transformers."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        package: The package whose releases are searched.
        good: A release that is said to be good; may be newer than ``bad``.
        bad: A release that is said to be bad.
        python: The cell's Python, such as "3.11"; requirements are read for it.
        pins: Other packages held at exact versions. Where the partner is not among them, it is chosen.
        runs: How many times each release is asked at most.
        bad_from: How many bad runs make a release bad.
        walk_all: Whether every release of the range is asked, for a fault that comes and goes.
        alone: Whether the partner is not wanted at all, as for a script that does not import it.
    """

    package: str
    good: str
    bad: str
    python: str
    pins: tuple[tuple[str, str], ...] = ()
    runs: int = 1
    bad_from: int = 1
    walk_all: bool = False
    alone: bool = False

    @property
    def held(self) -> dict[str, str]:
        """The pins, by normalized name."""
        return {canonicalize_name(name): version for name, version in self.pins}

    @property
    def partner(self) -> str | None:
        """The package that must go together with the one searched and that no pin holds; None where there is none."""
        partner = PARTNERS.get(self.package)
        return None if self.alone or partner in self.held else partner


@dataclass(frozen=True, slots=True)
class Trial:
    """One run in one environment.

    ``kind`` says what kind of fault a bad run shows. ``folder`` is where the run is recorded; None means that nothing
    ran (the environment did not come into being), so that asking again would give the same.
    """

    verdict: Verdict
    command: str
    kind: str | None
    folder: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """One release with all of its runs. Without any, the release was skipped for what is declared."""

    version: str
    pins: Mapping[str, str]
    verdict: Verdict
    kind: str | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def command(self) -> str | None:
        """The command of the run that decided: the first with this verdict, else the last; None where none ran."""
        same = [trial for trial in self.trials if trial.verdict.outcome is self.verdict.outcome]
        return (same or self.trials)[0 if same else -1].command if self.trials else None

    @property
    def votes(self) -> str:
        """How the runs voted, such as "bad in 2 of 5"."""
        counts = [(word, sum(t.verdict.outcome.value == word for t in self.trials)) for word in ("bad", "good", "skip")]
        said = ", ".join(f"{word} in {count}" for word, count in counts if count) or "bad in 0"
        return f"{said} of {len(self.trials)}"


@dataclass(frozen=True, slots=True)
class Change:
    """The two releases between which the answer changes; both were asked.

    ``direction`` is "regression" where the newer one is bad, "fix" where it is good. ``skipped`` lie between the two,
    oldest first. ``crossed`` holds, where the two differ in the partner as well, each with the partner of the other.
    ``moved`` is what the fault follows: the package, the partner, "both needed", "either alone" or "could not tell",
    with ``why`` as its reason. What a package brings along with it moves with it.
    """

    direction: str
    last_good: Probe
    first_bad: Probe
    skipped: tuple[Probe, ...]
    moved: str
    why: str
    crossed: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found.

    ``verdict`` is bad where a boundary was found, good where every release that was asked is good, and skip where it
    could not be told. The fields from ``direction`` to ``moved`` are those of the oldest boundary, None without one.
    ``probes`` are in order of asking, ``pairs`` are the releases of the range with the partner of each, and
    ``environments`` says how many different sets of pins were to be built. ``notes`` are sentences that a reader of the
    verdict should see as well.
    """

    verdict: Verdict
    package: str
    direction: str | None
    last_good: str | None
    first_bad: str | None
    skipped: tuple[str, ...]
    moved: str | None
    boundaries: tuple[Change, ...]
    probes: tuple[Probe, ...]
    pairs: tuple[tuple[str, str | None], ...]
    releases: int
    environments: int
    notes: tuple[str, ...]


class Laboratory(Protocol):
    """Everything outside."""

    def releases(self, package: str) -> tuple[str, ...]:
        """The releases for the cell's Python, oldest first. Raises FetchError."""

    def requirements(self, package: str, version: str) -> tuple[str, ...]:
        """The Requires-Dist lines of a release. Raises FetchError."""

    def probe(self, pins: Mapping[str, str], label: str) -> Trial:
        """Builds the environment of these pins and puts the question once; ``label`` names the run, fit for a folder.

        Skip where the environment does not resolve, install or import.
        """


Say = Callable[[str], None]
