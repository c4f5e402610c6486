"""The rules of the secret scanner gitleaks, read from its own file and applied to what is handed on.

``data/gitleaks.toml`` is gitleaks' file as it is, with its licence beside it. Keywords, entropy, groups and allowlists
mean here what they mean there. Three things differ, because a report is no source file: a name in a path ends at a
slash, a sentence ends with a dot, and one secret may be cut off. So a secret may be followed by anything that is no
letter or digit, and a token that starts with an issuer's own prefix is known by it even if it is cut short.

Source: https://github.com/gitleaks/gitleaks, config/gitleaks.toml at commit b58d3f102cf3a2c84cb7f923d05c25c9b1aed84b.
"""

import functools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("data") / "gitleaks.toml"
LEAD = r"[\w.-]{0,50}?"
"""With this many of gitleaks' rules begin. It says nothing about the secret, and costs fifty trials a character."""
TAIL = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
AFTER = "(?![A-Za-z0-9])"
BEFORE = "(?<![A-Za-z0-9])"
BORDERS = {
    TAIL: AFTER,
    r"""(?:^|[\\'"\x60\s>=:(,)])""": BEFORE,
    r"""(?:$|[\\'"\x60\s<),])""": AFTER,
}
"""How gitleaks' rules say where a secret begins and ends, and how it is said here."""
NAME_BEFORE = re.compile(r"[\w.-]{0,50}\Z")
ANY_NAME = "generic-api-key"
"""gitleaks' rule for any name that sounds secret. It is the one that takes names of tensors for keys."""
PREFIX = re.compile(r"(?:\\b|\(\?i\)|\(\?:|\()*((?:[A-Za-z0-9_-]|\\[.-])*(?:[_-]|\\\.))")
"""The literal beginning of an expression up to the last sign in it."""
PIECE = 4096
"""A rule looks at one line, and of a longer one at pieces of this length, so that no line takes long."""
OVERLAP = 512
"""Characters that two pieces share. A longer secret is known by its first piece."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is no secret: ``target`` is what the expressions are held against, "secret", "match" or "line"."""

    target: str
    regexes: tuple[re.Pattern[str], ...]
    stopwords: tuple[str, ...]

    def holds(self, secret: str, match: str, line: str) -> bool:
        text = {"match": match, "line": line}.get(self.target, secret)
        lower = secret.lower()
        return any(regex.search(text) for regex in self.regexes) or any(word in lower for word in self.stopwords)


class ScannerRule:
    """A rule of the file. Its expression is compiled when one of its marks is met for the first time."""

    def __init__(self, row: Mapping[str, Any], everywhere: Allowed) -> None:
        self.id: str = row["id"]
        self.marks: tuple[str, ...] = tuple(word.lower() for word in row["keywords"])
        self.regex: str = row["regex"]
        self._entropy: float = row.get("entropy", 0.0)
        self._group: int = row.get("secretGroup", 0)
        self._lists = row.get("allowlists", [])
        self._everywhere = everywhere

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression as Python writes it."""
        return re.compile(adapted(self.regex), re.ASCII)

    @functools.cached_property
    def _allowed(self) -> tuple[Allowed, ...]:
        # A list of files says nothing here, for a report is none of them.
        return (self._everywhere, *(_allowed(row) for row in self._lists if not row.get("paths")))

    def spans(self, line: str) -> Iterator[tuple[int, int]]:
        """Begin and end of each secret in a line."""
        for match in self.pattern.finditer(line):
            group = self._group or next((at for at in range(1, self.pattern.groups + 1) if match[at]), 0)
            secret = match[group]
            if self._entropy and entropy(secret) <= self._entropy:
                continue
            if self.id == ANY_NAME and not is_random(secret):
                continue
            before = NAME_BEFORE.search(line, max(0, match.start() - 50), match.start())
            whole = (before[0] if before else "") + match[0]
            if not any(allowed.holds(secret, whole, line) for allowed in self._allowed):
                yield match.span(group)


@functools.cache
def scanner_rules() -> tuple[ScannerRule, ...]:
    """The rules of the file that are for any text; those for files of one kind are left out."""
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    everywhere = _allowed(data["allowlist"])
    return tuple(ScannerRule(row, everywhere) for row in data["rules"] if "regex" in row and "path" not in row)


@functools.cache
def prefixes() -> tuple[str, ...]:
    """How the tokens of issuers begin, where they say so themselves: letters, and a sign behind them."""
    found = {match[1].replace("\\", "") for rule in scanner_rules() if (match := PREFIX.match(rule.regex))}
    return tuple(sorted(prefix for prefix in found if re.search("[A-Za-z]{2}", prefix) and len(prefix) >= 3))


def masked(rules: Sequence[ScannerRule], text: str, word: str) -> str:
    """``text`` with ``word`` in place of every secret that one of the rules finds."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        lower = line.lower()
        for rule in rules:
            for mark in rule.marks:
                if mark in lower:
                    lines[number] = line = _without(rule, line, word)
                    break
    return "\n".join(lines)


