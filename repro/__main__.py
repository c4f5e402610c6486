"""The command ``repro``, and ``python -m repro``: what must hold before anything else is imported."""

import os
import sys


def _forget_current_folder() -> None:
    """``python -m`` looks for modules in the current folder first, which may be a model's, with a json.py of its own.

    Where PYTHONPATH names that folder, it stays: somebody wants it there.
    """
    if sys.flags.safe_path or not sys.path:
        return
    try:
        here = os.getcwd()  # noqa: PTH109 - pathlib may lie there, too
    except OSError:  # it was removed
        here = ""
    if sys.path[0] in ("", here):
        del sys.path[0]


def main() -> int:
    """The command ``repro``; returns its exit status."""
    from repro.cli.interrupts import INTERRUPTED, Interrupts

    interrupts = Interrupts()
    try:
        interrupts.listen()
        from repro.cli.main import main as command

        status = command()
        interrupts.end()
    except KeyboardInterrupt:  # while modules were imported, or outside of what the command does
        interrupts.end()
        sys.stderr.write("repro: stopped by Ctrl-C.\n")
        status = INTERRUPTED
    return status


if __name__ == "__main__":
    _forget_current_folder()
    sys.exit(main())
