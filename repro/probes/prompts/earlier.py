"""What earlier processes of the same run have answered, from the file in which the host keeps the answers."""

import json
from collections.abc import Iterator
from typing import Any, Optional

from .alike import Failing, name_of
from .answers import NO_PLACE

VERDICTS = ("good", "bad", "skip")
FIELDS = {*NO_PLACE, "side", "cause", "tokens", "token_ids", "padding", "text"}
Counts = tuple[int, int, int]


class Earlier:
    """The answers to whole batches. ``counts``: good, bad and skipped of each batch that is known in full.

    path: of the file, one JSON object a line, or None. known: batches that are done, by number. A later line about an
    example replaces an earlier one; a batch that was asked again stands in one piece behind its first answers.
    """

    def __init__(self, path: Optional[str], known: set[int]) -> None:
        self._path = path
        self._known = known
        self.counts: dict[int, Counts] = {}
        batch, verdicts = None, dict[int, str]()
        for record in self._records():
            if record["batch"] != batch:
                batch, verdicts = record["batch"], {}
            verdicts[name_of(record["index"], record.get("side"))] = record["verdict"]
            values = list(verdicts.values())
            self.counts[record["batch"]] = (values.count("good"), values.count("bad"), values.count("skip"))

    def take_failing(self, failing: Failing) -> None:
        """Hand over the examples that failed."""
        for record in self._records():
            if record["verdict"] == "bad":
                failing.take(record)

    def _records(self) -> Iterator[dict[str, Any]]:
        if self._path is None or not self._known:
            return
        with open(self._path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:  # cut short by the end of its process: its batch is asked again
                    continue
                if _is_answer(record) and record["batch"] in self._known:
                    yield record


def _is_answer(record: Any) -> bool:
    """Whether a line is an answer as this kit writes it; the batch of another is asked again."""
    return (
        isinstance(record, dict)
        and record.get("verdict") in VERDICTS
        and all(type(record.get(key)) is int for key in ("index", "batch"))
        and record.keys() >= FIELDS
    )
