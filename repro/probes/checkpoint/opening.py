"""Files from elsewhere: only regular ones are opened, and nothing waits for the other end of a pipe.

A FIFO would wait for a writer for ever, a device never ends, and reading some devices does something. So a file is
looked at before it is opened, opened without waiting, and looked at again: another may have been put in its place.
"""

import errno
import io
import json
import os
import reprlib
import stat
from typing import Any, Optional, cast

from . import limits

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (a named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class NotAFile(OSError):
    """Something else than a regular file; ``strerror`` says what."""


class BadJson(ValueError):
    """The text is no JSON, or is nested too deeply. The message says where."""


class TooLong(BadJson):
    """A number in it has more digits than Python reads."""

    def __init__(self) -> None:
        super().__init__("it holds a whole number of thousands of digits")


class TooDeep(BadJson):
    """It is nested more deeply than any reader of it goes."""

    def __init__(self) -> None:
        super().__init__(f"it is nested more than {limits.NESTED} levels deep")


def what_else(mode: int) -> Optional[str]:
    """What something is that is no regular file; None for one that is."""
    kind = stat.S_IFMT(mode)
    return None if kind == stat.S_IFREG else KINDS.get(kind, "no regular file")


def check_is_file(path: str) -> None:
    """Refuse what is no regular file.

    Raises:
        NotAFile: it is something else.
        OSError: it is not there, or cannot be looked at.
    """
    _refuse(path, os.stat(path).st_mode)


def open_foreign(path: str, buffering: int = -1) -> io.BufferedReader:
    """The bytes of a regular file; links are followed.

    Raises:
        NotAFile, OSError: as ``check_is_file``.
    """
    check_is_file(path)
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse(path, os.fstat(number).st_mode)
        return cast(io.BufferedReader, os.fdopen(number, "rb", buffering))
    except BaseException:
        os.close(number)
        raise


def read_json(path: str, most: int) -> Any:
    """What a JSON file of at most ``most`` bytes holds.

    Raises:
        NotAFile, OSError: as ``check_is_file``.
        BadJson: it is none.
        OverLimit: it is larger, or nested more deeply than any reader of it goes.
    """
    name = os.path.basename(path)
    with open_foreign(path) as stream:
        limits.check(name, os.fstat(stream.fileno()).st_size, most, "bytes")
        raw = stream.read()
    try:
        found = json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise TooDeep from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadJson(f"it is no JSON: {error}" if raw.strip() else "it is empty") from None
    except ValueError:  # the digits of one number: Python reads 4,300
        raise TooLong from None
    if depth_of(found) > limits.NESTED:
        raise TooDeep
    return found


def depth_of(data: Any) -> int:
    """How many lists and objects lie inside each other; counted no further than is of interest."""
    depth, level = 0, [data]
    while level and depth <= limits.NESTED:
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += bool(level)
    return depth


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxdict = 6


def shown(value: Any) -> str:
    """Something out of a file in a message: quoted, so that no letter of it acts, and of a length that can be read."""
    return _short.repr(value)


def _refuse(path: str, mode: int) -> None:
    found = what_else(mode)
    if found is not None:
        raise NotAFile(errno.EINVAL, f"it is {found}, where a regular file is needed", path)
