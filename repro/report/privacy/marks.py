"""Which of many marks are in a text, at the cost of its words.

A mark is a short text that every match of a rule contains. Looking for some hundred marks in every text would cost
more than the rules themselves. Texts repeat their words, so what a word may mean is found out once.
"""

import functools
import re
from collections.abc import Iterable

LETTERS = re.compile(r"[a-z]+")
LONG = 64
"""Longer words are not remembered."""


class Marks:
    """Finds marks. Those without a letter are looked for one by one, so there should be few.

    Args:
        marks: In lower case.
    """

    def __init__(self, marks: Iterable[str]) -> None:
        listed = dict.fromkeys(marks)
        self._bare = [mark for mark in listed if not LETTERS.search(mark)]
        self._lettered = [(max(LETTERS.findall(mark), key=len), mark) for mark in listed if LETTERS.search(mark)]
        self._known = functools.lru_cache(maxsize=1 << 16)(self._in_word)

    def found(self, lower: str) -> set[str]:
        """The marks that are in a text, which is in lower case."""
        may: set[str] = set()
        for word in set(LETTERS.findall(lower)):
            may.update(self._known(word) if len(word) <= LONG else self._in_word(word))
        found = {mark for mark in may if mark in lower}
        found.update(mark for mark in self._bare if mark in lower)
        return found

    def _in_word(self, word: str) -> tuple[str, ...]:
        """The marks of which the longest run of letters is in a word."""
        return tuple(mark for letters, mark in self._lettered if letters in word)
