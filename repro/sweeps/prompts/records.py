"""``prompts.jsonl`` of a run: a line for each example, written as its answer comes, and each example read once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.core import paths
from repro.core.encoding import SCHEMA, encode
from repro.core.errors import EvidenceError
from repro.jobs.prompt_files import Answers


class PromptRecords(Answers):
    """The answers on disk. A later line about an example replaces an earlier one.

    Raises:
        EvidenceError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            text_is_cut = path.exists() and not _ends_whole(path)
        except OSError as error:
            raise EvidenceError(f"could not read {path}: {error.strerror}") from error
        if not path.exists():
            paths.write(path, encode({"schema": SCHEMA, "record": "header"}) + "\n")
        elif text_is_cut:
            self._write("\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one answer; it is in the file when this returns."""
        self._write(encode(record) + "\n")

    def _write(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise EvidenceError(f"could not write {self.path}: {error.strerror}. Make room and go on.") from error


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end; a process that was killed may have written half of one."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
