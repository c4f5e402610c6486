"""In the process of a candidate: its own folders, a seed, and no more access than the original had.

A statement that is left out, or an argument, may turn a call that removes one file into one that removes all of them.
So what the original wrote, started and connected to is put down once, and a candidate is refused everything else
outside of its own folders. This is a rail for accidents; code that wants to get around it can.
"""

import contextlib
import functools
import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Callable, Optional

import torch

from .alike import Pair, Shapes, apart, told
from .conduct import Conduct, held_to

CONFINED = "listing.runs.confined:confined"
Access = tuple[str, ...]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Where each event has a path, and the open folder that this stands in. A link is followed by those of FOLLOWED alone.
# Source of the events and their arguments: https://docs.python.org/3/library/audit_events.html
CHANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "os.chmod": ((0, 2),), "os.chown": ((0, 3),), "os.link": ((0, 2), (1, 3)), "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),), "os.rename": ((0, 2), (1, 3)), "os.rmdir": ((0, 1),), "os.symlink": ((1, 2),),
    "os.truncate": ((0, 9),), "os.utime": ((0, 3),), "shutil.rmtree": ((0, 1),),
}  # fmt: skip
FOLLOWED = ("os.chmod", "os.chown", "os.truncate", "os.utime")
STARTS = ("os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "subprocess.Popen")
CONNECTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.bind")
SIGNALS = ("os.kill", "os.killpg", "signal.pthread_kill")
DEVICES = (os.devnull, "/dev/tty", "/dev/shm")


@dataclass(frozen=True)
class Confinement:
    """How one run is confined.

    root: where it may write. folder: the current one. temporary: for files of a moment. cache: for compiled code, which
    all share.
    seed: of every generator. allowed: what else it may do; None for anything. threads: of PyTorch; None as it comes.
    most: seconds of a processor behind which the system ends it; None for any number.
    alike: arguments of a module that are of one shape. conduct: the original's, which it is held to; None for any.
    """

    root: str
    folder: str
    temporary: str
    cache: str
    seed: int
    allowed: Optional[frozenset[Access]]
    threads: Optional[int] = None
    most: Optional[float] = None
    alike: frozenset[Pair] = frozenset()
    conduct: Optional[Conduct] = None


def confined(given: Confinement) -> tuple[Any, Callable[[], None]]:
    """(context around the script, function that gives nothing)."""
    return _around(given), lambda: None


@contextlib.contextmanager
def _around(given: Confinement) -> Iterator[None]:
    os.chdir(given.folder)
    tempfile.tempdir = os.environ["TMPDIR"] = given.temporary
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TRITON_CACHE_DIR"] = given.cache
    sys.dont_write_bytecode = True
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    random.seed(given.seed)
    torch.manual_seed(given.seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(given.seed)
    if given.most is not None and hasattr(signal, "setitimer"):  # Windows has none
        signal.setitimer(signal.ITIMER_PROF, given.most)  # a limit of the system has whole seconds only
    if given.alike:
        told(functools.partial(_refuse, given.alike))
    if given.allowed is not None:
        heard(_Refusing((os.path.realpath(given.root), os.path.realpath(given.cache)), given.allowed))
    with contextlib.nullcontext() if given.conduct is None else held_to(given.conduct):
        yield


def _refuse(alike: frozenset[Pair], shapes: Shapes) -> None:
    """End a run in which two arguments have come apart."""
    found = apart(shapes, alike)
    if found:
        raise TypeError(f"a smaller script gives {found[0]} the shapes {[shapes[name] for name in found[0]]}")


class _Refusing:
    """Raises on what was not allowed. It is removed by nothing but the end of the process."""

    def __init__(self, roots: tuple[str, ...], allowed: frozenset[Access]) -> None:
        self._roots = roots
        self._allowed = allowed

    def __call__(self, access: Access) -> None:
        event, *targets = access
        if access in self._allowed or (event in STARTS and _is_torch_calling()):
            return
        if event in ("open", *CHANGES) and all(_inside(target, self._roots) for target in targets):
            return
        raise PermissionError(f"a smaller script may not do what the original did not do: {event} {targets}")


def heard(told: Callable[[Access], None]) -> None:
    """From now on, until the process ends, what it writes, starts and connects to is told before it happens."""
    busy: list[bool] = []

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if busy or not (event == "open" or event in CHANGES or event in (*STARTS, *CONNECTS, *SIGNALS)):
            return
        busy.append(True)  # to find out what a path is may raise events by itself
        try:
            access = _access(event, given)
            if access is not None:
                told(access)
        finally:
            busy.clear()

    sys.addaudithook(hook)
    _tell_of_files_outside_python()


def _access(event: str, given: tuple[Any, ...]) -> Optional[Access]:
    """The event as it is compared; None for what does no harm."""
    if event == "open":
        path, mode, flags = (*given, None, None)[:3]
        writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITING)
        target = _real(path)
        return None if not writes or target is None or target.startswith(DEVICES) else (event, target)
    if event in CHANGES:
        places = (
            _real(given[at], given[folder] if folder < len(given) else -1, event in FOLLOWED)
            for at, folder in CHANGES[event]
        )
        return (event, *[place for place in places if place is not None])
    if event in SIGNALS:
        return None if given and given[0] in (os.getpid(), os.getpgrp()) else (event, *map(str, given))
    if event == "socket.connect" and isinstance(given[-1], (str, bytes)):
        return None  # a socket of this machine's file system
    shown = given[1:2] if event in ("subprocess.Popen", "socket.connect", "socket.sendto", "socket.bind") else given[:2]
    return (event, *map(str, shown))


def _real(path: Any, folder: Any = -1, followed: bool = True) -> Optional[str]:
    """Where a path leads; None for an open file. folder: the open folder that it stands in."""
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0:
        with contextlib.suppress(OSError):
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    if followed:
        return os.path.realpath(text)
    text = os.path.abspath(text)
    return os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))


def _inside(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(os.path.join(root, "")) for root in roots)


def _is_torch_calling() -> bool:
    """Whether the innermost code outside of the standard library is PyTorch's: its compiler starts another."""
    inside = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")
    library = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(inside):
            return True
        own = name == __file__ or name.startswith("<frozen")
        if not own and (not name.startswith(library) or "site-packages" in name):
            return False
        frame = frame.f_back
    return False


def _tell_of_files_outside_python() -> None:
    """What writes its file in C++ or Rust raises no event by itself."""
    save = torch.save

    def saved(obj: Any, f: Any, *given: Any, **named: Any) -> Any:
        _say(f)
        return save(obj, f, *given, **named)

    torch.save = saved
    module = sys.modules.get("safetensors.torch")
    serialize: Any = getattr(module, "serialize_file", None)
    if serialize is not None:

        def serialized(tensors: Any, filename: Any, *given: Any, **named: Any) -> Any:
            _say(filename)
            return serialize(tensors, filename, *given, **named)

        module.serialize_file = serialized  # type: ignore[union-attr] # it has one


def _say(file: Any) -> None:
    if isinstance(file, (str, os.PathLike)):
        sys.audit("open", os.fspath(file), "wb", WRITING)
