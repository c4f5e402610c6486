"""Runs a script several times in a clean interpreter, and says whether it shows its fault each time."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.core.errors import CellError
from repro.core.locks.scratch import scratch_folder
from repro.engine.process import death

PREFIX = "repro-verify-"
NOTHING: Mapping[str, Path] = {}
RUNS = 3
TOGETHER = 4
"""How many runs there are at the same time at most."""
TIMEOUT_SECONDS = 900.0
OUTPUT = 8_000
"""How many characters of what a script prints are kept, from its end."""
REASON = 200
"""How many characters of an exception stand in a reason."""
GOOD, BAD, SKIP = 0, 1, 125
UNCAUGHT = 70
"""The launcher's exit status for an uncaught exception. Source: EX_SOFTWARE in sysexits.h."""
LAUNCHER = f"""
import sys

def refuse(event, given):
    if event == "socket.connect":
        import socket
        if given[0].family == getattr(socket, "AF_UNIX", None):
            return
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"):
        return
    raise OSError(f"the network is blocked while a script is verified ({{event}})")

def end(kind, error, trace):
    sys.__excepthook__(kind, error, trace)
    behind = None
    while trace:
        module, name = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_frame.f_code.co_filename
        if name == sys.argv[0]:
            behind = []
        elif behind is not None and module not in ("contextlib", "functools"):
            behind.append(module)
        trace = trace.tb_next
    own = behind == [] or (behind and not {{"testing", "unittest", "_pytest"}}.isdisjoint(behind[0].split(".")))
    sys.exit({BAD} if kind is AssertionError and own else {UNCAUGHT})

sys.addaudithook(refuse)
sys.excepthook = end
del sys.argv[0]
with open(sys.argv[0], encoding="utf-8") as stream:
    code = compile(stream.read(), sys.argv[0], "exec")
exec(code, {{"__name__": "__main__", "__file__": sys.argv[0], "__builtins__": __builtins__}})
"""
"""Runs a script as ``__main__`` without network. An assertion of the script's own that fails is its fault, and so is
one of torch.testing and the like that it calls; any other uncaught exception is told from that.
Source of the events' names: https://docs.python.org/3/library/audit_events.html"""
KEPT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE",
)  # fmt: skip
"""Variables that a process needs to start, to see its devices, and to find files in the Hub's cache."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What the runs of a script came to.

    Args:
        exit_statuses: One for each run; minus a signal's number where one ended it; None for a run out of time.
        output: What the last run printed to its standard output.
        verified: Whether every run ended with 1: the fault is there.
        reason: A sentence why, or why not.
        seconds: What the longest run took; None where that was not measured.
    """

    exit_statuses: tuple[int | None, ...]
    output: str
    verified: bool
    reason: str
    seconds: float | None = None


def verify(
    python: str,
    text: str,
    argv: Sequence[str] = (),
    runs: int = RUNS,
    timeout_seconds: float = TIMEOUT_SECONDS,
    name: str = "reproducer.py",
    *,
    together: bool = True,
    beside: Mapping[str, Path] = NOTHING,
) -> Verification:
    """Run a script with ``python -I`` in an empty folder, without network and with few environment variables.

    Where the first run ends with neither 0 nor 1, it is the only one.

    Args:
        python: The interpreter, with what the script needs installed.
        text: The script.
        argv: Its arguments.
        runs: How often; every run must end with 1.
        timeout_seconds: For each run.
        name: The file's name, as tracebacks show it.
        together: Whether the runs behind the first may run at the same time; not where each loads a whole model.
        beside: What lies in the empty folder and beside the script: links by their names.

    Raises:
        CellError: the interpreter cannot be started.
    """
    with scratch_folder(PREFIX) as place:
        script = place / "script" / name
        script.parent.mkdir()
        script.write_text(text, encoding="utf-8", newline="\n")
        _link(beside, script.parent)
        command = [python, "-I", "-B", "-X", "utf8", "-c", LAUNCHER, str(script), *argv]

        took: list[float] = []

        def once(number: int) -> tuple[int | None, str, str]:
            empty, home = place / f"empty{number}", place / f"home{number}"
            empty.mkdir()
            home.mkdir()
            _link(beside, empty)
            begin = time.monotonic()
            ended = _run(command, empty, _environment(home), timeout_seconds)
            took.append(time.monotonic() - begin)
            return ended

        ended = [once(0)]
        if ended[0][0] in (GOOD, BAD) and runs > 1:
            with concurrent.futures.ThreadPoolExecutor(min(runs - 1, TOGETHER) if together else 1) as pool:
                ended += pool.map(once, range(1, runs))
            if sys.platform != "win32" and together:  # where the memory was not for several, the system has killed one
                ended = [once(runs + at) if end[0] == -signal.SIGKILL else end for at, end in enumerate(ended)]
        statuses = [status for status, _, _ in ended]
        output, errors = (said.replace(str(script.parent) + os.sep, "") for said in ended[-1][1:])
    verified = statuses == [BAD] * runs
    reason = _reason(statuses, runs, errors, timeout_seconds)
    return Verification(tuple(statuses), output, verified, reason, max(took))


def _link(beside: Mapping[str, Path], folder: Path) -> None:
    for name, path in beside.items():
        with contextlib.suppress(OSError, NotImplementedError):  # without it the script says what it misses
            (folder / name).symlink_to(path, target_is_directory=path.is_dir())


def _environment(home: Path) -> Mapping[str, str]:
    """A new home, so that no user settings are read; the Hub's cache where it is, and no access to the Hub."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        **kept,
        **dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "HF_MODULES_CACHE"), str(home)),
        "HF_HOME": os.environ.get("HF_HOME") or str(caches / "huggingface"),
        **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1"),
        **dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "NO_COLOR"), "1"),
    }


def _run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> tuple[int | None, str, str]:
    """(exit status, stdout, stderr) of one process. Its output goes to files: a grandchild that keeps a pipe open would
    keep the host waiting.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise CellError(f"{command[0]} cannot be started: {error.strerror}. Give another with --python.") from None
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(seconds)
        finally:
            _end(child)
        said = []
        for stream in (out, err):
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - OUTPUT))
            said.append(stream.read().decode("utf-8", "replace"))
    return status, said[0].strip(), said[1].strip()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _reason(statuses: Sequence[int | None], runs: int, errors: str, seconds: float) -> str:
    """What the runs came to, as one sentence."""
    if list(statuses) == [BAD] * runs:
        return f"Run {runs} times in a clean interpreter, with exit status 1 each time: the fault is there."
    if len(set(statuses)) > 1:
        ends = ", ".join("timeout" if status is None else str(status) for status in statuses)
        return f"The runs disagree: exit statuses {ends}."
    status, said = statuses[-1], _last_line(errors)
    if status is None:
        return f"It did not finish within {seconds:g} seconds."
    if status == GOOD:
        return "It did not show the fault: exit status 0."
    if status == SKIP:
        return f"It could not tell: {said or 'exit status 125'}."
    if status == UNCAUGHT:
        return f"It raised an exception that it did not catch: {said}."
    signal_name, words = death(status)
    if signal_name is None:
        return f"It ended with exit status {status}; expected 0, 1 or 125{f': {said}' if said else ''}."
    return f"Its process {words}."


def _last_line(text: str) -> str:
    """The last line of a traceback, which names the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else ""
    return (said if len(said) <= REASON else said[: REASON - 3] + "...").rstrip(".")
