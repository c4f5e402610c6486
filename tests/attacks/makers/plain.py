"""Files and deeds that belong to no area."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"tests/attacks/fuzz/{tests}"]
    env = {**os.environ, "REPRO_FUZZ_EXAMPLES": examples, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if ran.returncode or not re.search(r"\b\d+ passed", ran.stdout):
        yield f"pytest ended with {ran.returncode}: {ran.stdout[-3000:]}{ran.stderr[-500:]}"
