r"""The lines of a log that are worth a look, found by searching whole blocks for words.

Nearly all lines of a long log do not matter here, and splitting them would cost more than everything else. So each
block is searched for the few words that patterns and errors have in common, and lines are cut out only where one is.
Lines end at ``\n``, ``\r\n``, or ``\r``, with which progress bars overwrite themselves; they are numbered by ``\n``, as
in editors and grep.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

INF = re.compile(rb"infs?(?![a-z])")
"""What the hint ``inf`` stands for: as a plain word it would find every line that says INFO."""
TROUBLE = ("nan", "infinit", "overflow", "invalid", "error", "traceback")
NONFINITE_WORD = re.compile(r"(?<![a-z])(?:nans?|infs?|infinit(?:y|ies))(?![a-z])", re.IGNORECASE)
TROUBLE_WORD = re.compile(
    rf"{NONFINITE_WORD.pattern}|overflow|(?<![a-z])invalid|error(?![a-z])|traceback", re.IGNORECASE
)
ERROR_WORD = re.compile(r"(?<!\w)(?:ERROR|CRITICAL|FATAL)(?!\w)|\w(?:Error|Exception)(?!\w)")
"""An error that is told as one; ``error: 0.12`` may be a measurement."""
LOOKED_AT = 200
MOST_SAMPLE_BYTES = 300
MOST_ENDS = 1000
"""Lines without any of the words that are sampled at the start and at the end of a log; in between, one of each
block."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; ``met``: a word was found in it, else every line was asked for. It starts at ``start`` of
    the block that is read now."""

    number: int
    data: bytes
    met: bool
    start: int = 0


class Scanner:
    """Lines of the blocks of one log. ``every`` may be set while they are read; then no line is left out.

    Args:
        hints: Words to search for, besides those of errors.
        sample: Is given the number and the text of lines that contain none of the words: many at the start and at the
            end of the log, one of each block in between.
    """

    def __init__(self, hints: Iterable[str], sample: Callable[[int, bytes], None] = lambda *_: None) -> None:
        self.every = False
        self.lines = 0
        self._block = b""
        self._newlines = 0
        self._sample = sample
        self._met: set[int] = set()
        self._sampled_to = 0
        words = [hint for hint in hints if hint != "inf" and not INF.search(f"{hint}a".encode())]
        self._words = tuple(word.encode() for word in fewest([*words, *TROUBLE]))

    def read(self, blocks: Iterable[bytes]) -> Iterator[Line]:
        """The lines that contain a word, in order, and all others while ``every`` is set."""
        ended = True
        for block in filter(None, blocks):
            self._newlines += self._block.count(b"\n")
            self._block, self._met = block, self._met_in(block)
            self._sample_start()
            yield from self._lines_of(block)
            newlines, returns = block.count(b"\n"), block.count(b"\r")
            self.lines += newlines + (returns - block.count(b"\r\n") if returns else 0)
            ended = block.endswith((b"\n", b"\r"))
        self._sample_end()
        self.lines += not ended

    def above(self, line: Line) -> Iterator[bytes]:
        """The lines above one of the block that is read now, the nearest first, as far as the block goes."""
        return (self._block[start:end] for start, end in _backwards(self._block, line.start))

    def below(self, line: Line) -> Iterator[bytes]:
        """The lines below one of the block that is read now, as far as the block goes."""
        start = _next(self._block, line.start + len(line.data))
        while start < len(self._block):
            end = _end(self._block, start)
            yield self._block[start:end]
            start = _next(self._block, end)

    def _sample_start(self) -> None:
        """Sample the block; the first one of a log thoroughly."""
        first = self.lines == 0
        number, counted, at, given, self._sampled_to = self._newlines + 1, 0, 0, 0, 0
        for _ in range(MOST_ENDS if first else LOOKED_AT):
            if at >= len(self._block):
                break
            end = _end(self._block, at)
            if at not in self._met and self._block[at:end].strip():
                number, counted = number + self._block.count(b"\n", counted, at), at
                self._sample(number, self._block[at : min(end, at + MOST_SAMPLE_BYTES)])
                given += 1
            at = self._sampled_to = _next(self._block, end)
            if given and not first:
                break

    def _sample_end(self) -> None:
        """Sample the last lines of a log, none of them twice."""
        found = []
        for start, end in itertools.islice(_backwards(self._block, len(self._block)), MOST_ENDS):
            if start < self._sampled_to:
                break
            if start not in self._met and self._block[start:end].strip():
                found.append((start, end))
        number, counted = self._newlines + 1, 0
        for start, end in reversed(found):
            number, counted = number + self._block.count(b"\n", counted, start), start
            self._sample(number, self._block[start : min(end, start + MOST_SAMPLE_BYTES)])

    def _lines_of(self, block: bytes) -> Iterator[Line]:
        met = self._met
        starts = sorted(met)
        at = counted = number = place = 0
        while at < len(block):
            if not self.every:
                while place < len(starts) and starts[place] < at:
                    place += 1
                if place == len(starts):
                    return
                at = starts[place]
            end = _end(block, at)
            number, counted = number + block.count(b"\n", counted, at), at
            yield Line(self._newlines + number + 1, block[at:end], at in met, at)
            at = _next(block, end)

    def _met_in(self, block: bytes) -> set[int]:
        """The starts of lines that contain a word."""
        lowered = block.lower()
        found = {_start(block, match.start()) for match in INF.finditer(lowered)}
        for word in self._words:
            at = lowered.find(word)
            while at >= 0:
                found.add(_start(block, at))
                at = lowered.find(word, _end(block, at + len(word) - 1))
        return found


def fewest(words: Sequence[str]) -> tuple[str, ...]:
    """The words without those that contain another one: searching for ``nan`` finds ``nan count`` too."""
    given = set(words)
    return tuple(sorted(word for word in given if not any(other in word for other in given - {word})))


def shape(text: str) -> str:
    """What lines that differ only in numbers have in common."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text[:MOST_SAMPLE_BYTES])


def _start(block: bytes, at: int) -> int:
    start = block.rfind(b"\n", 0, at) + 1
    return max(start, block.rfind(b"\r", start, at) + 1)


def _end(block: bytes, start: int) -> int:
    end = block.find(b"\n", start)
    end = len(block) if end < 0 else end
    return end if (cut := block.find(b"\r", start, end)) < 0 else cut


def _next(block: bytes, end: int) -> int:
    """The start of the line behind one that ends here."""
    return end + (2 if block[end : end + 2] == b"\r\n" else 1)


def _backwards(block: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of each line above a place at which a line starts."""
    while start > 0:
        end = start
        if block[end - 1 : end] in (b"\n", b"\r"):
            end -= 2 if block[end - 2 : end] == b"\r\n" else 1
        start = _start(block, end)
        yield start, end
