"""What was found in a file, in words and as JSON; and the tally that the reader of a text fills."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from repro.core.encoding import Record, replace, to_json
from repro.core.records import Outcome, Verdict
from repro.core.sentences import many, visible

SHOWN = 10
"""Places of one file that a terminal gets; ``--json`` has all."""
LONGEST_PLACE = 200
"""Characters of a place: a key may be a whole prompt."""
MOST_PLACES = 10_000
"""Places that are told apart in one file. Keys made from data (a prompt, an id) would fill the memory; the numbers
below further ones are counted together."""
ELSEWHERE = "(further keys)"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many numbers are NaN, +inf and -inf."""

    nan: int = 0
    posinf: int = 0
    neginf: int = 0

    @property
    def bad(self) -> int:
        """How many there are of them."""
        return self.nan + self.posinf + self.neginf


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


class Finding(Record, frozen=True, kw_only=True):
    """One key, column or tensor that holds a NaN or Inf.

    ``count`` is of all numbers there, ``as_text`` of those bad ones that are words in a string, and ``first`` says
    where the first bad one is: an index, a path or a line.
    """

    place: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    count: int = 0
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    as_text: int = 0
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
    def share(self) -> float:
        """Of the numbers there, the part that is bad."""
        return self.bad / self.count

    def more(self, counts: Counts, as_text: int = 0) -> "Finding":
        """The finding with further bad numbers at its place."""
        nan, posinf, neginf = self.nan + counts.nan, self.posinf + counts.posinf, self.neginf + counts.neginf
        return replace(self, nan=nan, posinf=posinf, neginf=neginf, as_text=self.as_text + as_text)

    def sentence(self) -> str:
        """``hidden[] (float16): 3 NaN, 1 -inf of 640 (0.63 %), first at [0, 12]``."""
        counts = (("NaN", self.nan), ("+inf", self.posinf), ("-inf", self.neginf))
        named = ", ".join(f"{count:,} {word}" for word, count in counts if count)
        dtype = f" ({self.dtype})" if self.dtype else ""
        text = f", {self.as_text:,} as text" if self.as_text else ""
        place = clean(self.place or "the value itself")
        return f"{place}{dtype}: {named} of {self.count:,} ({self._percent()}){text}, first at {clean(self.first)}"

    def _percent(self) -> str:
        """100 % only where all are bad, and never 0 %."""
        percent = 100 * self.share
        if percent < 0.01:
            return "below 0.01 %"
        if self.bad < self.count:
            percent = min(percent, 99.99)
        return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


@dataclass(frozen=True, slots=True)
class Looked:
    """One file: what it holds, and which parts of it could not be read.

    ``passed_over`` counts words for NaN and Inf among other texts, which are taken for texts.
    """

    path: str
    kind: str
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

    @property
    def verdict(self) -> Verdict:
        """Nothing found beside a part that was not read is "could not tell"."""
        bad = sum(self.counts)
        if bad:
            are = "is" if bad == 1 else "are"
            return Verdict(Outcome.BAD, f"{bad:,} of {many(self.numbers, 'number')} {are} NaN or Inf")
        if self.unread:
            more = f" (and {len(self.unread) - 1:,} more)" if len(self.unread) > 1 else ""
            others = f"; none found in {many(self.numbers, 'other number')}" if self.numbers else ""
            return Verdict(Outcome.SKIP, f"{self.unread[0]}{more}{others}")
        said = f"none of {many(self.numbers, 'number')} is NaN or Inf" if self.numbers else "there is no number in it"
        aside = f' ({self.passed_over:,} words such as "nan" stand among other texts)' if self.passed_over else ""
        return Verdict(Outcome.GOOD, said + aside)

    def lines(self) -> Iterator[str]:
        """For a terminal: one line for the file, one for each place in it that is bad, one for each part not read."""
        verdict = self.verdict
        yield f"{verdict.outcome.value:4} {clean(self.path)}: {clean(verdict.reason)}"
        for finding in self.findings[:SHOWN]:
            yield f"       {finding.sentence()}"
        if len(self.findings) > SHOWN:
            yield f"       and {len(self.findings) - SHOWN:,} further places (--json has all)"
        if verdict.outcome is Outcome.BAD:
            for reason in self.unread[:SHOWN]:
                yield f"       not read: {clean(reason)}"

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        nan, posinf, neginf = self.counts
        return {
            "path": self.path,
            "kind": self.kind,
            "verdict": self.verdict.outcome.value,
            "reason": self.verdict.reason,
            "bytes": self.bytes,
            "numbers": self.numbers,
            "nan": nan,
            "posinf": posinf,
            "neginf": neginf,
            "places": [{**to_json(finding), "share": finding.share} for finding in self.findings],
            "unread": self.unread,
            "passed_over": self.passed_over,
        }


def clean(text: str) -> str:
    """Names out of a file on one line, without what would steer the terminal."""
    plain = visible(text)
    return plain if len(plain) <= LONGEST_PLACE else f"{plain[:LONGEST_PLACE]}..."


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
        self._met: dict[tuple[str, bool], int] = {}

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
        self._met.setdefault((place, False), len(self._met))
        self._hits[place] = (self._hits.get(place) or Finding(place=place, dtype=dtype, first=first)).more(counts)

    def word(self, place: str, first: str, counts: Counts, *, quoted: bool = True) -> None:
        """A text that is a word for NaN or Inf; not ``quoted`` where all numbers of the file are texts."""
        place = self._known(place)
        self._met.setdefault((place, True), len(self._met))
        kept = self._words.get(place) or Finding(place=place, first=first)
        self._words[place] = kept.more(counts, counts.bad if quoted else 0)

    def _known(self, place: str) -> str:
        if place not in self._places:
            if len(self._places) >= MOST_PLACES:
                return ELSEWHERE
            self._places.add(place)
        return place

    def looked(self, path: str, kind: str, size: int) -> Looked:
        """The file as a record."""
        passed_over = 0
        order = {place: met for (place, word), met in self._met.items() if not word}
        for place, found in self._words.items():
            if place in self._texts and (place not in self._numbers or place == ELSEWHERE):
                passed_over += found.bad
                continue
            self.numbers(place, found.bad)
            met, kept = self._met[place, True], self._hits.get(place)
            if kept is None:
                self._hits[place] = found
            else:  # whichever of the two stands first in the file says where
                first = found.first if met < order[place] else kept.first
                self._hits[place] = replace(kept.more(found.counts, found.as_text), first=first)
            order[place] = min(met, order.get(place, met))
        in_file = sorted(self._hits, key=order.__getitem__)
        findings = tuple(replace(self._hits[place], count=self._numbers[place]) for place in in_file)
        return Looked(path, kind, size, sum(self._numbers.values()), findings, tuple(self.unread), passed_over)
