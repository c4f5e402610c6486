"""The processes that a script leaves behind, found and ended; and this process ended with the one that started it.

On Linux this process takes the place of init for what it starts (a subreaper): whoever leaves its session and its
parent is then still found below it, in /proc. On other systems nothing is found here.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PARENT = "REPRO_PARENT"  # which process has asked that this one ends with it
end_at_once = os._exit  # by this name: code that runs in a copy of this process may put anything in its place there
_C = ctypes.CDLL(None) if LINUX else None  # loaded here: nothing is loaded between a fork and what follows


def end_with_host() -> None:
    """End when the host ends, however that is: nobody reads the answers any more, and its lock is gone."""
    host = os.environ.pop(PARENT, None)
    if host is None or not LINUX:
        return
    die_with_parent()
    if os.getppid() != int(host):  # it has ended meanwhile
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_parent() -> None:
    """From now on the end of the process that started this one ends this one."""
    if _C is not None:
        _C.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[list[int]]:
    """What is started within it, and what that starts, has ended afterwards. Gives the list of those that had not."""
    before: dict[int, bool] = _below()
    left: list[int] = []
    if _C is not None:
        _C.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield left
    finally:
        seen = set(before)
        while new := {pid: alive for pid, alive in _below().items() if pid not in seen}:
            seen |= set(new)
            left.extend(sorted(pid for pid, alive in new.items() if alive))
            _kill(new)
        if _C is not None:
            _C.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _kill(pids: "dict[int, bool]") -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _below() -> "dict[int, bool]":
    """Each process below this one, and whether it is alive and no zombie; empty where there is no /proc."""
    parents, alive = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")) if LINUX else ():
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as opened:
                # The name of the program, in brackets, may hold anything: proc(5).
                state, parent = opened.read().rpartition(")")[2].split()[:2]
            parents[int(name)], alive[int(name)] = int(parent), state not in "ZX"
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: alive[pid] for pid in found if pid != os.getpid()}
