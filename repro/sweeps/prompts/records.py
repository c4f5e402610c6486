"""``prompts.jsonl`` of a run: a line for each example, written as its answer comes, and each example read once."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repro.core import paths
from repro.core.encoding import SCHEMA, encode
from repro.core.errors import EvidenceError

Place = tuple[int, bool]
"""Where an example stands in the file of prompts: its index, and whether it is the second side of a pair."""


class PromptRecords:
    """The answers on disk. A later line about an example replaces an earlier one.

    Raises:
        EvidenceError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each example once, by its last answer.

        A process goes through the file in order, from the first batch that has no answer; so the lines are a few
        stretches in the order of the file, one for each process, and only their ends have to be remembered.
        """
        stretches = self._stretches()
        number, before = -1, None
        for record in self._lines():
            place = _place(record)
            if before is None or place <= before:
                number += 1
            before = place
            if not any(first <= place <= last for first, last in stretches[number + 1 :]):
                yield record

    def _stretches(self) -> list[tuple[Place, Place]]:
        """First and last place of each."""
        found: list[tuple[Place, Place]] = []
        for record in self._lines():
            place = _place(record)
            if found and place > found[-1][1]:
                found[-1] = (found[-1][0], place)
            else:
                found.append((place, place))
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    try:
                        record = json.loads(line)
                    except ValueError:
                        continue  # cut short by the end of its process: its batch is run again
                    if isinstance(record, dict) and isinstance(record.get("index"), int):
                        yield record
        except OSError as error:
            raise EvidenceError(f"could not read {self.path}: {error.strerror}") from error

    def _write(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise EvidenceError(f"could not write {self.path}: {error.strerror}. Make room and go on.") from error


def _place(record: Mapping[str, Any]) -> Place:
    return record["index"], record.get("side") == "negative"


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end; a process that was killed may have written half of one."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
