"""Run the score: all of it, a seeded tenth, or the cases whose names hold one of some words.

    python -m score                      all, with the other tools; the summary on standard output
    python -m score --page FILE          the same, and the page for people
    python -m score --tenth --alone      a tenth, without the other tools
    python -m score mlp/ llama/          cases by parts of their names
    python -m score --json FILE          each result as a line

Ends with 0 when every case was asked, whatever came out; with 1 where plain torch disagrees with the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path


def main(argv: list[str]) -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="score", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="parts of names; all cases without")
    parser.add_argument("--tenth", action="store_true", help="a seeded tenth")
    parser.add_argument("--alone", action="store_true", help="without the other tools")
    parser.add_argument("--also", type=Path, help="a folder with packages of other tools")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", type=Path, help="write the page for people")
    parser.add_argument("--json", type=Path, help="write each result as a line of JSON")
    given = parser.parse_args(argv)
    # Read by huggingface_hub when it is imported: nothing here is on the network, and no cache is the user's.
    home = tempfile.TemporaryDirectory(prefix="score-home-")
    os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=home.name)
    if given.also:
        sys.path.append(str(given.also))
    from . import beside, page, session

    clock, cases = session.Clock(), session.every()
    if given.tenth:
        cases = session.tenth(cases)
    if given.words:
        cases = [case for case in cases if any(word in case.name for word in given.words)]
    tools = [] if given.alone else beside.available()
    results = []
    for result in session.run(cases, given.jobs, tools):
        results.append(result)
        if sys.stderr.isatty():
            print(f"\r{len(results)} of {len(cases)}", end="", file=sys.stderr, flush=True)
    results.sort(key=lambda result: result.name)
    if given.json:
        given.json.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results), encoding="utf-8")
    made = page.Page(tuple(results), tuple(tools), clock.seconds, clock.processor_seconds, given.jobs)
    print(page.summary(made))
    if given.page:
        given.page.write_text(page.text(made), encoding="utf-8")
    return int(any(result.table for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
