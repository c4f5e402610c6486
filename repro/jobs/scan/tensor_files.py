"""Files of tensors, looked at by the kit: torch, safetensors and NumPy read them, in a process of its own.

The kit answers file by file, in order. A file that ends its process is the first without an answer: it gets the reason,
and a new process continues after it.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.core.encoding import Record, decode
from repro.core.records import Case, Cell, Ending, Observation, Plan
from repro.engine.kit import pack
from repro.engine.runner import Setting, run
from repro.jobs.scan.findings import Finding

STEP = "scan"
KINDS = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin")
CRASHES = 12
"""How many files may end their process before the others are left alone."""


class Contents(Record, frozen=True, kw_only=True):
    """What the kit says of one file."""

    numbers: int = 0
    places: tuple[Finding, ...] = ()
    unread: tuple[str, ...] = ()


class _Silent:
    """Nobody is told what happens meanwhile: each file's answer says enough."""

    def started(self, step: str) -> None: ...

    def progress(self, step: str, done: int, total: int, unit: str) -> None: ...

    def ended(self, observation: Observation) -> None: ...

    def note(self, text: str) -> None: ...


def read(paths: Sequence[Path], cell: Cell, answered: Callable[[Path, Contents], None]) -> None:
    """Ask the kit about files. ``answered`` is given each of them, in order, as soon as it is known.

    Raises:
        CellError: the interpreter cannot be started.
        EvidenceError: there is no room for the kit.
    """
    if not paths:
        return
    left, crashes, kit = list(paths), 0, pack()

    def answer(contents: Contents) -> None:
        answered(left.pop(0), contents)

    def take(record: Mapping[str, Any]) -> None:
        answer(decode(Contents, record))

    with tempfile.TemporaryDirectory(prefix="repro-scan-") as name:
        folder = Path(name)
        while left:
            plan = Plan((STEP,), Case(""), name, files=tuple(str(path.absolute()) for path in left))
            setting = Setting(plan, cell, kit.write(folder), kit.sha256, folder)
            ended = run(setting, lambda _: None, _Silent(), rows=take)[STEP]
            if left and ended.ending is Ending.CRASHED and ended.failure and crashes < CRASHES:
                crashes += 1
                answer(Contents(unread=(f"while it was read, {ended.failure.message}",)))
                continue
            while left:
                answer(Contents(unread=(ended.verdict.reason,)))
