"""The boundaries of examples/boundaries.toml, each found by bisection in real environments: `nox -s boundaries`.

    python tests/support/check_boundaries.py [NAME]...

Every release that is asked is really installed, so this takes minutes and gigabytes, and is no part of the suite. A
search counts as right only where the two releases are the known ones and nothing between them was skipped.
"""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def search(name: str, known: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """The "versions" of the search's verdict.json; None where it left none."""
    held = [word for package, version in known["with"].items() for word in ("--with", f"{package}=={version}")]
    ends = ["--package", known["package"], "--good", known["good"], "--bad", known["bad"], "--py", known["python"]]
    command = [sys.executable, "-m", "repro", "versions", str(EXAMPLES / f"{name}.py"), *ends, *held, "--out", str(out)]
    subprocess.run(command, check=False)
    if not (out / "verdict.json").exists():
        return None
    versions: dict[str, Any] = json.loads((out / "verdict.json").read_text("utf-8"))["versions"]
    return versions


def main(names: list[str]) -> int:
    """Search for each named boundary, or all, and print a line for each; 1 where one is not the known one."""
    known = tomllib.loads((EXAMPLES / "boundaries.toml").read_text("utf-8"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no example {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    folder = Path("repro-runs", time.strftime("boundaries-%Y%m%d-%H%M%S"))
    lines, right = [], True
    for name in names or known:
        wanted = (known[name]["last_good"], known[name]["first_bad"], [])
        begin = time.monotonic()
        found = search(name, known[name], folder / name)
        seconds = time.monotonic() - begin
        got = None if found is None else (found["last_good"], found["first_bad"], found["skipped"])
        right = right and got == wanted
        asked = "" if found is None else f", {found['environments']} of {found['releases']} releases asked"
        word = "as known" if got == wanted else f"WRONG, known is {wanted}"
        lines.append(f"{name}: {got}{asked}, {seconds:.0f} s: {word}")
    print("\n".join(lines))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
