"""One run of ``repro`` in a process of its own, for callers that need many: a crash ends that run and no other.

The run's folder holds its evidence, so a run that was stopped resumes where it was when it is asked again.
"""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from repro.core.answer import NAME, Answer, read
from repro.core.errors import RecordError
from repro.core.processes.family import asking_to_end_with_this
from repro.core.records import Cell
from repro.engine.process import death
from repro.run.run import Request

LOG = "host.log"
ANSWERS = (0, 1, 125)
"""Exit statuses with which a run has written its verdict."""
PACKAGES = str(Path(__file__).parents[2])
MAIN = f"""import sys; sys.path.insert(0, {PACKAGES!r})
from repro.core.processes.family import end_with_parent; end_with_parent()
from repro.cli.main import main; sys.exit(main())"""
"""``python -m repro`` without PYTHONPATH, which the cell's interpreter would inherit with all that it leads to."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left: its answer, or why there is none."""

    answer: Answer | None
    reason: str | None = None


class Children:
    """The processes that run now. ``stop`` ends them all, from any thread; none is started afterwards."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def ask(self, request: Request, cell: Cell, folder: Path, *, aloud: bool, reduce: bool = False) -> Ran:
        """Run ``request`` in ``cell`` into ``folder``, to its end.

        Args:
            request: What is asked; its own cell and folder are replaced.
            cell: Where.
            folder: Of this run.
            reduce: Whether it also looks for a reproducer; a run that has ended resumes with that alone.
            aloud: Its progress goes to this process's stderr. Otherwise to host.log, with the rest of what it prints.
        """
        asked = replace(request, cell=cell, python=cell.python, reduce=reduce, deliver=False)
        command = [sys.executable, "-P", "-c", MAIN, *asked.argv()[1:], "--out", str(folder)]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("ab") as log:
            with self._lock:
                if self._stopped:
                    return Ran(None, "not run: stopped before it began")
                # A pipe that nobody writes to would block a reader: the child's stdin is empty.
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=None if aloud else log, env=_variables()
                )
                self._running.add(child)
            try:
                status = child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)
        return _answer(folder, status)

    def stop(self) -> None:
        """Ask every child to end; each of them stops what it started and keeps what it recorded."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.terminate()


def _variables() -> dict[str, str]:
    """This process's variables, without those that would change which packages the cell's interpreter sees.

    The child ends with this process: nobody else holds the folder of the sweep, and one that is resumed asks again.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return asking_to_end_with_this(kept)


def _answer(folder: Path, status: int) -> Ran:
    """What a run left that ended with ``status``."""
    if status in ANSWERS:
        try:
            return Ran(read(folder / NAME))
        except RecordError as error:
            return Ran(None, f"its {NAME} cannot be read ({error})")
    _, what = death(status)
    return Ran(None, f"the run {what}{_last_words(folder)}")


def _last_words(folder: Path) -> str:
    """The last line that the run printed, where its stderr went to the log."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    said = [line for line in lines if line.startswith("repro: ")]
    return f": {said[-1].removeprefix('repro: ')}" if said else ""
