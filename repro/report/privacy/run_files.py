"""The files of a run without what is private: text as text, JSON value by value, everything else as it is."""

from pathlib import PurePosixPath
from typing import Any

from repro.core.encoding import encode, from_text
from repro.core.errors import RecordError
from repro.report.privacy.prompts import Prompts, withhold, withhold_text
from repro.report.privacy.redact import Private, redact, redact_json

TEXT = (".md", ".html", ".py")
LOG = ".log"


class Mask:
    """Takes what is private out of the files of one run.

    Args:
        private: What must not be in them.
        keep: What stays as it is, such as a public Hub id.
        prompts: The prompts that must not be in them either; None keeps them.
    """

    def __init__(self, private: Private, keep: tuple[str, ...], prompts: Prompts | None) -> None:
        self._private, self._keep, self._prompts = private, keep, prompts

    def text(self, text: str) -> str:
        """A text."""
        return redact(text, self._private, self._keep)

    def data(self, data: Any) -> Any:
        """JSON data."""
        kept = data if self._prompts is None else withhold(data, self._prompts)
        return redact_json(kept, self._private, self._keep)

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
        return self._said(content, of_others=suffix == LOG) if suffix in (*TEXT, LOG) else content

    def _said(self, content: bytes, *, of_others: bool) -> bytes:
        """A text. What is no UTF-8 comes back as the bytes that it was."""
        text = content.decode("utf-8", "surrogateescape")
        if of_others and self._prompts is not None:
            text = withhold_text(text, self._prompts)
        return self.text(text).encode("utf-8", "surrogateescape")

    def _json(self, content: bytes, *, indent: int | None) -> bytes:
        """JSON data; left byte for byte where there is nothing to mask, masked as a text where it is broken."""
        try:
            data = from_text(content.decode("utf-8"))
        except (RecordError, UnicodeDecodeError):
            return self._said(content, of_others=True)
        clean = self.data(data)
        return content if clean == data else (encode(clean, indent=indent) + "\n").encode()
