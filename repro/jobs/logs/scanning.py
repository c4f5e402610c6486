r"""The lines of a log that are worth a look, found by searching whole blocks for words.

Nearly all lines of a long log do not matter here, and splitting them would cost more than everything else. So each
block is searched for the few words that patterns and errors have in common, and lines are cut out only where one is.
Lines end at ``\n``, ``\r\n``, or ``\r``, with which progress bars overwrite themselves; they are numbered by ``\n``, as
in editors and grep.
"""

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
LOOKED_AT = 200
MOST_SAMPLE_BYTES = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; ``met``: a word was found in it, else every line was asked for."""

    number: int
    data: bytes
    met: bool


class Scanner:
    """Lines of the blocks of one log. ``every`` may be set while they are read; then no line is left out.

    Args:
        hints: Words to search for, besides those of errors.
        sample: Is given one line of each block that contains none of the words.
    """

    def __init__(self, hints: Iterable[str], sample: Callable[[bytes], None] = lambda _: None) -> None:
        self.every = False
        self.lines = 0
        self._newlines = 0
        self._sample = sample
        words = [hint for hint in hints if hint != "inf" and not INF.search(f"{hint}a".encode())]
        self._words = tuple(word.encode() for word in fewest([*words, *TROUBLE]))

    def read(self, blocks: Iterable[bytes]) -> Iterator[Line]:
        """The lines that contain a word, in order, and all others while ``every`` is set."""
        ended = True
        for block in filter(None, blocks):
            yield from self._block(block)
            newlines, returns = block.count(b"\n"), block.count(b"\r")
            self.lines += newlines + (returns - block.count(b"\r\n") if returns else 0)
            self._newlines += newlines
            ended = block.endswith((b"\n", b"\r"))
        self.lines += not ended

    def _block(self, block: bytes) -> Iterator[Line]:
        met = self._met(block)
        for line in _first_other(block, met):
            self._sample(line)
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
            yield Line(self._newlines + number + 1, block[at:end], at in met)
            at = end + (2 if block[end : end + 2] == b"\r\n" else 1)

    def _met(self, block: bytes) -> set[int]:
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


def _first_other(block: bytes, met: set[int]) -> list[bytes]:
    """The first line without any of the words, if it is near the start of the block."""
    at = 0
    for _ in range(LOOKED_AT):
        end = _end(block, at)
        if at not in met and block[at:end].strip():
            return [block[at : min(end, at + MOST_SAMPLE_BYTES)]]
        at = end + 1
    return []


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
