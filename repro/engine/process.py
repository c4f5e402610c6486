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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from repro.core.errors import CellError
from repro.core.paths import not_written
from repro.core.processes.family import adopt, asking_to_end_with_this, below, children, end

LOG = "kit.log"
TAIL_LINES = 40
"""How much of the kit's stderr an observation keeps; the whole is in kit.log."""
POLL_SECONDS = 0.5
"""How often a silent kit is looked at: its end shows at once, unless a process that it started keeps the pipe open."""
TERMINATE_SECONDS = 3.0
"""How long a kit that was told to stop may take before it is killed."""


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
        say: Callable[[str], None],
        stopped_seconds: float | None = None,
    ) -> None:
        self.argv = argv
        self.stopped = False
        self._say, self._stopped_seconds = say, stopped_seconds
        self._until_stopped: float | None = None
        try:
            self._log = (folder / LOG).open("ab", buffering=0)
        except OSError as error:
            raise not_written(folder / LOG, error) from error
        self.timed_out = False
        self.deadline: float | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._fatal: list[str] = []
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
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
            raise CellError(
                f"could not start {argv[0]}: {error.strerror}. Give a working Python with --python."
            ) from error
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
        for thread, pipe in zip(self._threads, (self._child.stdout, self._child.stderr), strict=True):
            thread.join(TERMINATE_SECONDS)
            # A process that outlives the kit may hold the pipe; its thread then keeps reading until the host ends.
            if pipe is not None and not thread.is_alive():
                pipe.close()
        adopt(False)
        self._log.close()

    def log(self, text: str) -> None:
        """A line of the host's own in kit.log; a full disk must not end the reading."""
        with contextlib.suppress(OSError, ValueError):
            self._log.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def _read_events(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in pipe:
                self._queue.put(line)
        self._queue.put(None)

    def _read_stderr(self, pipe: IO[bytes]) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(pipe.fileno(), 65536):
                with contextlib.suppress(OSError, ValueError):
                    self._log.write(chunk)
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                self._keep(lines)
        self._keep([rest])

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if not text:
                continue
            self._tail.append(text)
            # The fault handler prints the innermost frame first: what follows its headline says most.
            if (self._fatal or text.startswith("Fatal Python error")) and len(self._fatal) < TAIL_LINES:
                self._fatal.append(text)

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines of stderr; after a fatal error, the lines from its headline on."""
        return tuple(self._fatal or self._tail)

    def lines(self) -> Iterable[bytes]:
        """The lines of stdout, until the process has ended or ``deadline`` has come (then ``timed_out`` is set)."""
        while True:
            self._look_whether_it_is_stopped()
            until = min((moment for moment in (self.deadline, self._until_stopped) if moment is not None), default=None)
            left = POLL_SECONDS if until is None else min(POLL_SECONDS, until - time.monotonic())
            try:
                line = self._queue.get(timeout=max(left, 0.0))
            except queue.Empty:
                if until is not None and time.monotonic() >= until:
                    self.timed_out = True
                    self.stop()
                    return
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
