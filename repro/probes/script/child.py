"""A process of its own for each run of a user's script: the script ends there as it would under ``python script.py``,
and its exit status is the operating system's.

Nothing that this kit writes is open in it. A run that is watched, or has a setting changed, is a fork of this process
where that is possible, for PyTorch is imported here already; the plain run is a fresh interpreter.
"""

import ast
import atexit
import builtins
import collections
import contextlib
import importlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..machine.family import LINUX, die_with_parent, end_at_once, nothing_left_behind
from ..program.settings import applied, idle
from ..protocol import wire
from .folder import own_folder

LINES = 40  # of what it printed are kept
LINE = 4000  # characters of each
COMPARING = frozenset({"testing", "unittest", "_pytest"})  # parts of the names of modules whose calls are assertions
DECORATING = ("contextlib", "functools")
TRACEBACK = b"Traceback (most recent call last)"
DRAIN_SECONDS = 0.3  # how long a pipe that a grandchild holds open is read after the script has ended
BRINGING_A_COMPILER = (b"compile", b"optim")  # the first step of an optimizer imports it, which takes a second
LIBRARIES = ("torch", "transformers", "numpy", "safetensors")  # that a script's copies of this process need not import

# ``python -c`` looks for modules in the current folder first, where anything may lie.
SPAWNED = """import sys
if not getattr(sys.flags, "safe_path", False): del sys.path[0]
sys.path.insert(0, {!r})
from {} import child_main; child_main({!r})"""


@dataclass(frozen=True)
class Around:
    """What is around a run beside what its job says.

    within: a "module:function" as for a watch, with what it is called with; what it gives is around all the rest.
    seconds: when the run is ended, as if killed. folder: where it reports; the system's own for such where None.
    """

    within: Optional[tuple[str, Any]] = None
    seconds: Optional[float] = None
    folder: Optional[str] = None


