"""The processes that one process has started, and those that they have: found and ended, as far as the system lets them
be found.

On Linux a process may take the place of init for what it starts (a subreaper): whoever leaves its session and its
parent is then still found below it, in /proc. On other systems nothing is found here, and what leaves its session
stays.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Source: linux/prctl.h."""
KILL = 9
"""SIGKILL: what such a process has recorded is on the disk, and it must not outlive the lock that its parent held."""
LAUNCH = f"""import ctypes, os, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {KILL}, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
PARENT_VARIABLE = "REPRO_PARENT"
"""The process with which one that is started for it ends; the kit reads the same."""


def adopt(on: bool) -> None:
    """From now on this process is, or is no longer, the parent of the orphans below it."""
    _prctl(PR_SET_CHILD_SUBREAPER, int(on))


def end_with_parent() -> None:
    """End this process when the one that started it ends, however that is, where that one has asked for it."""
    asked = os.environ.pop(PARENT_VARIABLE, None)
    if asked is None:
        return
    _prctl(PR_SET_PDEATHSIG, KILL)
    if sys.platform == "linux" and str(os.getppid()) != asked:  # it has ended meanwhile
        os.kill(os.getpid(), KILL)


def asking_to_end_with_this(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that calls ``end_with_parent``, or is the kit."""
    return {**variables, PARENT_VARIABLE: str(os.getpid())}


def ending_with_this(command: Sequence[str]) -> list[str]:
    """The command of a program that knows nothing of this, and all the same ends with this process, on Linux."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *command]


def children(pid: int) -> set[int]:
    """The processes that this one is the parent of, zombies included."""
    return {child for child, (parent, _) in _every().items() if parent == pid}


def below(pid: int) -> set[int]:
    """What this process has started, what that has started, and so on."""
    every, found = _every(), {pid}
    while more := {child for child, (parent, _) in every.items() if parent in found} - found:
        found |= more
    return found - {pid}


def end(pids: Iterable[int]) -> set[int]:
    """Kill these processes and all below them; of those that are this process's own not even a zombie is left.

    Returns:
        Those that were alive.
    """
    ended: set[int] = set()
    seen: set[int] = set()
    while left := ({*pids}.union(*map(below, pids)) & set(every := _every())) - seen - {os.getpid()}:
        ended |= {pid for pid in left if every[pid][1]}
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, KILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        seen |= left
    return ended


def _every() -> dict[int, tuple[int, bool]]:
    """Of each process its parent, and whether it is alive and no zombie; empty where there is no /proc."""
    found = {}
    # Not by a pattern: that looks at each file outside of what is suppressed below.
    names = (path.name for path in Path("/proc").iterdir()) if sys.platform == "linux" else ()
    for name in filter(str.isdigit, names):
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            # The name, in brackets, may hold anything: proc(5).
            text = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace")
            state, parent = text.rpartition(")")[2].split()[:2]
            found[int(name)] = int(parent), state not in "ZX"
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
