"""What is forked is what would be started: the same interpreter to whoever looks, and the same end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import forked
from support.forked.command import Command, fits

from attacks import drive

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="nothing is forked here"
)

STATE = """
import atexit, faulthandler, json, os, random, resource, signal, sys, tempfile, threading, warnings
FAULTS = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "prefix": sys.prefix, "cwd": os.getcwd(),
    "words": open("/proc/self/cmdline").read().rstrip("\\0"), "variables": dict(sorted(os.environ.items())),
    "streams": [
        [s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.fileno(), s.isatty(), s.seekable()]
        for s in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "same": [sys.stdout is sys.__stdout__, sys.stdin is sys.__stdin__, sys.stderr is sys.__stderr__],
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:3], "high": len(os.listdir("/proc/self/fd")),
    "leads": [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()],
    # Those of the fault handler are its own, of which Python does not know whether they were there before it.
    "signals": {
        n: repr(signal.getsignal(n)).split(" at ")[0]
        for n in sorted(signal.valid_signals()) if n not in FAULTS or not faulthandler.is_enabled()
    },
    "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "filters": [[str(part) for part in one] for one in warnings.filters if one[3] != "" or one[0] != "error"][-5:],
    "threads": threading.active_count(), "main": threading.current_thread() is threading.main_thread(),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.unraisablehook is sys.__unraisablehook__],
    "faults": faulthandler.is_enabled(), "options": dict(sys._xoptions), "bytecode": sys.dont_write_bytecode,
    "recursion": sys.getrecursionlimit(), "limits": [resource.getrlimit(n) for n in range(16)],
    "folder": tempfile.gettempdir(), "torch": "torch" in sys.modules, "name": __name__,
    "traced": sys.gettrace() is None and sys.getprofile() is None,
}))  # repro.cli.main
"""
ENDS = {
    "a status": "import sys; print('said'); sys.exit(3)",
    "a text": "import sys; sys.exit('why')",
    "an exception": "def f():\n    raise ValueError('x')\nf()",
    "Ctrl-C": "raise KeyboardInterrupt",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "at once": "import os; print('lost'); os._exit(7)",
    "a hook": "import sys\ndef hook(*_): sys.exit(9)\nsys.excepthook = hook\nraise ValueError",
    "what waits": "import atexit, threading, time; atexit.register(print, 'late')\n"
                  "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
    "a library": "import scipy.stats, numpy as n; print(n.ones(2).sum(), n.__spec__.name, scipy.stats.norm.cdf(0))",
    "a closed stream": "import os; print('nobody'); os.close(1)",
}  # fmt: skip


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    found = drive.environment(Path("/"))
    forked.start(found)
    return found


def both(command: list[str], **how: Any) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """The command by a fork, and by a start."""
    how = {**how, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    fresh = forked.run(command, **how)
    ended = forked.usage.seconds
    with forked.allowed(True):
        copy = forked.run(command, **how)
    assert forked.usage.seconds > ended  # otherwise it was no copy
    return copy, fresh


@pytest.mark.parametrize("options", [["-P"], ["-I", "-B", "-X", "utf8"], ["-P", "-X", "faulthandler"]], ids=" ".join)
def test_the_state_is_that_of_a_fresh_interpreter(options: list[str], env: dict[str, str], tmp_path: Path) -> None:
    more = {**env, "REPRO_X": "y", "TMPDIR": str(tmp_path)}
    copy, fresh = both([sys.executable, *options, "-c", STATE, "a", "b"], env=more, cwd=tmp_path)
    assert json.loads(copy.stdout) == json.loads(fresh.stdout)
    assert copy.stderr == fresh.stderr == ""


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_as_a_fresh_interpreter_does(code: str, env: dict[str, str], tmp_path: Path) -> None:
    copy, fresh = both([sys.executable, "-I", "-c", f"# repro.cli.main\n{code}"], env=env, cwd=tmp_path)
    assert (copy.returncode, copy.stdout, copy.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


@pytest.mark.parametrize("name", ["PYTHONWARNINGS", "HF_HOME", "OMP_NUM_THREADS", "LC_ALL"])
def test_where_a_library_may_have_read_another_value_nothing_is_forked(name: str, env: dict[str, str]) -> None:
    command = Command.read([sys.executable, "-m", "repro", "--version"])
    assert command is not None
    assert fits(command, {**env, "REPRO_X": "1"}, env)
    assert not fits(command, {**env, name: "2"}, env)
