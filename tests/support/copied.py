"""A script run as ``python -I`` runs it, but in a copy of this process, in which torch is imported already.

An interpreter of its own takes two seconds for each script. What that adds is in test_verify.py and in the tests of the
command.
"""

import contextlib
import os
import random
import sys
import traceback
import warnings
from pathlib import Path

import numpy
import torch

FIRST_SEED = 67280421310721
"""Of PyTorch's generator in a fresh interpreter. Source: c10::detail, default_rng_seed_val."""


def ends(text: str, folder: Path) -> tuple[int, str]:
    """Exit status and the last line of what it says on its standard error, run in ``folder``."""
    said = folder / "said.txt"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _run(text, folder, said)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, (said.read_text().strip().splitlines() or [""])[-1]


def _run(text: str, folder: Path, said: Path) -> int:
    os.chdir(folder)
    with said.open("w") as errors, Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(errors):
            warnings.resetwarnings()
            warnings.simplefilter("ignore")
            random.seed()
            numpy.random.seed()
            torch.default_generator.manual_seed(FIRST_SEED)
            sys.argv = ["plain.py"]
            try:
                exec(compile(text, "plain.py", "exec"), {"__name__": "__main__", "__file__": "plain.py"})
            except SystemExit as ended:
                if not isinstance(ended.code, int | None):
                    print(ended.code, file=sys.stderr)
                return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except BaseException:  # noqa: BLE001 - as Python does with an exception that nobody caught
                traceback.print_exc()
                return 1
    return 0
