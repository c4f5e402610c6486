"""The evidence of a run on disk: JSON lines, appended, flushed and synced step by step.

The first line is the header, every other line one observation. A later line about a step replaces one that gave no
answer; a second answer is refused.
"""

import collections
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from repro.core.encoding import SCHEMA, decode, encode, from_text, to_json
from repro.core.errors import EvidenceError, RecordError
from repro.core.paths import not_written
from repro.core.records import Ending, Header, Observation

NAME = "evidence.jsonl"
TRIALS = "trials.jsonl"
FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"})
"""Signals that no computation raises by itself: a person sends them, a scheduler, or a system that is short of memory.
What they ended may end well the next time."""
PATIENCE = 3
"""How often a trial may begin without an answer until it counts as one that takes the whole machine down."""


class Evidence:
    """The file ``evidence.jsonl`` in a run folder: read once, then only appended to.

    A last line without its newline is what a killed process leaves behind. It is dropped, and ``cut`` says so; every
    line before it holds. A line in the middle that is no record is an error: something else than a run has written it,
    and nobody knows what it has overwritten.

    Raises:
        EvidenceError: the file cannot be read or written, or a whole line in it is no record.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.header: Header | None = None
        self._observations: dict[str, Observation] = {}
        text, self._regular = _content(self.path)
        self._whole = text.rfind(b"\n") + 1
        self.cut = len(text) > self._whole
        for number, line in enumerate(text[: self._whole].split(b"\n")[:-1], 1):
            self._read(number, line)

    def _read(self, number: int, line: bytes) -> None:
        try:
            data = from_text(line.decode())
            schema, record = data.pop("schema"), data.pop("record")
            if schema != SCHEMA:
                raise RecordError(f"schema {schema!r}, and this version reads schema {SCHEMA}")
            if record == "header":
                self.header = decode(Header, data)
            elif record == "observation":
                observation = decode(Observation, data)
                before = self._observations.get(observation.step)
                if before is not None and _is_final(before):
                    raise RecordError(f"a second answer of the {observation.step} step, which no run writes")
                self._observations.pop(observation.step, None)
                self._observations[observation.step] = observation
            else:
                raise RecordError(f"unknown record {record!r}")
        except (ValueError, KeyError, AttributeError, TypeError, RecordError) as error:
            what = error.args[0] if isinstance(error, RecordError) else f"no record ({error})"
            raise EvidenceError(
                f"{self.path}, line {number}: {what}. The lines before it hold: remove it and all that "
                "follows to go on from there, or give another folder with --out."
            ) from None

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The last observation of each step, in order of writing."""
        return tuple(self._observations.values())

    def finished(self) -> Iterator[Observation]:
        """What a resumed run does not repeat: steps that ended or crashed, but none that stopped all others, and none
        whose process somebody else has ended.
        """
        return (observation for observation in self.observations if _is_final(observation))

    def begin(self, header: Header) -> None:
        """Write the first line; the first write of a run, so a full disk shows here, before the model is loaded."""
        self._write({"schema": SCHEMA, "record": "header", **to_json(header)})
        self.header = header

    def append(self, observation: Observation) -> None:
        """Write one step; it is on the disk when this returns."""
        self._write({"schema": SCHEMA, "record": "observation", **to_json(observation)})
        self._observations.pop(observation.step, None)
        self._observations[observation.step] = observation

    def _write(self, data: dict[str, object]) -> None:
        line = (encode(data) + "\n").encode()
        try:
            # What was recorded is there or is gone: a new file would hold the new line alone, behind a gap.
            with self.path.open("r+b" if (self._regular and self._whole) or self.path.exists() else "wb") as file:
                if self._regular:
                    file.seek(self._whole)
                    file.truncate()
                file.write(line)
                file.flush()
                if self._regular:
                    os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self.path, error) from error
        self._whole += len(line)

    def sha256(self) -> str | None:
        """The hash of the file as it is now, or None where there is no plain file."""
        if not self._regular or not self.path.exists():
            return None
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def _is_final(observation: Observation) -> bool:
    killed = observation.failure is not None and observation.failure.signal in FROM_OUTSIDE
    return observation.ending in (Ending.ENDED, Ending.CRASHED) and not observation.fatal and not killed


class TrialLog:
    """The trials of a reduction on disk: each one before it starts, and its answer. A line, flushed, for each.

    ``begun``: how often each trial has begun.
    ``known``: the answers by the trial's name; None for a trial that has none, because it killed its process. One that
    began in an earlier run and has no answer is not known: that run may have been stopped from outside. One that began
    ``PATIENCE`` times is, and one whose process was seen to die.

    Raises:
        EvidenceError: the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TRIALS
        self.known: dict[str, bool | None] = {}
        text, _ = _content(self.path)
        self._whole = not text or text.endswith(b"\n")
        self.cut = not self._whole
        self._again = 0
        self.begun: collections.Counter[str] = collections.Counter()
        for line in text.splitlines():
            try:
                data = from_text(line.decode())
                name, holds = str(data["trial"]), data["holds"]
                self.begun[name] += holds is None and not data.get("died")
                if holds is not None or data.get("died") or self.begun[name] >= PATIENCE:
                    self.known[name] = None if holds is None else bool(holds)
            except (ValueError, KeyError, TypeError, RecordError):
                continue  # cut short by the end of its process: the trial is asked again

    @property
    def open(self) -> int:
        """How many trials have no answer."""
        return sum(holds is None for holds in self.known.values())

    def died(self, trial: str, signal: str | None) -> bool:
        """A trial's process has died. Whether the trial is asked again: it is where somebody else ended the process,
        and not for the ``PATIENCE``-th time.
        """
        if signal in FROM_OUTSIDE and self.begun[trial] < PATIENCE and self._again < PATIENCE:
            self._again += 1
            del self.known[trial]
            return True
        self.append(trial, None, died=True)
        return False

    def append(self, trial: str, holds: bool | None, *, died: bool = False) -> None:
        """Write that a trial begins (None), its answer, or that its process died."""
        self.known[trial] = holds
        self.begun[trial] += holds is None and not died
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("" if self._whole else "\n")  # a line that its process did not end
                self._whole = True
                file.write(json.dumps({"trial": trial, "holds": holds, **({"died": True} if died else {})}) + "\n")
        except OSError as error:
            raise not_written(self.path, error) from error


def _content(path: Path) -> tuple[bytes, bool]:
    """What is recorded, and whether it is in a file that is read again later; of a device nothing is read.

    Raises:
        EvidenceError: it cannot be read, or nobody may ever answer whoever opens it.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.read_bytes(), True
    except FileNotFoundError:
        return b"", True
    except OSError as error:
        raise EvidenceError(f"could not read {path}: {error.strerror}") from error
    if not stat.S_ISCHR(mode):
        raise EvidenceError(f"{path} is no file. Give another folder with --out, or remove it.")
    return b"", False
