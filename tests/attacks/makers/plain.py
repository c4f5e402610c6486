"""Files and deeds that belong to no area."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support import forked

from . import deed, file

ROOT = Path(__file__).parents[3]


@file
def fifo(path: Path) -> None:
    """A FIFO that nobody writes to: who opens it as a file waits for ever."""
    os.mkfifo(path)


@file
def repeated(path: Path, text: str, times: int, end: str = "") -> None:
    """A text many times over, and an end; compressed where the name ends with ``.gz``."""
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as out:
        block = text * 1000
        for _ in range(times // 1000):
            out.write(block)
        out.write(text * (times % 1000) + end)


@deed
def fuzz(place: Path, tests: str) -> Iterator[str]:
    """A reader's fuzzer with the number of inputs that the session asks for."""
    examples = os.environ.get("REPRO_FUZZ_EXAMPLES", "10000")
    # Where pytest is forked, what it would rewrite has been imported.
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    command = [sys.executable, "-m", "pytest", *options, f"tests/attacks/fuzz/{tests}"]
    env = {
        **os.environ, "REPRO_FUZZ_EXAMPLES": examples, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8",
        "TMPDIR": str(place),
    }  # fmt: skip
    ran = forked.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode or not re.search(r"\b\d+ passed", ran.stdout):
        yield f"pytest ended with {ran.returncode}: {ran.stdout[-3000:]}{ran.stderr[-500:]}"


@deed
def interrupted(place: Path, command: Sequence[str], moments: Sequence[float], gap: float = 0.01) -> Iterator[str]:
    """Ctrl-C after each of these times, and again and again until the command has ended: only lines of its own."""
    for seconds in moments:
        started = subprocess.Popen(
            [sys.executable, "-m", "repro", *command], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        time.sleep(seconds)
        while started.poll() is None:
            started.send_signal(signal.SIGINT)
            time.sleep(gap)
        _, said = started.communicate()
        if started.returncode not in (0, 130):
            yield f"exit status {started.returncode} after {seconds:g} s"
        if "Traceback" in said or "Exception ignored" in said or "KeyboardInterrupt" in said:
            yield f"after {seconds:g} s: {said[-400:]!r}"
