"""Events out: one JSON object a line on the process's own standard output.

Whatever else prints in this process (a library, a model's own code) is sent to standard error, so that the reader of
the events never meets a line that is not JSON.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Optional, TextIO

SCHEMA = 2
Outcome = tuple[str, str, Optional[dict[str, Any]]]  # of a step: verdict, reason, payload
QUOTES = ("reason", "error")  # fields in which a message of somebody else may stand
WITHHELD, SHORTEST = "(withheld)", 8
PRIVATE: set[int] = set()  # descriptors of event streams: no process of a user's code may hold one
PROGRESS_SECONDS = 0.1  # at most ten progress lines a second: more would cost the reader, and no eye follows them


def jsonable(value: Any) -> Any:
    """Plain JSON data. Floats that are not finite become the strings "nan", "inf" and "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


class Emitter:
    """Writes events. ``step`` is the step that progress belongs to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._withheld: tuple[str, ...] = ()
        self._step: Optional[str] = None
        self._last_progress = 0.0

    def event(self, name: str, **fields: Any) -> None:
        for said in QUOTES:
            if self._withheld and fields.get(said) is not None:
                fields[said] = self._without(fields[said])
        if self._withheld and fields.get("payload"):
            fields["payload"] = _without_code(fields["payload"])
        line = json.dumps(jsonable({"event": name, **fields}), allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def withhold(self, texts: Iterable[str]) -> None:
        """From now on no reason and no error quotes one of these texts, and no code goes out: it may hold one."""
        self._withheld = tuple(sorted(filter(None, texts), key=len, reverse=True))

    def _without(self, said: Any) -> Any:
        """A library's message may quote what it was given; a text of few letters counts only where it is quoted."""
        if isinstance(said, dict):
            return {key: self._without(item) for key, item in said.items()}
        if isinstance(said, str):
            for text in self._withheld:
                said = said.replace(repr(text), WITHHELD)
                said = said.replace(text, WITHHELD) if len(text) >= SHORTEST else said
        return said

    def start(self, step: str) -> None:
        self._step = step
        self._last_progress = 0.0
        self.event("start", step=step)

    def progress(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            self.event("progress", step=self._step, done=done, total=total, unit=unit)


def _without_code(value: Any) -> Any:
    """A payload without lines of source code."""
    if isinstance(value, dict):
        return {key: None if key == "excerpt" else _without_code(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_code(item) for item in value]
    return value


def hold_descriptors() -> bool:
    """Open the null device where a standard descriptor is closed, and where standard error takes nothing: the next
    file that is opened would take the number, and a library's warning would end a step.

    Returns whether standard output was open.
    """
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    null = os.open(os.devnull, os.O_RDWR)
    for number in closed if _takes_text(2) else [*closed, 2]:
        if null != number:
            os.dup2(null, number)
    if null > 2:
        os.close(null)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115 - until the end
    return 1 not in closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _takes_text(number: int) -> bool:
    """A full device refuses even nothing."""
    try:
        os.write(number, b"")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def own_stdout() -> Iterator[TextIO]:
    """The real standard output as a private stream; for everybody else, file descriptor 1 is standard error until the
    end.
    """
    sys.stdout.flush()
    private = os.dup(1)
    PRIVATE.add(private)
    stream = os.fdopen(private, "w", encoding="utf-8", newline="\n")
    python_stdout = sys.stdout
    saved = os.dup(1)
    PRIVATE.add(saved)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield stream
    finally:
        sys.stdout = python_stdout
        os.dup2(saved, 1)
        os.close(saved)
        PRIVATE.difference_update((private, saved))
        with contextlib.suppress(OSError):  # each event was flushed, and a failure was told then
            stream.close()
