"""One attack, really made: its folder, the product in a process of its own, and what did not hold."""

from __future__ import annotations

import base64
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from support import forked

from . import makers
from .attack import Attack

ROOT = Path(__file__).parents[2]
CANARY = "CANARY"
"""A file that foreign code would make in the attack's folder, if any of it ran."""
LONGEST_REFUSAL = 1000
REFUSED = (2, 125)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, hides text or turns its direction; a newline and a tab do not."""
UNPLANNED = ("Traceback (most recent call last)", "please report it", "Exception ignored in")
READABLE = (".md", ".html", ".json", ".jsonl", ".py", ".log", ".txt", ".toml", ".svg", ".csv", ".yml", ".yaml")


def hold(attack: Attack, place: Path) -> list[str]:
    """What of an attack did not hold: nothing, where all did.

    Args:
        attack: A row of a table.
        place: An empty folder, which is the attack's own.
    """
    before = _greatest()
    for path, model in attack.models.items():
        makers.copy_model(model, place / path)
    for file in attack.files:
        _put(place, dict(file))
    with forked.allowed(not attack.fresh):
        broken = list(makers.deeds()[attack.do](place, **attack.args) if attack.do else _asked(attack, place))
    broken += _forbidden(attack, _handed(attack, place))
    if (place / CANARY).exists():
        broken.append("foreign code ran")
    if (used := _greatest()) > max(before, attack.memory_mb):  # an earlier child of this process may have been greater
        broken.append(f"a process took {used:.0f} MB, and {attack.memory_mb} MB is the most that holds")
    return broken


def _greatest() -> float:
    """MB of the largest process that this one has started and seen to its end."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit, forked.usage.megabytes)


def environment(place: Path, **more: str) -> dict[str, str]:
    """The variables of an attack's processes: this checkout, no network, a cache that all attacks share."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1",
        "REPRO": shlex.join(forked.words()), "HERE": str(place), **more,
    }  # fmt: skip


def run(attack: Attack, place: Path) -> tuple[int | None, str, str]:
    """Exit status (None where it did not end in time), stdout and stderr of the attack's command."""
    env = environment(place, **{name: _here(value, place) for name, value in attack.env.items()})
    if attack.shell:
        command = ["bash", "-c", _here(attack.shell, place)]
    else:
        command = [sys.executable, "-m", "repro", *(_here(word, place) for word in attack.command)]
    process = forked.popen(
        command, cwd=place, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=attack.seconds)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        status = None
    return status, out.decode("utf-8", "backslashreplace"), err.decode("utf-8", "backslashreplace")


def _asked(attack: Attack, place: Path) -> Iterator[str]:
    """What of a command or of a line for bash did not hold."""
    status, out, err = run(attack, place)
    printed = out + err
    if status is None:
        yield f"it did not end within {attack.seconds:g} s"
    elif status not in attack.status:
        yield f"exit status {status}, and {attack.status} holds: {_end(printed)}"
    for pattern in attack.says:
        if not re.search(pattern, printed):
            yield f"nothing printed matches {pattern!r}: {_end(printed)}"
    for text in UNPLANNED:
        if text in printed:
            yield f"{text!r} was printed: {_end(printed)}"
    if found := CONTROL.search(printed):
        yield f"{found[0]!r} was printed as it is"
    yield from _refusal(attack, status, err)
    yield from _forbidden(attack, [("what was printed", printed)])


def _refusal(attack: Attack, status: int | None, err: str) -> Iterator[str]:
    """A refusal is one line, and short."""
    said = [line for line in err.splitlines() if line.startswith("repro: ")]
    if said and max(map(len, said)) > LONGEST_REFUSAL:
        yield f"a line of {max(map(len, said))} characters"
    if status in REFUSED and not attack.shell and len(said) > 1:
        yield f"{len(said)} lines where one is due"


def _handed(attack: Attack, place: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each file that is handed on; an archive is opened."""
    for path in sorted({path for pattern in attack.handed for path in place.glob(pattern) if path.is_file()}):
        name = str(path.relative_to(place))
        yield "the name of a file", name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield "the name of a member", member
                    yield f"{name}:{member}", archive.read(member).decode("utf-8", "backslashreplace")
        elif path.suffix in READABLE:
            yield name, path.read_text("utf-8", "backslashreplace")


def _forbidden(attack: Attack, texts: list[tuple[str, str]] | Iterator[tuple[str, str]]) -> Iterator[str]:
    for where, text in texts:
        for word in attack.never:
            if word in text:
                yield f"{word!r} stands in {where}: {_around(text, word)}"


def _put(place: Path, file: dict[str, object]) -> None:
    """Make one of the attack's files."""
    path = place / str(file.pop("path"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if (path.is_symlink() or path.is_file()) and file.get("of") != path.name:
        path.unlink()
    if "make" in file:
        makers.files()[str(file.pop("make"))](path, **file)
    elif "text" in file:
        path.write_text(_here(str(file["text"]), place), encoding="utf-8")
    elif "base64" in file:
        path.write_bytes(base64.b64decode(str(file["base64"])))
    else:
        path.symlink_to(str(file["link"]))


def _here(text: str, place: Path) -> str:
    return text.replace("{here}", str(place))


def _end(text: str) -> str:
    return repr(text.strip()[-400:])


def _around(text: str, word: str) -> str:
    at = text.index(word)
    return repr(text[max(0, at - 60) : at + len(word) + 60])
