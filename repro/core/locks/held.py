"""The locks themselves: of a folder, refused where another process writes, and of a file, which is waited for."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from repro.core.errors import EvidenceError, UsageError
from repro.core.locks.holder import holder_of, named
from repro.core.paths import relative

if TYPE_CHECKING:
    from filelock import BaseFileLock

NAME = ".lock"
HOLDER = ".lock.json"
FILES = frozenset({NAME, HOLDER})
"""What a locked folder holds beside what it is for."""
POLL_SECONDS = 0.2
"""How often one that waits looks again."""
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What a file system says that has no locks."""
Say = Callable[[str], None]


def nobody(line: str) -> None:
    """For those who want no lines."""


@contextlib.contextmanager
def folder_held(folder: Path, command: str, say: Say) -> Iterator[None]:
    """Within it, no other process that asks for the same writes into the folder, which exists.

    Args:
        folder: Which.
        command: What the holder does there.
        say: Is given a line where the file system has no locks.

    Raises:
        UsageError: another process is writing there; the message says which.
        EvidenceError: nothing can be written there.
    """
    lock = file_lock(folder / NAME)
    try:
        if not _taken(lock, folder, say, wait=False):
            raise UsageError(
                f"{relative(folder)} is being written by another run ({holder_of(folder / HOLDER)}). "
                "Wait for its end, stop it, or give another folder with --out."
            )
    except OSError as error:
        raise EvidenceError(
            f"could not write in {folder}: {error.strerror or error}. Give another folder with --out."
        ) from error
    with released(lock), named(folder / HOLDER, command):
        yield


@contextlib.contextmanager
def waited_for(path: Path, command: str, what: str, say: Say) -> Iterator[None]:
    """Within it, no other process does what the lock at ``path`` stands for; one that does it now is waited for.

    Args:
        path: Of the lock; its folder exists. ``.json`` beside it says who holds it.
        command: What the holder does.
        what: What is waited for, such as "the cell torch-2.4.1".
        say: Is given a line where it must be waited for, or where the file system has no locks.

    Raises:
        OSError: nothing can be written there.
    """
    lock, holder = file_lock(path), path.with_name(f"{path.name}.json")
    if not _taken(lock, path.parent, say, wait=False):
        say(f"waiting for {what}, which another process is making ({holder_of(holder)})")
        _taken(lock, path.parent, say, wait=True)
    with released(lock), named(holder, command):
        yield


def is_unused(folder: Path, *others: str) -> bool:
    """Whether a folder holds nothing but what its lock, or one of these names, left in it.

    Raises:
        OSError: it is not there, or cannot be looked into.
    """
    return not names_in(folder) - set(others)


def names_in(folder: Path) -> set[str]:
    """What a folder holds beside its lock.

    Raises:
        OSError: as ``is_unused``.
    """
    return {path.name for path in folder.iterdir()} - FILES


def remove_unused(folder: Path, *others: str) -> None:
    """Remove a folder that is unused."""
    with contextlib.suppress(OSError):
        if is_unused(folder, *others):
            shutil.rmtree(folder)


def file_lock(path: Path) -> "BaseFileLock":
    from filelock import FileLock

    try:
        # A marker file in place of a lock would outlive a process that is killed.
        return FileLock(path, fallback_to_soft=False)
    except TypeError:  # before 4.0, which knows no other way
        return FileLock(path)


def _taken(lock: "BaseFileLock", folder: Path, say: Say, *, wait: bool) -> bool:
    """Whether the lock is this process's now; True also where there can be none."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_SECONDS)
    except Timeout:
        return False
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        say(f"the file system of {folder} has no locks: nothing keeps another run from writing there at the same time")
    return True


@contextlib.contextmanager
def released(lock: "BaseFileLock") -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone by now, and the lock goes with the process
            lock.release()