@dataclass(frozen=True)
class Job:
    """One run of the script at ``path``.

    settings: names of what is changed before it starts. watch: "module:function" of this kit, called with ``given``;
    it returns (context manager around the script's own code, function that gives what was found).
    """

    path: str
    settings: tuple[str, ...] = ()
    watch: Optional[str] = None
    given: Any = None
    around: Around = Around()


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    status: the operating system's; minus the signal's number where a signal ended it. how: what the script's code did
    last: {"how": "ended"}, {"how": "exit"}, or {"how": "raised", ...}, each with "idle": why settings changed nothing;
    None where the process was gone before that was known. lines: the last on standard output. errors: the last on
    standard error. traceback: whether one was printed there. found: what the watch found; None where it could not say.
    """

    status: int
    how: Optional[dict[str, Any]]
    lines: tuple[str, ...]
    errors: tuple[str, ...]
    traceback: bool
    found: Any


@dataclass(frozen=True)
class Started:
    """A process. wait: its status once it has ended; with True, its end is waited for."""

    pid: int
    wait: Callable[[bool], Optional[int]]


def plain(path: str) -> Ended:
    """``python path``, and nothing else. What it prints also goes where this process prints."""
    return _ended(lambda out, err: _started([path], out, err), None, True)


def run(job: Job) -> Ended:
    """Run it to its end, watched or changed."""
    with own_folder(job.around.folder) as folder:
        report = os.path.join(folder, "report")
        start = _fork if _can_fork(job) else _spawn
        return _ended(lambda out, err: start(job, report, out, err), report, False, job.around.seconds)


def _ended(
    start: Callable[[int, int], Started], report: Optional[str], passed_on: bool, seconds: Optional[float] = None
) -> Ended:
    """How a process ended that ``start`` starts with these two pipes, and what it reported. After ``seconds`` it is
    killed.
    """
    with _pipes() as (out, err), nothing_left_behind() as left:
        started = start(out[1], err[1])
        os.close(out[1])
        os.close(err[1])
        status, printed, said, still_open = _read(started, (out[0], err[0]), passed_on, seconds)
    if left:
        numbers = ", ".join(map(str, left))
        print(f"processes that the script left behind were ended: {numbers}", file=sys.stderr)
    elif still_open:
        print("a process that the script started goes on, and cannot be found on this system", file=sys.stderr)
    how, found = (None, None) if report is None else _reported(report)
    return Ended(status, how, printed.lines(), said.lines(), said.traceback, found)


def _started(arguments: list[str], out: int, err: int) -> Started:
    """A fresh interpreter with these arguments."""
    started = subprocess.Popen(
        [sys.executable, *_flags(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        preexec_fn=die_with_parent if LINUX else None,  # Windows has none
    )
    return Started(started.pid, lambda block: started.wait() if block else started.poll())


def _can_fork(job: Job) -> bool:
    """Whether a copy of this process can go on: PyTorch is imported, a card is not yet in use, and nothing that is read
    on import has been set by the script's text.
    """
    torch = sys.modules.get("torch")
    if torch is None or sys.platform != "linux":
        return False
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return False
    with open(job.path, "rb") as opened:
        return b"os.environ" not in opened.read()


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    out, err = os.pipe(), os.pipe()
    try:
        yield out, err
    finally:
        os.close(out[0])
        os.close(err[0])


def preload(path: str) -> None:
    """Import here, once, what the script imports of the large libraries, also where PyTorch imports that by itself."""
    wanted: set[str] = set()
    with contextlib.suppress(OSError, SyntaxError, ValueError), open(path, "rb") as opened:
        text = opened.read()
        if any(word in text for word in BRINGING_A_COMPILER):
            wanted.add("torch._dynamo")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
                wanted.update(f"{node.module}:{name.name}" for name in node.names)
            elif isinstance(node, ast.Import):
                wanted.update(name.name for name in node.names if name.name.split(".")[0] in LIBRARIES)
    for module, _, name in sorted(item.partition(":") for item in wanted):
        with contextlib.suppress(Exception):  # the script will meet it again, in its own process
            imported = importlib.import_module(module)
            if name:
                getattr(imported, name)  # Transformers imports a class's module only now


def _fork(job: Job, report: str, out: int, err: int) -> Started:
    preload(job.path)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = _as_child(job, report, out, err)
        finally:
            end_at_once(status)

    def wait(block: bool) -> Optional[int]:
        done, status = os.waitpid(pid, 0 if block else os.WNOHANG)
        return None if done == 0 else os.waitstatus_to_exitcode(status)

    return Started(pid, wait)


def _spawn(job: Job, report: str, out: int, err: int) -> Started:
    with open(report + ".job", "wb") as opened:
        pickle.dump((job, report), opened)
    package = __package__.rpartition(".")[0]
    root = importlib.import_module(package)
    holder = os.path.dirname(os.path.dirname(os.path.abspath(str(root.__file__))))  # a folder, or the kit's archive
    for _ in package.split(".")[1:]:
        holder = os.path.dirname(holder)
    return _started(["-c", SPAWNED.format(holder, __package__ + ".child", report + ".job")], out, err)


def _safe_path() -> bool:
    """Whether PYTHONSAFEPATH or -P keeps the folder of a script off the path, from Python 3.11 on."""
    return bool(getattr(sys.flags, "safe_path", False))


def _flags() -> list[str]:
    """The fault handler as here: what a crash prints is evidence."""
    import faulthandler

    return ["-X", "faulthandler"] if faulthandler.is_enabled() else []


def child_main(path: str) -> None:
    """The entry of a fresh interpreter: run the job that is written at ``path``."""
    with open(path, "rb") as opened:
        job, report = pickle.load(opened)
    sys.path.pop(0)
    _launch(job, report)


def _as_child(job: Job, report: str, out: int, err: int) -> int:
    """In the fork: become what a fresh interpreter would be, run, and end as that does. Returns the status."""
    die_with_parent()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    for private in wire.PRIVATE:
        with contextlib.suppress(OSError):
            os.close(private)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    atexit._clear()
    _reset_warnings()
    _validate_distributions()
    status = 0
    try:
        _launch(job, report)
    except SystemExit as ended:
        status = _status_of(ended)
    except KeyboardInterrupt:
        status = -signal.SIGINT
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined] # the interpreter's own end waits for threads like this
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (ValueError, AttributeError):  # the script closed it, or took it away
        pass
    except OSError:
        status = status or 120  # what the interpreter ends with where its last words cannot be written
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status & 0xFF


def _reset_warnings() -> None:
    """The filters that a fresh interpreter has; what this process was told to raise or to hide is not the script's."""
    warnings.resetwarnings()
    for category in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category, append=True)
    warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")