def _without(rule: ScannerRule, line: str, word: str) -> str:
    if len(line) <= PIECE:
        spans = sorted(rule.spans(line))
    else:
        pieces = range(0, len(line) - OVERLAP, PIECE - OVERLAP)
        spans = sorted((at + begin, at + end) for at in pieces for begin, end in rule.spans(line[at : at + PIECE]))
    if not spans:
        return line
    parts, last = [], 0
    for begin, end in spans:
        if begin >= last:
            parts += [line[last:begin], word]
        last = max(last, end)
    return "".join([*parts, line[last:]])


def entropy(text: str) -> float:
    """Shannon's, in bits for each character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def changes(text: str) -> int:
    """How often letters and digits, or small and capital letters, change places in the text's longest run of them."""
    run = max(re.findall("[A-Za-z0-9]+", text), key=len, default="")
    return len(re.findall(r"[A-Za-z](?=\d)|\d(?=[A-Za-z])|[a-z](?=[A-Z])", run))


def is_random(text: str) -> bool:
    """Whether a value looks drawn, and not like a name, a number, a version or a date. The hash of a file (64
    hexadecimal digits) is no secret.
    """
    return not re.fullmatch("[0-9a-f]{64}", text) and bool(re.search("[A-Za-z0-9+/]{12}", text)) and changes(text) >= 4


def adapted(regex: str) -> str:
    """An expression of Go's RE2 as Python's ``re`` takes it, without its lead and with this module's borders."""
    regex = regex.replace(LEAD, "").replace("[[:alnum:]]", "[0-9A-Za-z]").replace(r"\z", r"\Z")
    for theirs, ours in BORDERS.items():
        regex = regex.replace(theirs, ours)
    regex = re.sub(r"^((?:\(\?i\))?)\\b", rf"\1{BEFORE}", regex)
    regex = re.sub(r"\\b(\)*)$", rf"{AFTER}\1", regex)
    return _scoped(regex)


def _scoped(regex: str) -> str:
    """``(?i)`` in the middle, which in RE2 holds to the end of its group, as groups of their own."""
    made: list[str] = []
    scopes = [0]  # for each open group, how many such groups were opened in it
    place, in_class = 0, False
    while place < len(regex):
        char = regex[place]
        if char == "\\":
            made.append(regex[place : place + 2])
            place += 2
            continue
        if in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif regex.startswith("(?i)", place):
            made.append("(?i:")
            scopes[-1] += 1
            place += 4
            continue
        elif char == "(":
            scopes.append(0)
        elif char == ")":
            made.append(")" * scopes.pop())
        elif char == "|" and scopes[-1]:
            made.append(")" * scopes[-1] + "|" + "(?i:" * scopes[-1])
            place += 1
            continue
        made.append(char)
        place += 1
    return "".join(made) + ")" * scopes[0]


def _allowed(row: Mapping[str, Any]) -> Allowed:
    return Allowed(
        row.get("regexTarget", "secret"),
        tuple(re.compile(adapted(regex), re.ASCII) for regex in row.get("regexes", ())),
        tuple(word.lower() for word in row.get("stopwords", ())),
    )
