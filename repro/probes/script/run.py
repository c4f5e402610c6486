"""Run a user's script: what it ends with is the answer.

Ending normally or with status 0 is good; status 1 is bad, and so is an AssertionError that the script itself raises.
Status 125, any other status and any other exception are "could not tell": a script that fails on the way has not
answered. PyTorch raises AssertionError as well ("Torch not compiled with CUDA enabled"); that is none of the script's.
"""

import codecs
import collections
import contextlib
import hashlib
import io
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Optional, TextIO

from ..checkpoint.resolve import CannotResolve
from ..machine.restore import put_back
from ..protocol.failures import in_words

LINES = 40  # of what it printed are kept; the whole is in the process's standard error


@dataclass(frozen=True)
class Ran:
    """How a script ended. ``lines``: the last that it printed. ``exit_status``: None where an exception ended it."""

    verdict: str
    reason: str
    exit_status: Optional[int]
    lines: tuple[str, ...]
    sha256: str

    @property
    def outcome(self) -> tuple[str, str, dict[str, Any]]:
        payload = {"exit_status": self.exit_status, "lines": list(self.lines), "script_sha256": self.sha256}
        return self.verdict, self.reason, payload


def run_script(path: str, around: Optional[AbstractContextManager[Any]] = None) -> Ran:
    """Run the script at ``path`` as ``python path`` would, inside this process.

    around: entered for the script's own code alone.

    Raises:
        CannotResolve: it cannot be read.
    """
    try:
        with open(path, "rb") as opened:
            sha256 = hashlib.sha256(opened.read()).hexdigest()
    except OSError as error:
        raise CannotResolve(f"The script {path} cannot be read: {error.strerror}. Check the path.") from None
    folder = os.path.dirname(path)
    with put_back(folder), captured() as printed:
        sys.argv[:] = [path]
        sys.path.insert(0, folder)
        try:
            with around or contextlib.nullcontext():
                runpy.run_path(path, run_name="__main__")
            status: Optional[int] = 0
            failure: Optional[BaseException] = None
        except SystemExit as ended:
            status, failure = status_of(ended), None
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - the script's code may raise anything: this is its answer
            traceback.print_exc()
            status, failure = None, raised
    lines = tuple(printed.lines())
    if failure is not None:
        verdict, reason = judge_exception(failure, path)
    else:
        verdict, reason = judge_status(status, lines)
    return Ran(verdict, reason, status, lines[-LINES:], sha256)


def status_of(ended: SystemExit) -> int:
    """The exit status that Python gives for it: a code that is no number is printed, and is status 1."""
    if ended.code is None:
        return 0
    if isinstance(ended.code, int):
        return int(ended.code)
    print(ended.code)
    return 1


def judge_status(status: Optional[int], lines: tuple[str, ...]) -> tuple[str, str]:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]
    verdict = {0: "good", 1: "bad"}.get(status, "skip") if status is not None else "skip"
    if status in (0, 1, 125):
        return verdict, last or f"the script ended with status {status} and printed nothing"
    return verdict, f"the script ended with status {status}" + (f": {last}" if last else "")


def judge_exception(raised: BaseException, path: str) -> tuple[str, str]:
    frames = traceback.extract_tb(raised.__traceback__)
    inner = frames[-1] if frames else None
    if not isinstance(raised, AssertionError):
        return "skip", in_words(raised)
    if inner is not None and inner.filename == path:
        what = " ".join(str(raised).split())[:500] or inner.line or ""
        return "bad", f"{os.path.basename(path)}:{inner.lineno}: AssertionError: {what}"
    where = f"{os.path.basename(inner.filename)}:{inner.lineno}" if inner else "outside of the script"
    return "skip", f"{in_words(raised)} (raised in {where}, not by the script; a script says bad with sys.exit(1))"


class Tee(io.BufferedIOBase):
    """A binary stream that passes everything on to a text stream, and keeps the last lines."""

    def __init__(self, target: TextIO) -> None:
        super().__init__()
        self._target = target
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._ended: collections.deque[str] = collections.deque(maxlen=LINES)
        self._open = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._target.fileno()

    def write(self, data: Any) -> int:
        text = self._decode(bytes(data))
        self._target.write(text)
        *ended, self._open = (self._open + text).split("\n")
        self._ended.extend(ended)
        return len(data)

    def flush(self) -> None:
        self._target.flush()

    def lines(self) -> list[str]:
        return [*self._ended, *([self._open] if self._open else [])]


@contextlib.contextmanager
def captured() -> Iterator[Tee]:
    """Everything that Python code prints, kept and passed on to where it went before."""
    before = sys.stdout
    tee = Tee(before)
    # Nothing is held back, so that what a script printed is on record also where its process dies.
    sys.stdout = io.TextIOWrapper(tee, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)
    try:
        yield tee
    finally:
        sys.stdout = before
        before.flush()
