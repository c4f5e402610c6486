"""What was found in a file, and the tally that its reader fills."""

import dataclasses
import math
from dataclasses import dataclass

from repro.core.records import Outcome, Verdict
from repro.jobs.scan.floats import Counts

MOST_PLACES = 10_000
"""Places that are told apart in one file. Keys made from data (a prompt, an id) would fill the memory; the numbers
below further ones are counted together."""
ELSEWHERE = "(further keys)"
NAN, POSINF, NEGINF = Counts(nan=1), Counts(posinf=1), Counts(neginf=1)
WORDS = {
    **dict.fromkeys(("nan", "+nan", "-nan", "1.#qnan", "1.#ind", "-1.#ind", "1.#snan"), NAN),
    **dict.fromkeys(("inf", "+inf", "infinity", "+infinity", "1.#inf"), POSINF),
    **dict.fromkeys(("-inf", "-infinity", "-1.#inf"), NEGINF),
}
"""Spellings, in lower case: those of IEEE 754-2019 (section 5.12.1), with a sign, and of the C library of Windows
before its Universal CRT. An empty field, "null", "None" and "NA" say that a value is missing: something else."""
LONGEST_TEXT = 64
"""Characters of a text that is compared with the spellings, blanks around it included."""


def spelling(text: str) -> Counts | None:
    """What a text is a word for, blanks around it left aside; None where it is no spelling of NaN or Inf."""
    return WORDS.get(text.strip().lower()) if len(text) <= LONGEST_TEXT else None


def of_number(value: float) -> Counts | None:
    """What a number is; None where it is finite."""
    if math.isfinite(value):
        return None
    return NAN if math.isnan(value) else POSINF if value > 0 else NEGINF


class Unreadable(Exception):
    """A file, or the rest of it, cannot be read. The message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One key, column or tensor that holds a NaN or Inf.

    ``count`` is of all numbers there, ``as_text`` of those bad ones that are words in a string, and ``first`` says
    where the first bad one is: an index, a path or a line.
    """

    place: str
    dtype: str | None
    count: int
    nan: int
    posinf: int
    neginf: int
    as_text: int
    first: str

    @property
    def bad(self) -> int:
        """How many numbers are NaN or Inf."""
        return self.nan + self.posinf + self.neginf

    @property
    def counts(self) -> Counts:
        """The bad numbers by kind."""
        return Counts(self.nan, self.posinf, self.neginf)

    @property
    def none(self) -> "Finding":
        """The same place with nothing counted yet."""
        return Finding(self.place, self.dtype, 0, 0, 0, 0, 0, self.first)

    @property
    def share(self) -> float:
        """Of the numbers there, the part that is bad."""
        return self.bad / self.count


@dataclass(frozen=True, slots=True)
class Looked:
    """One file: what it holds, and which parts of it could not be read.

    ``passed_over`` counts words for NaN and Inf among other texts, which are taken for texts.
    """

    path: str
    kind: str
    verdict: Verdict
    bytes: int
    numbers: int
    findings: tuple[Finding, ...] = ()
    unread: tuple[str, ...] = ()
    passed_over: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """NaN, +inf and -inf in the whole file."""
        found = self.findings
        return sum(one.nan for one in found), sum(one.posinf for one in found), sum(one.neginf for one in found)


class Tally:
    """Counts by place, while a file is read.

    A text such as "nan" is a number where its place holds no other texts, or also numbers. Elsewhere, as in a
    vocabulary, it is a word.
    """

    def __init__(self) -> None:
        self.unread: list[str] = []
        self._places: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._hits: dict[str, Finding] = {}
        self._words: dict[str, Finding] = {}
        self._texts: set[str] = set()

    def numbers(self, place: str, count: int) -> None:
        """``count`` more numbers at ``place``, bad ones among them."""
        place = self._known(place)
        self._numbers[place] = self._numbers.get(place, 0) + count

    def text(self, place: str) -> None:
        """A text that is no word for a number."""
        self._texts.add(self._known(place))

    def hit(self, place: str, first: str, counts: Counts, dtype: str | None = None) -> None:
        """Bad numbers at ``place``, which ``numbers`` was told too. The first call says ``first`` and ``dtype``."""
        place = self._known(place)
        self._hits[place] = _more(self._hits.get(place) or Finding(place, dtype, 0, 0, 0, 0, 0, first), counts)

    def word(self, place: str, first: str, counts: Counts, *, quoted: bool = True) -> None:
        """A text that is a word for NaN or Inf; not ``quoted`` where all numbers of the file are texts."""
        place = self._known(place)
        kept = self._words.get(place) or Finding(place, None, 0, 0, 0, 0, 0, first)
        self._words[place] = _more(kept, counts, counts.bad if quoted else 0)

    def add(self, other: "Tally") -> None:
        """What another tally has of numbers."""
        for place, count in other._numbers.items():
            self.numbers(place, count)
        for place, found in other._hits.items():
            self.hit(place, found.first, found.counts, found.dtype)

    @property
    def clean(self) -> bool:
        """Whether nothing bad was found so far."""
        return not self._hits and not self._words

    def _known(self, place: str) -> str:
        if place not in self._places:
            if len(self._places) >= MOST_PLACES:
                return ELSEWHERE
            self._places.add(place)
        return place

    def looked(self, path: str, kind: str, size: int) -> Looked:
        """The file as a record. Nothing found beside a part that was not read is "could not tell"."""
        passed_over = 0
        for place, found in self._words.items():
            if place not in self._texts or (place in self._numbers and place != ELSEWHERE):
                self.numbers(place, found.bad)
                self._hits[place] = _more(self._hits.get(place) or found.none, found.counts, found.as_text)
            else:
                passed_over += found.bad
        findings = tuple(dataclasses.replace(found, count=self._numbers[place]) for place, found in self._hits.items())
        numbers, bad = sum(self._numbers.values()), sum(finding.bad for finding in findings)
        if findings:
            verdict = Verdict(Outcome.BAD, f"{bad:,} of {numbers:,} numbers {'is' if bad == 1 else 'are'} NaN or Inf")
        elif self.unread:
            more = f" (and {len(self.unread) - 1:,} more)" if len(self.unread) > 1 else ""
            others = f"; none found in {numbers:,} other numbers" if numbers else ""
            verdict = Verdict(Outcome.SKIP, f"{self.unread[0]}{more}{others}")
        else:
            said = f"none of {numbers:,} numbers is NaN or Inf" if numbers else "there is no number in it"
            aside = f' ({passed_over:,} words such as "nan" stand among other texts)' if passed_over else ""
            verdict = Verdict(Outcome.GOOD, said + aside)
        return Looked(path, kind, verdict, size, numbers, findings, tuple(self.unread), passed_over)


def _more(found: Finding, counts: Counts, as_text: int = 0) -> Finding:
    return dataclasses.replace(
        found,
        nan=found.nan + counts.nan,
        posinf=found.posinf + counts.posinf,
        neginf=found.neginf + counts.neginf,
        as_text=found.as_text + as_text,
    )
