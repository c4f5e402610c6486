"""A folder for a while; and those that killed processes have left behind, removed at the next start.

It is its process's as long as that holds a lock on a file in it, which the system gives up with the process.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from repro.core.locks.held import file_lock, released

HELD = "held.lock"


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder below the system's own for such, removed at the end.

    Args:
        prefix: Of its name; folders of this prefix that nobody holds any more are removed first.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_if_left(left)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        new = Path(name, f"{HELD}.part")
        lock = file_lock(new)
        with contextlib.suppress(NotImplementedError, OSError):  # without locks it is never taken for one left behind
            lock.acquire(timeout=0)
            new.replace(new.with_name(HELD))  # only now may another process look whether it is held
        with released(lock):
            yield Path(name)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder of this user's whose process is gone. Anything else is left alone, whatever its name."""
    from filelock import Timeout

    held = folder / HELD
    own = getattr(os, "geteuid", lambda: None)()
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        if folder.is_symlink() or own not in (None, folder.lstat().st_uid) or held.is_symlink() or not held.is_file():
            return
        lock = file_lock(held)
        lock.acquire(timeout=0)
        with released(lock):
            shutil.rmtree(folder, ignore_errors=True)
