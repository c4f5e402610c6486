"""Results as plain text, .txt and .log, in constant memory: rows of numbers, lists, printed tensors, names with values.

What a line of words says of NaN is told by the log patterns; a word that they do not know is no number, and no reason
to call the file good either.
"""

import io
import re
from pathlib import Path

from repro.jobs.logs.loops.columns import Columns
from repro.jobs.logs.loops.names import names_on, window, without_harmless
from repro.jobs.logs.patterns import patterns
from repro.jobs.logs.scanning import NONFINITE_WORD
from repro.jobs.scan.findings import NAN, POSINF, Tally, Unreadable, of_number, spelling
from repro.jobs.scan.text_files import encoding_of, open_bytes

LONGEST_LINE = 1 << 20
"""Characters; a longer line is read in pieces."""
VALUES = "values"
"""The place of numbers that have no name."""
MOST_UNREAD = 3
"""Lines that speak of NaN in no known form and are named; the others are counted."""
STRUCTURE = re.compile(
    r"\b(?:tensor|array|np\.float\d+|dtype=[\w.]+|device=['\"]\w+(?::\d+)?['\"]|grad_fn=<\w+>|requires_grad=\w+"
    r"|size=\([\d, ]*\))|[][(){},;|\s]+|\.\.\."
)
"""What stands around the numbers of a list or of a printed tensor."""
LIST = re.compile(
    r"(?:(?P<name>[A-Za-z_][\w./]*)\s*[=:]\s*)?(?:(?:tensor|array)\s*)?\(?"
    r"\[(?P<rest>[^A-Za-z]*(?:(?:nan|inf|NaN|Infinity)[^A-Za-z]*)*)"
)
"""A list of numbers, and the name in front of it."""
NAMED = re.compile(
    r"(?P<name>[A-Za-z_][\w./]*)['\"]?\s*[=:]\s*['\"]?[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])"
)
"""A name and its number."""
PATTERNS = tuple(pattern for pattern in patterns() if pattern.role in ("harmless", "quantity"))


def read_plain_text(path: Path, tally: Tally) -> None:
    """The values of a text, line by line.

    Raises:
        Unreadable: it is no text.
    """
    reader = _Reader(tally)
    with (
        open_bytes(path) as raw,
        io.TextIOWrapper(raw, encoding=encoding_of(raw.peek(4)), errors="replace", newline="\n") as file,
    ):
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
            if "\0" in line:
                raise Unreadable(f"line {number:,} has a NUL: it is no text")
            reader.line(number, line.rstrip("\r\n"))
    reader.finish()


class _Reader:
    """The state of one reading: what the numbers of a row belong to."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._columns = Columns()
        self._list = VALUES
        self._unread = 0

    def line(self, number: int, text: str) -> None:
        """Take one line."""
        words = STRUCTURE.sub(" ", text).split()
        if words and all(_is_value(word) for word in words):
            row = self._columns.named(text)
            place = self._list if text[:1].isspace() and "[" in text else VALUES
            self._values(number, [*row.items()] if row else [(place, word) for word in words])
            return
        if not self._lists(number, text):
            self._words(number, text)
        self._columns.names_of(text)

    def finish(self) -> None:
        """Say how much was not understood."""
        if self._unread > MOST_UNREAD:
            self._tally.unread.append(f"{self._unread - MOST_UNREAD:,} further lines about NaN or Inf in no known form")

    def _values(self, number: int, values: list[tuple[str, str]]) -> None:
        for place, word in values:
            bad = spelling(word)
            if bad is None and not word:
                continue
            bad = bad or of_number(float(word))
            self._tally.numbers(place, 1)
            if bad is not None and (spelling(word) is not None or not word.lstrip("+-").isdigit()):
                self._tally.hit(place, f"line {number}", bad)

    def _lists(self, number: int, text: str) -> bool:
        """Take the lists of numbers on a line that has words too."""
        found = False
        for match in LIST.finditer(text):
            words = STRUCTURE.sub(" ", match["rest"]).split()
            if words and all(_is_value(word) for word in words):
                self._list = match["name"] or VALUES
                self._values(number, [(self._list, word) for word in words])
                found = True
        return found

    def _words(self, number: int, text: str) -> None:
        """Take the names on a line that have a value."""
        for match in NAMED.finditer(text):
            self._tally.numbers(match["name"], 1)
        if NONFINITE_WORD.search(text) is None:
            return
        _, rest = without_harmless(window(text), PATTERNS)
        names, _, _ = names_on(rest, PATTERNS)
        if not names:
            row = self._columns.bad(text, lambda: ())
            names = {} if row is None else row.bad
        for name, kind in names.items():
            self._tally.numbers(name, 1)
            self._tally.hit(name, f"line {number}", NAN if kind == "NaN" else POSINF)
        if not names and NONFINITE_WORD.search(rest):
            self._unread += 1
            if self._unread <= MOST_UNREAD:
                self._tally.unread.append(f"line {number:,} speaks of NaN or Inf in no known form")


def _is_value(word: str) -> bool:
    if spelling(word) is not None:
        return word.lstrip("+-") != "Nan"
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
