"""Make the attacks: all of them, or those whose names hold one of some words.

    python -m attacks                    all; the summary on standard output
    python -m attacks --page FILE        the same, and the summary into the page for people
    python -m attacks kills/ "a FIFO"    those by parts of their names

Ends with 0 when all held, with 1 when one did not.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from . import page, session
from .attack import every


def main(argv: list[str]) -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="attacks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="parts of names; all attacks without")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", type=Path, help="write the summary into this page")
    parser.add_argument("--slow", action="store_true", help="print how long each one took, and of the processors")
    given = parser.parse_args(argv)
    attacks = [one for one in every() if not given.words or any(word in one.name for word in given.words)]
    begin, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        for result in session.run(attacks, Path(folder), given.jobs):
            results.append(result)
            if given.slow:
                print(f"{result.seconds:7.1f} s {result.cpu_seconds:7.1f} s  {result.attack.name}")
            for broken in result.broken:
                print(f"{result.attack.name}: {broken}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{len(results)} of {len(attacks)}", end="", file=sys.stderr, flush=True)
    made = page.Page(tuple(results), time.monotonic() - begin, given.jobs)
    print(page.summary(made))
    if given.page:
        given.page.write_text(page.written(given.page.read_text("utf-8"), made), encoding="utf-8")
    return int(any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
