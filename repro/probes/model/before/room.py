"""How much memory there is, how much a model will take of it, and a bound around what a configuration asks for."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Optional

from ...checkpoint import limits
from ...checkpoint.limits import OverLimit

LEAST_ROOM = 1 << 30  # for building without memory for the weights; the modules of DeepSeek-V3 take less
AGAIN_SECONDS = 1.0  # a library that swallows what it does not know is interrupted until it lets go


def free_memory() -> Optional[int]:
    """Bytes that this process can still take, swap included; None where the system does not say (Linux does)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            of = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free = of["MemAvailable"] + of.get("SwapFree", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return min([free, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What the control group of a container or a batch job leaves, in both versions of them."""
    for folder, most, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            numbers = []
            for name in (most, used):
                with open(os.path.join(folder, name), encoding="ascii") as stream:
                    numbers.append(int(stream.read()))
            yield max(0, numbers[0] - numbers[1])


def check_fits(needed: float, kind: str, remedy: str = "", *, whole: bool = True) -> None:
    """Refuse what the system would end this process for.

    Args:
        needed: Bytes that are not there yet.
        kind: In what they are needed, such as a dtype.
        remedy: A further thing that a person can do.
        whole: Whether there is no more than that.

    Raises:
        OverLimit: there is less; nothing is known and nothing refused where the system does not say.
    """
    free = free_memory()
    if free is not None and needed > limits.allowed(free):
        raise OverLimit(
            f"The model needs {'about' if whole else 'more than'} {gigabytes(needed)} in {kind},"
            f" and this machine has {gigabytes(free)} free. {remedy}{' ' if remedy else ''}"
            "`repro weights` reads the files without loading them."
            f" To load it all the same: --limits none ({limits.VARIABLE}=none)."
        )


def gigabytes(count: float) -> str:
    """ "54 GB", "0.3 GB"."""
    return f"{count / 1e9:,.0f} GB" if count >= 1e10 else f"{count / 1e9:.1f} GB"


class _Interrupted(BaseException):
    """The time is over. No library takes it for an error of its own."""


@contextlib.contextmanager
def bounded(what: str, most_seconds: float = limits.BUILD_SECONDS) -> Iterator[None]:
    """Within it, what a configuration asks for may take some time and some memory, and more is refused.

    Only in the main thread, for Python interrupts no other; the memory only where the system limits it.

    Raises:
        OverLimit: it took more. The message says what to do.
    """
    seconds = limits.allowed(most_seconds)
    if seconds == float("inf") or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with _alarm(seconds), _less_memory():
            yield
    except _Interrupted:
        raise OverLimit(f"{what} takes more than {seconds:,.0f} seconds. {_LOOK} {limits.remedy()}") from None
    except MemoryError:
        raise OverLimit(f"{what} takes more memory than there is. {_LOOK} {limits.remedy()}") from None


_LOOK = "Look for a number in config.json that is far too large, such as that of the layers."


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt after so many seconds, and again until it is heard."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: Optional[FrameType]) -> None:
        raise _Interrupted

    before: Any = signal.signal(signal.SIGALRM, ring)
    running = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *running)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _less_memory() -> Iterator[None]:
    """Let Python say that there is no memory before the system ends the process."""
    free = free_memory()
    used = _mapped()
    if free is None or used is None:
        yield
        return
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + max(LEAST_ROOM, free // 2)
    if (before != resource.RLIM_INFINITY and before < most) or (hard != resource.RLIM_INFINITY and hard < most):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def _mapped() -> Optional[int]:
    """Bytes of address space that this process has."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
