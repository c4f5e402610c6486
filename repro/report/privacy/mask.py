"""The one way out: what is handed on is masked here, and written from here.

Reports, pages, scripts, filled forms, their addresses, the bundle and what ``lint`` prints go through the ``Mask`` of
their run. Values are masked before a document is made of them, for Markdown and addresses escape characters. The
document is masked once more when it is written, so that nothing it is made of can be forgotten.
"""

import ast
import io
import tokenize
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

from repro.core import paths
from repro.core.answer import Answer, answer_from
from repro.core.encoding import Record, decode, encode, from_text, to_json
from repro.core.errors import RecordError
from repro.report.privacy.machine import Private, scope
from repro.report.privacy.redact import redact, redact_json

TEXT = (".md", ".html", ".py", ".log", ".txt")
R = TypeVar("R", bound=Record)


class Mask:
    """Takes what is private out of everything of one run that is handed on.

    Args:
        private: What must not be in it.
        keep: What stays as it is, such as a public Hub id.
    """

    def __init__(self, private: Private, keep: tuple[str, ...] = ()) -> None:
        self._private, self._keep = private, keep

    @classmethod
    def of(cls, answer: Answer, private: Private) -> Self:
        """The mask of a run, with what is private in it besides what is private on this machine."""
        return cls(*scope(answer, private))

    def text(self, text: str) -> str:
        """A text."""
        return redact(text, self._private, self._keep)

    def data(self, data: Any) -> Any:
        """JSON data."""
        return redact_json(data, self._private, self._keep)

    def answer(self, answer: Answer) -> Answer:
        """An answer; its numbers and its structure stay."""
        return answer_from(self.data(to_json(answer)))

    def record(self, record: R) -> R:
        """A part of an answer."""
        return decode(type(record), self.data(to_json(record)))

    def name(self, name: str) -> str:
        """A name, folder by folder."""
        return "/".join(self.text(part) for part in name.split("/"))

    def script(self, text: str) -> str:
        """A Python script, which stays the same program but for what its strings hold.

        Its text is masked, for a name in front tells what a string is. ``password = args.password`` is no secret: a
        line whose code masking would change has each of its strings and comments masked by itself.
        """
        masked = self.text(text)
        code = None if masked == text else _code(text)
        if masked == text or (code is not None and code == _code(masked)):
            return masked
        lines, whole = self._by_token(text).splitlines(keepends=True), masked.splitlines(keepends=True)
        if code is not None and len(lines) == len(whole):
            for number in [at for at, line in enumerate(lines) if line != whole[at]][:MOST_LINES]:
                tried = [*lines[:number], whole[number], *lines[number + 1 :]]
                lines = tried if _code("".join(tried)) == code else lines
        return "".join(lines)

    def write(self, path: Path, text: str) -> None:
        """Write a text file that is handed on.

        Raises:
            EvidenceError: it cannot be written.
        """
        paths.write(path, self.script(text) if path.suffix == ".py" else self.text(text))

    def content(self, name: str, content: bytes) -> bytes:
        """The content of a file, by the kind that its name says. What is neither text nor JSON stays as it is."""
        suffix = PurePosixPath(name).suffix
        if suffix == ".json":
            return self._json(content, indent=1)
        if suffix == ".jsonl":
            return b"".join(self._json(line, indent=None) for line in content.splitlines(keepends=True))
        if suffix not in TEXT:
            return content
        # What is no UTF-8 comes back as the bytes that it was.
        said = content.decode("utf-8", "surrogateescape")
        return (self.script(said) if suffix == ".py" else self.text(said)).encode("utf-8", "surrogateescape")

    def _by_token(self, text: str) -> str:
        """A script of which each string and each comment is masked by itself."""
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        except (tokenize.TokenError, SyntaxError):
            return self.text(text)  # it was no script before
        lines = text.splitlines(keepends=True)
        for token in reversed(tokens):
            if token.type not in (tokenize.STRING, tokenize.COMMENT):
                continue
            (first, begin), (last, end) = token.start, token.end
            before, after = lines[first - 1][:begin], lines[last - 1][end:]
            lines[first - 1 : last] = [before + self._token(token.string, token.type) + after]
        return "".join(lines)

    def _token(self, token: str, kind: int) -> str:
        masked = self.text(token)
        if masked == token or kind == tokenize.COMMENT:
            return " ".join(masked.splitlines()) if kind == tokenize.COMMENT else masked
        if _is_python(masked):
            return masked
        try:
            value = ast.literal_eval(token)
        except (ValueError, SyntaxError):
            return repr("")  # of an f-string that cannot be masked whole, nothing stays
        return repr(self.text(value) if isinstance(value, str) else self.text(repr(value)).encode())

    def _json(self, content: bytes, *, indent: int | None) -> bytes:
        """JSON data; left byte for byte where there is nothing to mask, masked as a text where it is broken."""
        try:
            data = from_text(content.decode("utf-8"))
        except (RecordError, UnicodeDecodeError):
            return self.text(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        clean = self.data(data)
        return content if clean == data else (encode(clean, indent=indent) + "\n").encode()


MOST_LINES = 200
"""How many lines of a script are looked at one by one."""
STRINGS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def _code(text: str) -> dict[int, list[str]] | None:
    """What a script is without its strings and comments, by line; None for what is no Python."""
    found: dict[int, list[str]] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            found.setdefault(token.start[0], []).extend([] if token.type in STRINGS else [token.string])
    except (tokenize.TokenError, SyntaxError):
        return None
    return found if _is_python(text) else None


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
