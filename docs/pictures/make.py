"""Makes the README's pictures from a real run: terminal.svg (what it prints) and page.png (its report.html).

    python docs/pictures/make.py gemma-3-270m-q4_k_m.gguf --dtype float16     (a path that `repro fetch` prints)

Needs a POSIX terminal (pty) and Chromium, which the environment variable CHROMIUM may name. Both pictures must stay
below 200 kB, and no path of this machine may be in them: the model is a link in the folder of the run, and the path of
that folder is left out of what was printed. With --keep DIR the run stays, and is drawn again without running again.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FOLDER = Path(__file__).resolve().parent
COLUMNS = 118
PAGE = (1140, 946)
"""Width and height of the part of the page that is shown, in pixels."""
LIMIT = 200_000
"""Bytes of a picture."""
CONTROL = re.compile(r"\x1b\[(\?25[hl]|\d*A|\d*K)|\r|\n|(?:(?!\x1b\[(?:\?25|\d*[AK]))[^\r\n])+")
"""What rich's progress writes: cursor shown or hidden, up, erase; carriage return, newline; text with its colours."""


def run(command: list[str], folder: Path) -> str:
    """What a command prints on a terminal of ``COLUMNS`` columns, as it came.

    Raises:
        SystemExit: it ended with neither 0 nor 1.
    """
    import pty  # not on Windows

    parent, child = pty.openpty()
    root = str(FOLDER.parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONPATH": paths}
    process = subprocess.Popen(command, cwd=folder, env=variables, stdin=child, stdout=child, stderr=child)
    os.close(child)
    parts = []
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(parent)
    if process.wait() not in (0, 1):
        sys.exit(b"".join(parts).decode("utf-8", "replace"))
    return b"".join(parts).decode("utf-8")


def screen(text: str) -> list[str]:
    """The lines that stay on the screen, with their colours. Progress erases whole lines only."""
    lines, row = [""], 0
    for match in CONTROL.finditer(text):
        piece, control = match.group(), match.group(1)
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control and control.endswith("A"):
            row = max(0, row - int(control[:-1] or 1))
        elif control and control.endswith("K"):
            lines[row] = ""
        elif control is None and piece != "\r":
            lines[row] += piece
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def svg(lines: list[str]) -> str:
    """A picture of the lines, without fonts from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in [*lines, ""]:  # the picture cuts into its last line
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="fold")
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    return console.export_svg(title="repro", theme=MONOKAI, code_format=form, unique_id="repro")


def photograph(page: Path, picture: Path) -> None:
    """The top of a page as PNG."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no chromium was found: set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--window-size={},{}".format(*PAGE), f"--screenshot={picture}",
        ]  # fmt: skip
        subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)


def main() -> None:
    """Run, draw, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the run itself; default: a temporary one")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / given.model.name
        if not model.exists():
            model.symlink_to(given.model.resolve())
        asked = [model.name, *options]
        kept = folder / "terminal.txt"
        if not kept.exists():
            kept.write_bytes(run([sys.executable, "-m", "repro", *asked], folder).encode())
        lines = [line.replace(f"{folder.resolve()}{os.sep}", "") for line in screen(kept.read_bytes().decode())]
        (report,) = folder.glob("repro-runs/*/report.html")
        (FOLDER / "terminal.svg").write_text(svg([f"$ repro {shlex.join(asked)}", *lines]), "utf-8")
        photograph(report, FOLDER / "page.png")
        for picture in (FOLDER / "terminal.svg", FOLDER / "page.png"):
            data = picture.read_bytes()
            if len(data) > LIMIT or str(Path.home()).encode() in data or str(folder).encode() in data:
                sys.exit(f"{picture.name} has {len(data):,} bytes, or names a folder of this machine")


if __name__ == "__main__":
    main()
