"""Files from elsewhere: only regular ones are opened, and nothing waits for the other end of a pipe.

A FIFO would wait for a writer for ever, a device never ends, and reading some devices does something. So a file is
looked at before it is opened, opened without waiting, and looked at again: another may have been put in its place.
"""

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import TextIO

from repro.core.errors import UsageError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (a named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class NotAFile(UsageError):
    """A path that was given, or that a given file names, is no regular file."""


def what_else(mode: int) -> str | None:
    """What something is that is no regular file; None for one that is."""
    kind = stat.S_IFMT(mode)
    return None if kind == stat.S_IFREG else KINDS.get(kind, "no regular file")


def dead_link(path: Path) -> str | None:
    """Where a link leads that leads to nothing; None for anything else."""
    try:
        if not path.is_symlink():
            return None
        path.stat()
    except FileNotFoundError:
        return f"{path} is a link to {path.readlink()}, which is not there"
    except OSError as error:
        if error.errno == errno.ELOOP:
            with contextlib.suppress(OSError):  # where the folder that holds it is such a link, it cannot be read
                return f"{path} is a link to {path.readlink()}, which leads round in a circle"
    return None


def check_is_file(path: Path, *, pipe: bool = False) -> None:
    """Refuse what is no regular file; with ``pipe``, a pipe is as good as one.

    Raises:
        NotAFile: it is something else; the message says what.
        OSError: it is not there, or cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (pipe and stat.S_ISFIFO(mode)):
        _refuse(path, mode)


def open_foreign(path: Path) -> io.BufferedReader:
    """The bytes of a regular file; links are followed.

    Raises:
        NotAFile, OSError: as ``check_is_file``.
    """
    check_is_file(path)
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse(path, os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def open_text(path: Path, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None) -> TextIO:
    """The same as text."""
    return io.TextIOWrapper(open_foreign(path), encoding, errors, newline)


def read_foreign(path: Path, most: int = -1) -> bytes:
    """The bytes of a regular file, at most ``most`` of them.

    Raises:
        NotAFile, OSError: as ``check_is_file``.
    """
    with open_foreign(path) as file:
        return file.read(most)


def _refuse(path: Path, mode: int) -> None:
    found = what_else(mode)
    if found is not None:
        raise NotAFile(f"{path} is {found}, where a regular file is needed. Give a file.")
