"""A folder for the time of one run, below the system's own for such; and those that killed processes have left there.

A folder belongs to the process that holds a lock on a file in it. The system gives the lock up with the process,
however that ends, and it also holds where other processes have other numbers, as in containers that share a folder.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Optional

from ..protocol import wire

PREFIX = "repro-script-"
HELD = "held"


@contextlib.contextmanager
def own_folder(place: Optional[str] = None) -> Iterator[str]:
    """A new folder, which is removed at the end; before that, those that nobody holds any more are removed.

    place: below which folder; the system's own for such where None.
    """
    _remove_left_behind(place or tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as folder, contextlib.ExitStack() as stack:
        lock = stack.enter_context(open(os.path.join(folder, HELD + ".part"), "wb"))
        private = lock.fileno()
        wire.PRIVATE.add(private)
        stack.callback(wire.PRIVATE.discard, private)
        if _locked(private):
            os.rename(lock.name, os.path.join(folder, HELD))  # only now may another process look whether it is held
        yield folder


def _remove_left_behind(place: str) -> None:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_left_behind(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left_behind(folder: str) -> bool:
    """Whether it is a folder of this user's whose process is gone. Anything else is left alone, whatever its name."""
    try:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        number = os.open(os.path.join(folder, HELD), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, AttributeError):  # Windows has no such numbers and flags
        return False
    try:
        return stat.S_ISREG(os.fstat(number).st_mode) and _locked(number)
    finally:
        os.close(number)


def _locked(number: int) -> bool:
    """Whether the open file is now locked by this process alone; never where the system has no such locks."""
    try:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
