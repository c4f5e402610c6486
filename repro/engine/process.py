"""One process of the kit: its stdout as lines, its stderr into kit.log and a tail, its deadline and its end."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from repro.core.errors import CellError
from repro.core.locks import Say, nobody
from repro.core.paths import not_written
from repro.core.processes.exhausted import exhausted
from repro.core.processes.family import adopt, asking_to_end_with_this, below, children, end

LOG = "kit.log"
LOG_HEAD, LOG_TAIL = 8 << 20, 1 << 20
"""Bytes of kit.log: of a process that prints without end, the first and the last are kept."""
LONGEST_EVENT = 64 << 20
"""Bytes of one line of stdout. The longest of a real kit are some MB: every operator of a pass."""
LONGEST_LINE = 1 << 16
"""Bytes of one line of stderr that are looked at; a longer one counts as several."""
SHOWN_LINE = 2000
"""Characters of a line of stderr that an observation keeps."""
MOST_WAITING = 1000
"""Lines of stdout that wait to be read; a process that writes faster has to wait."""
WARNING = re.compile(r"\S.*:\d+: \w*Warning: |\[W[\d:. ]+ ")
"""How Python's own warnings begin, and those of PyTorch's C++. Behind the former stands the source line, indented."""
TAIL_LINES = 40
"""How much of the kit's stderr an observation keeps; the whole is in kit.log."""
POLL_SECONDS = 0.5
"""How often a silent kit is looked at: its end shows at once, unless a process that it started keeps the pipe open."""
TERMINATE_SECONDS = 3.0
"""How long a kit that was told to stop may take before it is killed."""


class _Log:
    """A file that is appended to, of bounded size: what is too much is left out of its middle, and how much that is.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._room = LOG_HEAD
        self._tail: deque[bytes] = deque()
        self._waiting = self._left_out = 0
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Append; a full disk must not end the reading."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._file.write(data[: self._room])
            data, self._room = data[self._room :], max(0, self._room - len(data))
            if data:
                self._tail.append(data)
                self._waiting += len(data)
            while self._waiting - len(self._tail[0] if self._tail else b"") > LOG_TAIL:
                self._waiting -= len(self._tail[0])
                self._left_out += len(self._tail.popleft())

    def close(self) -> None:
        """Write what was held back of the end."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._left_out:
                self._file.write(f"\n[repro] {self._left_out:,} bytes are left out here\n".encode())
            self._file.write(b"".join(self._tail))
        self._file.close()


