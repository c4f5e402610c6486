"""Interpreters that have their imports behind them: ``python -m repro ...`` and the kit it starts, forked in place of
started.

A fresh interpreter imports for seconds before it does what a test is about: PyTorch takes two of processor time, and
Transformers four more. Here one process, the server, imports all that once, computes nothing, and is forked for each
command. The copy is made what a fresh interpreter would be (``fresh``): streams, arguments, variables, folder, signals,
warnings, modules. What it starts in turn is forked off it in the same way, so the kit is a true child of its host, with
a number, a group and a command line of its own; signals, limits and locks meet what they would meet.

What is not the same: how the interpreter itself begins and ends, what it takes to import, and what libraries read in
the variables when they are imported. Tests of that start it as a user does; so does everything that is not known to be
equal (``command``), on any system but Linux as well. The product knows nothing of this.

    forked.start(env)                the server
    forked.allowed(True)             within it,
    forked.popen(command, **how)     as subprocess.Popen
    forked.run(command, **how)       as subprocess.run
    forked.words()                   the words for ``repro`` in a line of a shell
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import request
from .command import Command, fits

TESTS = Path(__file__).parents[2]
START = "import sys; sys.path.insert(0, sys.argv[1]); from support.forked.server import main; main(sys.argv[1:])"
ROOM = 4000
"""Bytes of the server's command line, in which its copies write their own."""


@dataclass(frozen=True)
class Server:
    """Where it listens, and the variables that it was started with."""

    place: str
    env: Mapping[str, str]


@dataclass
class Usage:
    """What the forked processes that ended by now have taken, with all they started: seconds of processors, and MB of
    the largest.
    """

    seconds: float = 0.0
    megabytes: float = 0.0


usage = Usage()
_server: Server | None = None
_allowed = False


def start(env: Mapping[str, str]) -> None:
    """Start the server, unless there is one: it imports meanwhile, and the first command waits for it.

    Args:
        env: The variables that the commands will have, but for those that change nothing (``command.FREE``).
    """
    global _server
    if _server is not None or sys.platform != "linux" or sys.version_info[:2] != (3, 11):
        return
    # A socket's name is short: not below a test's own folder. The folder goes with the process that has made it.
    folder, owner = tempfile.mkdtemp(prefix="forked-"), os.getpid()
    place = str(Path(folder, "s"))
    with Path(folder, "log").open("wb") as log, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(TESTS), str(listener.fileno()), " " * ROOM], cwd="/", env=dict(env),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[listener.fileno()],
        )  # fmt: skip

    def end() -> None:
        if os.getpid() == owner:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    _server = Server(place, dict(env))


def popen(command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
    """``subprocess.Popen``, forked off the server where that is the same."""
    known = Command.read(command)
    plain = {"cwd", "env", "stdin", "stdout", "stderr", "text", "encoding", "errors", "start_new_session"}
    env = how.get("env") or os.environ
    if _server is None or not _allowed or known is None or how.keys() - plain or not fits(known, env, _server.env):
        return subprocess.Popen(command, **how)
    return Forked(command, **how)


def run(command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run`` with ``capture_output``, ``timeout`` and ``check=False``, by ``popen``."""
    timeout = how.pop("timeout", None)
    how.pop("check", None)
    if how.pop("capture_output", False):
        how.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with popen(command, **how) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def words() -> list[str]:
    """``python -m repro``; or a small program that asks the server for it, and ends as that does."""
    if _server is None or not _allowed:
        return [sys.executable, "-m", "repro"]
    return [sys.executable, "-I", "-S", request.__file__, _server.place]


@contextlib.contextmanager
def allowed(on: bool) -> Iterator[None]:
    """Within it, whether anything is forked; outside of it, nothing is."""
    global _allowed
    before, _allowed = _allowed, on
    try:
        yield
    finally:
        _allowed = before


class Forked(subprocess.Popen[Any]):
    """A process that the server has forked. It is the server's child: that one is asked how it ended."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any,
                       env: Any, startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int,
                       c2pread: int, c2pwrite: int, errread: int, errwrite: int, restore_signals: Any, gid: Any,
                       gids: Any, uid: Any, umask: Any, start_new_session: bool, *more: Any) -> None:  # fmt: skip
        assert _server is not None
        streams = [given if given >= 0 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        try:
            self._answers, self.pid = request.ask(
                _server.place, [*map(os.fspath, args)], os.fspath(cwd or os.getcwd()),  # noqa: PTH109 - a plain text
                dict(os.environ if env is None else env), streams, start_new_session,
            )  # fmt: skip
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """(pid, status) as waitpid gives it; it is called under the lock."""
        with contextlib.suppress(BlockingIOError):
            status, seconds, kilobytes = request.ended(self._answers, block=not wait_flags & os.WNOHANG)
            usage.seconds += seconds
            usage.megabytes = max(usage.megabytes, kilobytes / 1024)
            return self.pid, status
        return 0, 0

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        lock: threading.Lock = self._waitpid_lock  # type: ignore[attr-defined]
        if self.returncode is None and hasattr(self, "_answers") and lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                lock.release()
        return self.returncode
