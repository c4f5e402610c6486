"""Runs a script in this process, where torch and transformers are imported already.

An interpreter of its own takes seconds for each script; what that adds (no network, a new home) is in test_verify.py.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from repro.reproducer.verify import UNCAUGHT, Verification


def outcome(text: str, argv: Sequence[str] = ()) -> tuple[int, str, str]:
    """Exit status, output and errors of a script in an empty folder."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        _restored(),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        path = Path(folder, "reproducer.py")
        sys.argv = [str(path), *argv]
        try:
            try:
                exec(compile(text, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
                status = 0
            except Exception as error:  # noqa: BLE001 - as Python does with an exception that nobody caught
                sys.excepthook(*sys.exc_info())
                status = 1 if isinstance(error, AssertionError) else UNCAUGHT
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return status, output.getvalue().strip(), errors.getvalue().strip()


def in_process(python: str, text: str, argv: Sequence[str], *, together: bool) -> Verification:
    """In place of ``verify`` where a test is not about the interpreter: one run, in this process."""
    status, output, errors = outcome(text, argv)
    return Verification((status,), output, status == 1, f"exit status {status} {errors}".strip())


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """What scripts change, as it was before."""
    argv, hook, grad = sys.argv, sys.excepthook, torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.argv, sys.excepthook = argv, hook
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic)
