"""The standard streams of the command line, whatever state they were handed over in: closed, full, or read by nobody.

What is said on stderr may be lost, and the work goes on. What is printed on stdout may be the whole answer, so that its
loss is an error there; a command whose answer is in a folder as well need not mind.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from repro.core.errors import NobodyReads, NotPrinted

STANDARD = (0, 1, 2)


class _Bytes(io.RawIOBase):
    """The way in for those who print UTF-8 as bytes (click's completion): there is none past the stream."""

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: Any, /) -> int:
        """As of any raw stream."""
        content = bytes(data)
        self._stream.write(content.decode("utf-8", "replace"))
        return len(content)


class Stream:
    """A text stream whose first failure is its last: from then on what is written goes nowhere.

    Args:
        inner: The stream; None where the process was started without one.
        name: Its name for a message.
        may_be_lost: Whether a failure is passed over in silence.
    """

    def __init__(self, inner: IO[str] | None, name: str, *, may_be_lost: bool) -> None:
        self._inner = inner
        self._name = name
        self._may_be_lost = may_be_lost
        self._failure: OSError | ValueError | None = None
        self.encoding = getattr(inner, "encoding", None) or "utf-8"
        self.errors = "backslashreplace"
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """As of any text stream."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._try(lambda inner: inner.write(text))
        return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        if self._inner is not None and self._failure is None:
            self._try(lambda inner: inner.flush())

    def _try(self, act: Callable[[IO[str]], object]) -> None:
        if self._failure is None:
            try:
                if self._inner is None:
                    raise OSError(errno.EBADF, "it is closed")
                act(self._inner)
                return
            except (OSError, ValueError) as error:  # ValueError: somebody has closed the object
                self._failure = error
                self._drop()
        if self._may_be_lost:
            return
        if isinstance(self._failure, BrokenPipeError):
            raise NobodyReads("nobody reads stdout any more.") from self._failure
        raise NotPrinted(f"could not print the answer on {self._name}: {_words(self._failure)}.") from self._failure

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return self._inner is not None and not self._inner.closed and self._inner.isatty()

    def fileno(self) -> int:
        """The descriptor, for processes that are to print there too."""
        if self._inner is None:
            raise OSError(errno.EBADF, f"{self._name} is closed")
        return self._inner.fileno()

    def writable(self) -> bool:
        """Always: what cannot be written is lost here."""
        return True

    def _drop(self) -> None:
        """What is still buffered goes nowhere, and Python does not complain of it at its end."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._inner.fileno())  # type: ignore[union-attr] # None is among what is suppressed
            finally:
                os.close(null)


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Within it, all three descriptors are open, and writing to stdout and stderr fails in no unforeseen way."""
    hold_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before[1:]:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a token must not end the run
    out: Any = Stream(sys.stdout, "stdout", may_be_lost=False)
    err: Any = Stream(sys.stderr, "stderr", may_be_lost=True)
    sys.stdout, sys.stderr = out, err
    with contextlib.ExitStack() as stack:
        if sys.stdin is None:  # descriptor 0 was closed
            sys.stdin = stack.enter_context(Path(os.devnull).open(encoding="utf-8"))
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


def hold_descriptors() -> None:
    """Open /dev/null where a standard descriptor is closed: the next file that is opened would take its number, and
    whoever prints there would write into that file.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
