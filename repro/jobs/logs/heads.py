"""What precedes a message on its line: which rank wrote it, when, and whether a logger started a new message here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from repro.jobs.logs.patterns import Head, heads

FRONT_CHARACTERS = 120
SEPARATORS = re.compile(r"[\s|:,-]*")
MOST_HEADS = 6
NEARLY_ALL = 0.9
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
"""Escape sequences of terminals (ECMA-48): colours, the cursor, titles."""


@dataclass(frozen=True, slots=True)
class Front:
    """``rest`` is the line without its rank; ``kinds`` names the heads of time and level that were found."""

    rank: str | None
    time: str | None
    kinds: frozenset[str]
    rest: str


class Fronts:
    """Reads the fronts of one log's lines.

    Args:
        first_lines: The first lines of the log, which show whether a bare number is a rank.
    """

    def __init__(self, first_lines: Sequence[str]) -> None:
        lines = [line for line in first_lines if line.strip()]
        self._heads = tuple(head for head in heads() if not head.all_lines or _nearly_all(head, lines))
        self._inside = tuple(head for head in self._heads if head.where == "front")
        unnamed = (re.sub(r"\(\?P<\w+>", "(?:", head.regex.pattern) for head in self._heads)
        self._any = re.compile("|".join(f"(?:{pattern})" for pattern in unnamed))

    def read(self, line: str) -> Front:
        """The front of a line without colours."""
        found: dict[str, str] = {}
        kinds, at, behind_rank = set(), 0, 0
        for _ in range(MOST_HEADS):
            head, match = self._at(line, at)
            if head is None or match is None:
                break
            for name, value in match.groupdict().items():
                found.setdefault(name, value)
            if "rank" not in match.groupdict():
                kinds.add(head.name)
            elif not kinds:
                behind_rank = match.end()
            separators = SEPARATORS.match(line, match.end())
            at = match.end() if separators is None or "rank" in match.groupdict() else separators.end()
        if "rank" not in found and kinds:
            inside = (head.regex.search(line, at, FRONT_CHARACTERS) for head in self._inside)
            found.update(next(({"rank": match["rank"]} for match in inside if match), {}))
        return Front(found.get("rank"), found.get("time"), frozenset(kinds), line[behind_rank:])

    def _at(self, line: str, at: int) -> tuple[Head | None, re.Match[str] | None]:
        if self._any.match(line, at):  # one test for all of them: most places have none
            for head in self._heads:
                match = head.regex.match(line, at)
                if match:
                    return head, match
        return None, None


def text_of(data: bytes) -> tuple[str, bool]:
    """A line as text without colours, and whether it was UTF-8, as nearly all logs are; else it is read as cp1252."""
    try:
        text, whole = data.decode(), True
    except UnicodeDecodeError:
        text, whole = data.decode("cp1252", errors="replace"), False
    return (COLOUR.sub("", text) if "\x1b" in text else text), whole


def _nearly_all(head: Head, lines: Sequence[str]) -> bool:
    return len(lines) > 1 and sum(bool(head.regex.match(line)) for line in lines) >= NEARLY_ALL * len(lines)