class Process:
    """A running kit, in a session of its own. As a context manager it leaves nothing running behind, as far as the
    system lets it be found; and it ends with this process, however that ends.

    ``stopped``: whether a signal has stopped it and nothing has made it go on.

    Args:
        argv: Program and arguments. The environment is passed on, with the number of this process.
        folder: Where kit.log is, which is appended to.
        say: Is given a line where the kit is stopped by a signal, or goes on.
        stopped_seconds: How long it may be stopped; None is no limit.

    Raises:
        CellError: the program cannot be started.
        EvidenceError: the log cannot be written.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        folder: Path,
        say: Say = nobody,
        stopped_seconds: float | None = None,
    ) -> None:
        self.argv = argv
        self.stopped = False
        self._say, self._stopped_seconds = say, stopped_seconds
        self._until_stopped: float | None = None
        try:
            self._log = _Log(folder / LOG)
        except OSError as error:
            raise not_written(folder / LOG, error) from error
        self.timed_out = False
        self.deadline: float | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._fatal: list[str] = []
        self._in_warning = False
        self._queue: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._over = False
        self._others = children(os.getpid())
        adopt(True)
        try:
            self._child = subprocess.Popen(
                argv,
                env=asking_to_end_with_this(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            adopt(False)
            self._log.close()
            remedy = exhausted(error) or "Give a working Python with --python."
            raise CellError(f"could not start {argv[0]}: {error.strerror}. {remedy}") from error
        assert self._child.stdout is not None and self._child.stderr is not None
        self._threads = [
            threading.Thread(target=self._read_events, args=(self._child.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._child.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._over = True
        for thread, pipe in zip(self._threads, (self._child.stdout, self._child.stderr), strict=True):
            thread.join(TERMINATE_SECONDS)
            # A process that outlives the kit may hold the pipe; its thread then keeps reading until the host ends.
            if pipe is not None and not thread.is_alive():
                pipe.close()
        adopt(False)
        self._log.close()

    def log(self, text: str) -> None:
        """A line of the host's own in kit.log."""
        self._log.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def _read_events(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(LONGEST_EVENT):
                if len(line) == LONGEST_EVENT and not line.endswith(b"\n"):
                    line = line[:SHOWN_LINE]  # no event: the rest of it is passed over
                    while (rest := pipe.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                self._put(line)
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        """Hand a line on, unless nobody takes lines any more."""
        while not self._over:
            with contextlib.suppress(queue.Full):
                self._queue.put(line, timeout=POLL_SECONDS)
                return

    def _read_stderr(self, pipe: IO[bytes]) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(pipe.fileno(), 65536):
                self._log.write(chunk)
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                self._keep(lines)
        self._keep([rest])

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if not text:
                continue
            if len(text) > SHOWN_LINE:
                text = f"{text[: SHOWN_LINE // 2]} ... {text[-SHOWN_LINE // 2 :]}"
            source = self._in_warning and text[0].isspace()
            self._in_warning = WARNING.match(text) is not None
            if source or self._in_warning:
                continue  # of a process that died, the last words are what is asked for
            self._tail.append(text)
            # The fault handler prints the innermost frame first: what follows its headline says most.
            if (self._fatal or text.startswith("Fatal Python error")) and len(self._fatal) < TAIL_LINES:
                self._fatal.append(text)

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines of stderr without warnings; after a fatal error, the lines from its headline on."""
        return tuple(self._fatal or self._tail)

    def lines(self) -> Iterable[bytes]:
        """The lines of stdout, until the process has ended or ``deadline`` has come (then ``timed_out`` is set)."""
        while True:
            self._look_whether_it_is_stopped()
            until = earliest(self.deadline, self._until_stopped)
            if until is not None and time.monotonic() >= until:
                self.timed_out = True
                self.stop()
                return
            left = POLL_SECONDS if until is None else min(POLL_SECONDS, until - time.monotonic())
            try:
                line = self._queue.get(timeout=max(left, 0.0))
            except queue.Empty:
                if self._child.poll() is not None and self._queue.empty():
                    return
                continue
            if line is None:
                return
            yield line

    def _look_whether_it_is_stopped(self) -> None:
        """A stopped process says nothing, and whoever waits for it should know why."""
        if not hasattr(os, "waitid"):  # Windows, and macOS before Python 3.13
            return
        with contextlib.suppress(ChildProcessError):
            seen = os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if seen is None or seen.si_code not in (os.CLD_STOPPED, os.CLD_CONTINUED):
                return
            self.stopped = seen.si_code == os.CLD_STOPPED
            limit = self._stopped_seconds if self.stopped else None
            self._until_stopped = None if limit is None else time.monotonic() + limit
            self._say(self._of_the_stop(limit))

    def _of_the_stop(self, limit: float | None) -> str:
        if not self.stopped:
            return "the kit goes on"
        end = "--step-timeout SECONDS would end it" if limit is None else f"otherwise it is ended in {limit:g} s"
        pid = self._child.pid
        return f"a signal has stopped the kit (process {pid}): `kill -CONT {pid}` lets it go on; {end}"

    def finish(self) -> None:
        """Let a process that has said "done" end by itself; one that does not is stopped."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(TERMINATE_SECONDS)

    def exit_status(self) -> int:
        """The exit status after the pipe was closed: minus the signal's number where a signal ended the process."""
        try:
            status = self._child.wait(TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            self.log("[repro] the kit closed its stdout and did not end")
            self.stop()
            status = self._child.wait()
        self._signal("SIGKILL")
        self._end_what_is_left()
        self._threads[1].join(TERMINATE_SECONDS)
        return status

    def stop(self) -> None:
        """End the process and the group that it leads: first asked, then killed.

        A group outlives its leader, and its number is not given away as long as it has members.
        """
        if self._child.poll() is None:
            self._signal("SIGTERM")
            self._signal("SIGCONT")  # a stopped process does not even end
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(TERMINATE_SECONDS)
        family = below(self._child.pid) if self._child.poll() is None else set()
        self._signal("SIGKILL")
        self._child.wait()
        self._end_what_is_left(family)

    def _end_what_is_left(self, family: Iterable[int] = ()) -> None:
        """End what the kit or what it ran has left behind in sessions of their own; this process has adopted it."""
        adopted = children(os.getpid()) - self._others - {self._child.pid}
        ended = end({*family, *adopted})
        if ended:
            self.log(f"[repro] ended what was left behind: {', '.join(map(str, sorted(ended)))}")

    def _signal(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._child.kill()
            else:
                os.killpg(self._child.pid, signal.Signals[name])


def earliest(first: float | None, second: float | None) -> float | None:
    """Of two moments the first; None where there is neither."""
    return min((moment for moment in (first, second) if moment is not None), default=None)


def death(status: int) -> tuple[str | None, str]:
    """Signal name, or None, and words for the end of a process, from its exit status as ``subprocess`` gives it."""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = None
    if name is None:
        return None, f"ended with exit status {status}"
    words = f"was ended by {name}" if status < 0 else f"ended with exit status {status} (a shell's word for {name})"
    if name == "SIGKILL":
        words += " (the out-of-memory killer is a usual cause)"
    return name, words
