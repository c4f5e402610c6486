"""``prompts.jsonl`` of a run: a line for each example, written as its answer comes, and each example read once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.core import paths
from repro.core.encoding import SCHEMA, encode
from repro.core.errors import EvidenceError
from repro.jobs.prompt_files import Answers


class PromptRecords(Answers):
    """The answers on disk. A later line about an example replaces an earlier one. ``dropped``: whether the last line
    of an earlier process was cut short.

    Raises:
        EvidenceError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.exists() and not path.is_file():
            raise EvidenceError(f"{path} is no file. Give another folder with --out, or remove it.")
        try:
            text_is_cut = path.exists() and not _ends_whole(path)
        except OSError as error:
            raise EvidenceError(f"could not read {path}: {error.strerror}") from error
        if not path.exists():
            paths.write(path, encode({"schema": SCHEMA, "record": "header"}) + "\n")
        elif text_is_cut:
            self._write("\n")
        self.dropped = text_is_cut

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one answer; it is in the file when this returns."""
        self._write(encode(record) + "\n")

    def _write(self, text: str) -> None:
        try:
            with self.path.open("r+", encoding="utf-8") as file:  # not "a": a file that was removed must not begin anew
                file.seek(0, os.SEEK_END)
                file.write(text)
        except OSError as error:
            raise paths.not_written(self.path, error) from error


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end; a process that was killed may have written half of one."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