def _validate_distributions() -> None:
    """As a fresh interpreter does: PyTorch's compiler ends that for the rest of a process in which it was used."""
    module = sys.modules.get("torch.distributions.distribution")
    if module is not None:
        module.Distribution.set_default_validate_args(__debug__)


def _status_of(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return int(ended.code or 0)
    print(ended.code, file=sys.stderr)
    return 1


def _launch(job: Job, report: str) -> None:
    """Run the script as the main module; report how its code ended, and what was found, before anything else ends.

    Raises:
        SystemExit, KeyboardInterrupt: as the script's end has it.
    """
    try:
        with open(job.path, "rb") as opened:
            text = opened.read()
    except OSError as error:
        print(f"{job.path} cannot be read: {error.strerror}", file=sys.stderr)
        raise SystemExit(125) from None
    main = types.ModuleType("__main__")
    vars(main).update(__file__=job.path, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = main
    sys.argv[:] = [job.path]
    if not _safe_path():
        sys.path.insert(0, os.path.dirname(job.path))
    within, _ = (contextlib.nullcontext(), None) if job.around.within is None else _made(*job.around.within)
    around, found = (contextlib.nullcontext(), lambda: None) if job.watch is None else _made(job.watch, job.given)
    how: dict[str, Any] = {"how": "ended"}
    done: list[bool] = []

    def tell() -> None:
        if not done:
            done.append(True)
            _write(report, {**how, "idle": idle(job.settings)}, found)

    try:
        telling = _telling_before_exit(tell) if job.watch else contextlib.nullcontext()
        with within, telling, applied(job.settings):
            code = compile(text, job.path, "exec", dont_inherit=True)
            with around:
                exec(code, vars(main))
    except SystemExit:
        how = {"how": "exit"}
        raise
    except KeyboardInterrupt:
        how = {"how": "raised", **_described(sys.exc_info()[1], job.path)}
        raise
    except BaseException as raised:  # noqa: BLE001 - told as the interpreter tells it, without this kit's own frames
        how = {"how": "raised", **_described(raised, job.path)}
        own = _own_frames(raised, job.path)
        sys.excepthook(type(raised), raised.with_traceback(own), own)
        raise SystemExit(1) from None
    finally:
        tell()


def _made(name: str, given: Any) -> tuple[AbstractContextManager[Any], Callable[[], Any]]:
    """What a "module:function" of this kit gives for the script."""
    module, _, function = name.partition(":")
    make: Any = getattr(importlib.import_module("." + module, __package__.rpartition(".")[0]), function)
    made: tuple[AbstractContextManager[Any], Callable[[], Any]] = make(given)
    return made


def _own_frames(raised: BaseException, path: str) -> Optional[types.TracebackType]:
    """The traceback from the script's own first frame on; for a SyntaxError, none."""
    frame = raised.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != path:
        frame = frame.tb_next
    return frame


def _described(raised: Optional[BaseException], path: str) -> dict[str, Any]:
    """What was raised: its type and text, the innermost place, and the innermost line of the script itself."""
    frames = traceback.extract_tb(raised.__traceback__ if raised is not None else None)
    inner = frames[-1] if frames else None
    own = next((frame for frame in reversed(frames) if frame.filename == path), None)
    called = _called_by(raised, path)
    return {
        "type": type(raised).__name__,
        "text": _text_of(raised)[:LINE],
        "inner": None if inner is None else inner.filename,
        "inner_line": None if inner is None else inner.lineno,
        "code": None if inner is None else inner.line,
        "line": None if own is None else own.lineno,
        "compares": called is not None and not COMPARING.isdisjoint(called.split(".")),
    }


def _called_by(raised: Optional[BaseException], path: str) -> Optional[str]:
    """The module of what the script's own innermost line calls, behind decorators; None where it calls nothing."""
    called, frame = None, None if raised is None else raised.__traceback__
    while frame is not None:
        name = str(frame.tb_frame.f_globals.get("__name__"))
        if frame.tb_frame.f_code.co_filename == path:
            called = None
        elif called is None and name not in DECORATING:
            called = name
        frame = frame.tb_next
    return called


def _text_of(raised: Optional[BaseException]) -> str:
    """As the interpreter tells it: the code of an exception's own __str__ may raise as well."""
    try:
        return str(raised)
    except Exception:  # noqa: BLE001
        return "<exception str() failed>"


@contextlib.contextmanager
def _telling_before_exit(tell: Callable[[], None]) -> Iterator[None]:
    """A script that ends by ``os._exit`` leaves what was found all the same."""
    real = os._exit

    def leave(status: int) -> None:
        tell()
        real(status)

    os._exit = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = real


def _write(report: str, how: dict[str, Any], found: Callable[[], Any]) -> None:
    try:
        content = pickle.dumps((how, found()))
    except Exception as error:  # noqa: BLE001 - how it ended is known all the same
        print(f"what was watched cannot be told: {type(error).__name__}: {error}", file=sys.stderr)
        content = pickle.dumps((how, None))
    with contextlib.suppress(OSError), open(report + ".part", "wb") as opened:
        opened.write(content)
        opened.close()
        os.replace(report + ".part", report)


def _reported(report: str) -> tuple[Optional[dict[str, Any]], Any]:
    try:
        with open(report, "rb") as opened:
            how, found = pickle.load(opened)
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError):
        return None, None
    return how, found


def _read(
    started: Started, pipes: tuple[int, int], passed_on: bool, seconds: Optional[float]
) -> "tuple[int, Tail, Tail, bool]":
    """The status, the ends of both streams, and whether a grandchild keeps one open, which is not waited for."""
    late = None if seconds is None else time.monotonic() + seconds
    tails = (Tail(sys.stdout), Tail(sys.stderr)) if passed_on else (Tail(), Tail())
    status: Optional[int] = None
    until: Optional[float] = None
    with selectors.DefaultSelector() as ready:
        for number, pipe in enumerate(pipes):
            ready.register(pipe, selectors.EVENT_READ, number)
        while ready.get_map() and (until is None or time.monotonic() < until):
            for key, _ in ready.select(0.05):
                data = os.read(key.fd, 65536)
                if data:
                    tails[key.data].write(data)
                else:
                    ready.unregister(key.fd)
            if status is None and late is not None and time.monotonic() > late:
                os.kill(started.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                late = None
            if status is None:
                status = started.wait(False)
                until = None if status is None else time.monotonic() + DRAIN_SECONDS
        still_open = bool(ready.get_map())
    if status is None:
        status = started.wait(True)
    assert status is not None  # a wait that blocks has an answer
    return status, tails[0], tails[1], still_open


class Tail:
    """The last lines of a stream of bytes, passed on as they come where somebody listens."""

    def __init__(self, target: Any = None) -> None:
        self._target = target
        self._ended: collections.deque[str] = collections.deque(maxlen=LINES)
        self._open = b""
        self.traceback = False

    def write(self, data: bytes) -> None:
        if self._target is not None:
            with contextlib.suppress(OSError, ValueError):
                self._target.write(data.decode("utf-8", "backslashreplace"))
                self._target.flush()
        self.traceback = self.traceback or TRACEBACK in self._open + data
        *ended, self._open = (self._open + data).split(b"\n")
        self._open = self._open[:LINE]
        self._ended.extend(self._text(line) for line in ended[-LINES:])

    @staticmethod
    def _text(line: bytes) -> str:
        return line[:LINE].decode("utf-8", "backslashreplace").rstrip("\r")

    def lines(self) -> tuple[str, ...]:
        return tuple([*self._ended, *([self._text(self._open)] if self._open else [])][-LINES:])
