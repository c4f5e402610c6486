"""Candidates asked about side by side: processes of this kit that each try one at a time, in a folder of their own.

A process of the pool is a copy of this one, made before anything was computed in it, so that PyTorch need not be
imported again and no thread pool was left behind.
"""

import contextlib
import dataclasses
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Optional

from ...machine.family import die_with_parent, end_at_once
from ...protocol import wire
from ...script.child import Around, Job
from ...script.folder import own_folder
from ...script.run import run_script
from .alike import Pair
from .conduct import Conduct
from .confined import CONFINED, Access, Confinement
from .fault import Fault, Question, shows
from .mirror import Mirror

MOST = 8  # processes: what more of them would find is thrown away, for the first that holds is taken


@dataclass(frozen=True)
class Setting:
    """What all candidates have in common.

    path: the script. folder: the one in which it was started. written: files that it writes itself. allowed: what it
    does beside computing; None where that is not known yet. imported: modules that are imported before a process is
    copied. threads: of PyTorch in each run; None as it comes. alike: arguments of a module that are of one shape.
    conduct: of the original, which candidates are held to; None where that is not known yet.
    """

    path: str
    folder: str
    written: frozenset[str] = frozenset()
    allowed: Optional[frozenset[Access]] = None
    imported: frozenset[str] = frozenset()
    threads: Optional[int] = None
    alike: frozenset[Pair] = frozenset()
    conduct: Optional[Conduct] = None


@dataclass(frozen=True)
class Run:
    """One run to be made, for what its watch finds."""

    text: str
    watch: Optional[str] = None
    given: Any = None
    seed: int = 1
    seconds: Optional[float] = None


@dataclass(frozen=True)
class Try:
    """A candidate to be asked about."""

    text: str
    places: dict[int, frozenset[int]]
    fault: Fault
    seconds: float
    most: Optional[float] = None
    whole: bool = False
    glance: bool = False


class Worker:
    """Does what it is asked, one thing at a time, in the folder ``root``; compiled code is kept beside that."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._cache = os.path.join(os.path.dirname(root), "cache")
        os.makedirs(self._cache, exist_ok=True)
        self._reports = os.path.join(root, "reports")  # where a run may write
        os.makedirs(self._reports, exist_ok=True)
        self._setting: Optional[Setting] = None
        self._mirror: Optional[Mirror] = None

    def do(self, setting: Setting, asked: Any) -> Any:
        """The answer to a Run or a Try."""
        if self._mirror is None or self._setting != setting:
            folders = (os.path.dirname(setting.path), setting.folder)
            self._mirror, self._setting = Mirror(self._root, folders, {*setting.written, setting.path}), setting
            for name in sorted(setting.imported - set(sys.modules)):
                with contextlib.suppress(Exception):  # the script will meet it again, in its own process
                    importlib.import_module(name)
        mirror = self._mirror
        mirror.restore()
        path = mirror.path(setting.path)
        with open(path, "w", encoding="utf-8", newline="\n") as opened:
            opened.write(asked.text)
        folder = mirror.path(setting.folder)
        confinement = Confinement(
            mirror.root, folder, mirror.temporary, self._cache, 1, setting.allowed, setting.threads, alike=setting.alike
        )
        if isinstance(asked, Try):
            limits = self._reports, asked.seconds, asked.most, asked.whole, asked.glance
            held = dataclasses.replace(confinement, conduct=setting.conduct)
            return shows(Question(path, asked.places, held, *limits), asked.fault)
        within = CONFINED, dataclasses.replace(confinement, seed=asked.seed)
        around = Around(within, asked.seconds, self._reports)
        return run_script(Job(path, (), asked.watch, asked.given, around))


class Pool:
    """As many workers as there are cores. Where a process cannot be copied, there is one, in this process."""

    def __init__(self, count: int, folder: str) -> None:
        self._folder = folder
        self._lines: list[Connection] = []
        self._pids: list[int] = []
        self._here: Optional[Worker] = None
        self.count = count
        if not hasattr(os, "fork") or sys.platform != "linux":
            self._here, self.count = Worker(os.path.join(folder, "0")), 1
        for number in range(self.count if self._here is None else 0):
            line, pid = self._begun(number)
            self._lines.append(line)
            self._pids.append(pid)
        self._free = list(range(self.count))
        self._left: set[int] = set()
        self._answers: dict[int, Any] = {}

    def _begun(self, number: int) -> tuple[Connection, int]:
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent()
                for private in (*wire.PRIVATE, ours.fileno(), *(line.fileno() for line in self._lines)):
                    with contextlib.suppress(OSError):
                        os.close(private)
                _serve(theirs, Worker(os.path.join(self._folder, str(number))))
            finally:
                end_at_once(0)
        theirs.close()
        return ours, pid

    def ask(self, setting: Setting, asked: Any) -> int:
        """Begin with a question; the number under which its answer is had. One worker must be free, or left."""
        while not self.free:
            wait([self._lines[number] for number in self._left])
        number = self._free.pop()
        if self._here is not None:
            self._answers[number] = self._here.do(setting, asked)
        else:
            self._lines[number].send((setting, asked))
        return number

    @property
    def free(self) -> int:
        """How many workers have nothing to do."""
        for number in [number for number in self._left if self._here is not None or self._lines[number].poll()]:
            self.answer(number)
        return len(self._free)

    def leave(self, number: int) -> None:
        """Nobody wants this answer any more; its worker is free again once it has it."""
        self._left.add(number)

    def answer(self, number: int) -> Any:
        """Wait for an answer; None where its worker was killed, or could not answer."""
        found = self._answers.pop(number, None)
        self._left.discard(number)
        if self._here is None:
            try:
                found = self._lines[number].recv()
            except (EOFError, OSError):
                self._end(number)
                self._lines[number], self._pids[number] = self._begun(number)
        self._free.append(number)
        return found

    def close(self) -> None:
        """End all workers."""
        for number in range(len(self._lines)):
            self._end(number)
        self._lines.clear()

    def _end(self, number: int) -> None:
        self._lines[number].close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pids[number], signal.SIGKILL)  # what it has started ends with it
            os.waitpid(self._pids[number], 0)


@contextlib.contextmanager
def pool() -> Iterator[Pool]:
    """Workers for the time of one reduction."""
    with own_folder() as folder:
        workers = Pool(min(MOST, cores()), os.path.realpath(folder))
        try:
            yield workers
        finally:
            workers.close()


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve(line: Connection, worker: Worker) -> None:
    while True:
        try:
            setting, asked = line.recv()
        except (EOFError, OSError):
            return
        try:
            answer = worker.do(setting, asked)
        except Exception:  # noqa: BLE001 - told in the log; the candidate is one that does not show the fault
            traceback.print_exc()
            answer = None
        line.send(answer)
