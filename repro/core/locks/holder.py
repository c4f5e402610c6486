"""Who holds a lock, in a file beside it: for those who are refused or wait, and for nothing else."""

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from repro.core.encoding import Record, decode, encode, from_text
from repro.core.errors import RecordError
from repro.core.sentences import visible

LONGEST = 1 << 14
"""Bytes of such a file that are read; it holds four short fields."""


class Holder(Record, frozen=True, kw_only=True):
    """The content of ``.lock.json``: who holds the lock, for those who are refused.

    ``command`` names what is asked without the prompts, which may be private.
    """

    pid: int
    host: str
    since: str
    command: str

    @property
    def words(self) -> str:
        """``process 4711 on host, since 2026-01-31T12:00:00+00:00: repro run gpt2``."""
        return visible(f"process {self.pid} on {self.host}, since {self.since}: {self.command}")


@contextlib.contextmanager
def named(path: Path, command: str) -> Iterator[None]:
    """Within it, the file says who holds the lock. A full disk costs others the name and nothing else."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=since, command=command)
    beside = path.with_name(f"{path.name}.part")
    try:
        with contextlib.suppress(OSError):
            for left in (beside, path):  # of a holder that was killed
                left.unlink(missing_ok=True)
            with beside.open("x", encoding="utf-8") as file:
                file.write(encode(holder) + "\n")
            beside.replace(path)
        yield
    finally:
        for left in (beside, path):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def holder_of(path: Path) -> str:
    """Who holds the lock beside it, as far as that is known."""
    try:
        if path.is_file():  # anything else may never end
            with path.open("rb") as file:
                return decode(Holder, from_text(file.read(LONGEST).decode("utf-8"))).words
    except (OSError, UnicodeDecodeError, RecordError):
        pass
    return "which one is not known"
