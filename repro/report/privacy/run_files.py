"""The files of a run without what is private: text as text, JSON value by value, everything else as it is."""

from pathlib import PurePosixPath
from typing import Any

from repro.core.encoding import encode, from_text
from repro.core.errors import RecordError
from repro.report.privacy.redact import Private, redact, redact_json

TEXT = (".md", ".html", ".py", ".log")


class Mask:
    """Takes what is private out of the files of one run.

    Args:
        private: What must not be in them.
        keep: What stays as it is, such as a public Hub id.
    """

    def __init__(self, private: Private, keep: tuple[str, ...]) -> None:
        self._private, self._keep = private, keep

    def text(self, text: str) -> str:
        """A text."""
        return redact(text, self._private, self._keep)

    def data(self, data: Any) -> Any:
        """JSON data."""
        return redact_json(data, self._private, self._keep)

    def name(self, name: str) -> str:
        """A name, folder by folder."""
        return "/".join(self.text(part) for part in name.split("/"))

    def content(self, name: str, content: bytes) -> bytes:
        """The content of a file, by the kind that its name says. What is neither text nor JSON stays as it is."""
        suffix = PurePosixPath(name).suffix
        if suffix == ".json":
            return self._json(content, indent=1)
        if suffix == ".jsonl":
            return b"".join(self._json(line, indent=None) for line in content.splitlines(keepends=True))
        return self._said(content) if suffix in TEXT else content

    def _said(self, content: bytes) -> bytes:
        """A text. What is no UTF-8 comes back as the bytes that it was."""
        text = content.decode("utf-8", "surrogateescape")
        return self.text(text).encode("utf-8", "surrogateescape")

    def _json(self, content: bytes, *, indent: int | None) -> bytes:
        """JSON data; left byte for byte where there is nothing to mask, masked as a text where it is broken."""
        try:
            data = from_text(content.decode("utf-8"))
        except (RecordError, UnicodeDecodeError):
            return self._said(content)
        clean = self.data(data)
        return content if clean == data else (encode(clean, indent=indent) + "\n").encode()
